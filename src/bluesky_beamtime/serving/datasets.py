"""Datasets of runs that have ended, kept for the requests that follow."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from bluesky_beamtime.database.streams import Stream

if TYPE_CHECKING:
    import xarray as xr

# A client asks for one block after the other of the same few streams.
_MOST = 16
_MOST_BYTES = 64 << 20


class DatasetCache:
    """Reads streams, and remembers the last of those that cannot change any more.

    Notes
    -----
    Thread-safe. Frames are lazy within a Dataset; what is kept are columns of numbers,
    and no Dataset with more than 64 MiB of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], xr.Dataset] = OrderedDict()

    def read(self, stream: Stream) -> xr.Dataset:
        """Return all fields of a stream."""
        run = stream.run
        if run.stop is None:
            return stream.read()
        key = (str(run.database.path), run.uid, stream.name)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        dataset = stream.read()
        if _bytes_held(dataset) <= _MOST_BYTES:
            with self._lock:
                self._kept[key] = dataset
                while len(self._kept) > _MOST:
                    self._kept.popitem(last=False)
        return dataset


def _bytes_held(dataset: xr.Dataset) -> int:
    return sum(v.nbytes for v in dataset.variables.values() if v.chunks is None)


datasets = DatasetCache()
"""The cache of this process."""
