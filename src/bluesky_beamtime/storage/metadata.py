"""Metadata that devices stage for the store of the next acquisition.

A device calls :func:`register_metadata` before its writer kicks off; the writer puts
what is staged into the attributes of the store. Configuration that belongs to a run is
better kept in the event descriptors; this is for what should travel with the frames.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from bluesky_beamtime.storage.layout import plain_json


class MetadataRegistry:
    """Staged metadata by name; thread-safe.

    Writers :meth:`claim` what is staged when they open and :meth:`discard` their claim
    when they are done. A name that was staged again since is kept for the next one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Each registration is a new object, so that a claim can tell whether what
        # stands under a name is still what it took.
        self._staged: dict[str, dict[str, Any]] = {}

    def register(self, name: str, metadata: Mapping[str, Any]) -> None:
        """Stage a copy of ``metadata`` under ``name``, in place of an earlier one."""
        if not isinstance(name, str) or not name:
            from bluesky_beamtime.errors import MetadataError

            raise MetadataError(f"metadata needs the name of a device, got {name!r}")
        checked = plain_json(dict(metadata))
        with self._lock:
            self._staged[name] = checked

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Return a deep copy of everything staged."""
        with self._lock:
            return copy.deepcopy(self._staged)

    def clear(self) -> None:
        """Forget everything staged."""
        with self._lock:
            self._staged.clear()

    def claim(self, foreign: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
        """Return what is staged, except for names that belong to other writers."""
        others = set(foreign)
        with self._lock:
            return {k: v for k, v in self._staged.items() if k not in others}

    def discard(self, claimed: Mapping[str, dict[str, Any]]) -> None:
        """Forget what was claimed, unless it was staged anew meanwhile."""
        with self._lock:
            for name, metadata in claimed.items():
                if self._staged.get(name) is metadata:
                    del self._staged[name]


STAGED = MetadataRegistry()
"""The registry that the module-level functions and all writers use."""


def register_metadata(name: str, metadata: Mapping[str, Any]) -> None:
    """Stage metadata of a device for the next acquisition.

    Parameters
    ----------
    name
        Name of the device or source; the last call for a name wins.
    metadata
        Anything that JSON can hold. It is copied.

    Raises
    ------
    MetadataError
        It cannot be written as JSON.
    """
    STAGED.register(name, metadata)


def snapshot_metadata() -> dict[str, dict[str, Any]]:
    """Return a deep copy of everything that is staged."""
    return STAGED.snapshot()


def clear_metadata() -> None:
    """Forget everything that is staged."""
    STAGED.clear()
