"""Arrays of events, in the beamtime's own Zarr store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

from numpy.typing import NDArray

from bluesky_beamtime.database.encoding import ArrayReference
from bluesky_beamtime.database.uris import relative_to
from bluesky_beamtime.errors import StoreReadError
from bluesky_beamtime.storage import open_frames


class FarStore(PosixPath):
    """The stores of runs that are elsewhere, for those who only hand a store on.

    Attributes
    ----------
    locate : callable
        Returns the URL of the array that an event refers to, for its path.
    """

    locate: Callable[[str], str]


def open_referenced(store: Path, path: str) -> Any:
    """Return the array that an event refers to, lazily read.

    Parameters
    ----------
    store
        Root of the Zarr store.
    path
        Path of the array below it.

    Raises
    ------
    StoreReadError
        It is not there; or the path leads out of the store, where the author of a file
        that came from elsewhere must not lead anybody.
    """
    if isinstance(store, FarStore):
        if ".." in path.split("/"):
            raise StoreReadError(f"{path!r} is not in the beamtime's own store")
        return open_frames(store.locate(path))
    array = store / path
    if relative_to(array, store) is None:
        raise StoreReadError(f"{str(array)!r} is not in the beamtime's own store")
    return open_frames(array)


def load_referenced(store: Path, reference: ArrayReference) -> NDArray[Any]:
    """Return one array of an event, in the dtype that its document had.

    Raises
    ------
    StoreReadError
        It is not there, or is damaged.
    """
    frames = open_referenced(store, reference.path)
    return frames[reference.index].astype(reference.dtype, copy=False)


def length_of(frames: Any) -> int:
    """Return how many frames an array has; arrays of zarr-python have no ``len``."""
    return frames.shape[0] if frames.shape else 0
