"""One shard file, appended in place: the index at its start, the chunks behind it.

The file begins with pairs of little-endian unsigned 64-bit numbers, the offset and the
length of each chunk, or 2⁶⁴-1 twice where there is none. A frame is one chunk or a
fixed number of them. It is appended by writing its chunks at the end of the file and
then their sixteen bytes of index each. Nothing that was written before is ever touched,
so a process may die between any two instructions: a frame is there whole or does not
count, and readers may look at every moment.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.storage.codecs import Encoded
from bluesky_beamtime.storage.files import pwrite_all

ENTRY_BYTES = 16
ABSENT = (1 << 64) - 1


def index_bytes(entries: int) -> int:
    """Return the size of a shard's index."""
    return ENTRY_BYTES * entries


def read_index(fd: int, entries: int, first: int = 0) -> NDArray[np.uint64]:
    """Return entries of a shard's index as (offset, length), absent as ABSENT.

    A file that is shorter than its index (a crash while it was created) has no chunks
    behind its end.

    Parameters
    ----------
    fd
        The file.
    entries
        How many.
    first
        The first of them.
    """
    data = os.pread(fd, index_bytes(entries), index_bytes(first))
    index = np.full((entries, 2), ABSENT, "<u8")
    whole = len(data) // ENTRY_BYTES
    index[:whole] = np.frombuffer(data, "<u8", whole * 2).reshape(-1, 2)
    return index


def present(index: NDArray[np.uint64], file_size: int) -> NDArray[np.bool_]:
    """Say for each entry of an index whether its chunk lies whole inside the file."""
    offset, length = index[:, 0], index[:, 1]
    start = np.uint64(index_bytes(len(index)))
    size = np.uint64(file_size)
    # Written so that nothing overflows, whatever bytes a damaged index holds.
    return (
        (offset >= start)
        & (offset <= size)
        & (length <= size - np.minimum(offset, size))
    )


class ShardFile:
    """A shard that is being appended to. Its array holds the lock while it writes.

    Only :meth:`sync` and :meth:`close` may be called by two threads at once: a sync
    takes long, and nobody should wait for it who need not.

    Parameters
    ----------
    path
        The file; created with an empty index when it is not there.
    frames_per_shard, chunks_per_frame
        Their product is the number of index entries. Those of a frame are neighbours.
    """

    def __init__(
        self, path: Path, frames_per_shard: int, chunks_per_frame: int = 1
    ) -> None:
        self.path = path
        self._chunks = chunks_per_frame
        # A descriptor that is closed during a sync may be another file's by then.
        self._closing = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(self._fd).st_size
            start = index_bytes(frames_per_shard * chunks_per_frame)
            if size < start:
                # New, or the process died while it wrote the index: no frame is there.
                pwrite_all(self._fd, [b"\xff" * start], start, 0)
                size = start
        except BaseException:
            os.close(self._fd)
            raise
        self._end = size

    def put(self, slot: int, frames: Sequence[Encoded]) -> None:
        """Append frames for consecutive slots with two system calls.

        When this returns, the frames survive the death of the process. When it raises
        ``OSError`` none is acknowledged: the caller takes their entries back, and the
        next call writes over what was torn.
        """
        end = self._end
        if len(frames) == 1:
            buffers, sizes = frames[0].buffers, frames[0].sizes
        else:
            buffers = [buffer for frame in frames for buffer in frame.buffers]
            sizes = [size for frame in frames for size in frame.sizes]
        entries: list[int] = []
        for size in sizes:
            entries.append(end)
            entries.append(size)
            end += size
        pwrite_all(self._fd, buffers, end - self._end, self._end)
        # One entry is sixteen aligned bytes inside one page: readers see all of them
        # or none. Of a frame with several, readers that look before it is published
        # may see some.
        packed = struct.pack(f"<{len(entries)}Q", *entries)
        pwrite_all(self._fd, [packed], len(packed), self._offset(slot))
        self._end = end

    def take_back(self, slot: int, count: int = 1) -> None:
        """Take frames out of the index that were not acknowledged."""
        with suppress(OSError):
            entries = b"\xff" * self._offset(count)
            pwrite_all(self._fd, [entries], len(entries), self._offset(slot))

    def _offset(self, slot: int) -> int:
        return slot * self._chunks * ENTRY_BYTES

    def sync(self) -> None:
        """Bring what was written to the disk itself, against power cuts.

        Nothing happens after :meth:`close`: who closes a shard has synced it.
        """
        with self._closing:
            if self._fd >= 0:
                os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file, after a sync that is under way; may be called again."""
        with self._closing:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    @property
    def is_open(self) -> bool:
        """Whether the file is still open."""
        return self._fd >= 0
