"""What has no type of its own in a file, as text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np

from bluesky_beamtime.database import encode


def plain_text(text: str) -> str:
    """Return text that can be UTF-8: half of a surrogate pair is written as such."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_text(value: Any) -> str:
    """Return a value as JSON; arrays are lists.

    What JSON does not know is tagged: ``{"$float": "nan"}``, ``{"$complex": [0, 1]}``.
    """
    return plain_text(encode(_listed(value)))


def cell_text(value: Any) -> str:
    """Return text as it is, and anything else as JSON."""
    return plain_text(value) if isinstance(value, str) else json_text(value)


def _listed(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return cast("Any", value).tolist()
    if isinstance(value, (list, tuple)):
        return [_listed(item) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {key: _listed(item) for key, item in items}
    return value


def utc(seconds: float) -> datetime:
    """Return seconds since 1970 as a time; what no calendar has becomes the nearest."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        nearest = datetime.max if seconds > 0 else datetime.min
        return nearest.replace(tzinfo=UTC)
