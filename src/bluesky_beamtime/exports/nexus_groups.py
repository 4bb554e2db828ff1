"""Groups, texts and times of a NeXus file."""

from __future__ import annotations

from typing import Any

from bluesky_beamtime.exports.hdf5_fields import plain
from bluesky_beamtime.exports.texts import utc

EPOCH = "1970-01-01T00:00:00+00:00"
"""What seconds are counted from."""


def new_group(parent: Any, name: str, kind: str) -> Any:
    """Make a group of a NeXus class."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def new_text(group: Any, name: str, text: str) -> None:
    """Write a text as a dataset."""
    group[name] = plain(str(text))


def iso_time(seconds: float) -> str:
    """Return seconds since 1970 as NeXus wants a time."""
    return utc(seconds).isoformat()


def unused(group: Any, name: str) -> str:
    """Return a name that nothing in a group has."""
    number, free = 2, name
    while free in group:
        free, number = f"{name}_{number}", number + 1
    return free
