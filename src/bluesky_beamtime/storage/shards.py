"""One shard file, appended in place: the index at its start, the chunks behind it.

The file begins with ``frames_per_shard`` pairs of little-endian unsigned 64-bit
numbers, the offset and the length of each frame's chunk, or 2⁶⁴-1 twice where there is
none. A frame is appended by writing its chunk at the end of the file and then its own
sixteen bytes of index. Nothing that was written before is ever touched, so a process
may die between any two instructions: a frame is there whole or not at all, and readers
may look at every moment.
"""

from __future__ import annotations

import os
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.storage.files import pwrite_all

_ENTRY = struct.Struct("<QQ")
ENTRY_BYTES = _ENTRY.size
ABSENT = (1 << 64) - 1


def index_bytes(frames_per_shard: int) -> int:
    """Return the size of a shard's index."""
    return ENTRY_BYTES * frames_per_shard


def read_index(fd: int, frames_per_shard: int) -> NDArray[np.uint64]:
    """Return the index of a shard as an array of (offset, length), absent as ABSENT.

    A file that is shorter than its index (a crash while it was created) has no frames
    behind its end.
    """
    data = os.pread(fd, index_bytes(frames_per_shard), 0)
    index = np.full((frames_per_shard, 2), ABSENT, "<u8")
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
    frames_per_shard
        Number of index entries.
    """

    def __init__(self, path: Path, frames_per_shard: int) -> None:
        self.path = path
        self.frames_per_shard = frames_per_shard
        # A descriptor that is closed during a sync may be another file's by then.
        self._closing = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(self._fd).st_size
            start = index_bytes(frames_per_shard)
            if size < start:
                # New, or the process died while it wrote the index: no frame is there.
                pwrite_all(self._fd, [b"\xff" * start], start, 0)
                size = start
        except BaseException:
            os.close(self._fd)
            raise
        self._end = size

    def put(self, slot: int, buffers: list[Any], size: int) -> None:
        """Append one chunk and enter it in the index.

        When this returns, the chunk survives the death of the process. When it raises
        ``OSError`` nothing is entered, and the next call writes over what was torn.
        """
        fd, end = self._fd, self._end
        pwrite_all(fd, buffers, size, end)
        # Sixteen aligned bytes inside one page: readers see all of them or none.
        pwrite_all(fd, [_ENTRY.pack(end, size)], ENTRY_BYTES, slot * ENTRY_BYTES)
        self._end = end + size

    def put_many(self, slot: int, chunks: list[tuple[list[Any], int]]) -> None:
        """Append several chunks for consecutive slots with two system calls."""
        buffers = [buffer for parts, _ in chunks for buffer in parts]
        entries = bytearray()
        end = self._end
        for _, size in chunks:
            entries += _ENTRY.pack(end, size)
            end += size
        pwrite_all(self._fd, buffers, end - self._end, self._end)
        pwrite_all(self._fd, [bytes(entries)], len(entries), slot * ENTRY_BYTES)
        self._end = end

    def take_back(self, slot: int, count: int = 1) -> None:
        """Take entries out of the index whose frames were not acknowledged."""
        with suppress(OSError):
            entries = b"\xff" * (count * ENTRY_BYTES)
            pwrite_all(self._fd, [entries], len(entries), slot * ENTRY_BYTES)

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
