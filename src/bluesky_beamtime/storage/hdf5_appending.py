"""Frames on their way into the log of an HDF5 file, and found there again."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bluesky_beamtime.errors import SinkClosedError
from bluesky_beamtime.storage import hdf5_log
from bluesky_beamtime.storage.blocks import append_block
from bluesky_beamtime.storage.files import pwrite_all, write_error
from bluesky_beamtime.storage.hdf5_codecs import EncodedFrame
from bluesky_beamtime.storage.hdf5_index import ChunkIndex
from bluesky_beamtime.storage.hdf5_layout import INDEX_ADDRESS, FileLayout
from bluesky_beamtime.storage.hdf5_log import Record, aligned

# One call of pwritev takes at most 1024 buffers; a record has up to three.
_MOST_RECORDS = 300


class AppendedFile:
    """The log of a file of frames, and the index made of it; see :class:`HDF5File`."""

    def __init__(
        self,
        path: Path,
        fd: int,
        layout: FileLayout,
        position: int,
        *,
        index: ChunkIndex | None,
        power: bool,
    ) -> None:
        self.path = path
        self.layout = layout
        self._fd = fd
        self._index = index or ChunkIndex(INDEX_ADDRESS, layout.size_bytes)
        self._power = power
        self._position = position
        self._unsynced = True
        self._torn = False
        self._closed = False
        self._lock = threading.Lock()

    @property
    def length(self) -> int:
        """Frames that would survive ``kill -9``."""
        return self._index.count

    def encode(self, frame: NDArray[Any]) -> EncodedFrame:
        """Return a frame's chunk; needs no lock, for several threads at once."""
        return self.layout.codec.encode(frame)

    def append_encoded(self, frame: EncodedFrame) -> int:
        """Append what :meth:`encode` returned; see :meth:`append_many`."""
        return self.append_many([frame])

    def append_block(
        self, frames: NDArray[Any], workers: Executor | None = None
    ) -> int:
        """Append frames that lie along the leading axis; see :meth:`append_many`.

        Parameters
        ----------
        frames
            They must have the file's dtype and shape.
        workers
            Threads that compress some frames while others are written.
        """
        as_they_are = self.layout.codec.compression == "none"
        append_block(self, frames, workers, as_they_are=as_they_are)
        return self.length

    def append_many(self, chunks: list[EncodedFrame]) -> int:
        """Append what :meth:`encode` returned, in few system calls; return the length.

        When this returns the frames survive the death of the process. All or a leading
        part of them is appended when it raises; :attr:`length` says how many.

        Raises
        ------
        SinkClosedError
            The file is closed.
        StoreWriteError
            The disk refused; the next call may succeed.
        """
        with self._lock:
            if self._closed:
                raise SinkClosedError(
                    f"the file {str(self.path)!r} is closed after {self.length} frames"
                )
            done = 0
            while done < len(chunks):
                try:
                    self._make_room()
                    done += self._put(chunks[done : done + _MOST_RECORDS])
                except BaseException as error:
                    self._drop_tail()
                    if not isinstance(error, OSError):
                        raise
                    what = f"frame {self.length}"
                    raise write_error(what, self.path, error) from error
            return self.length

    def _make_room(self, known: Mapping[tuple[str, int], int] | None = None) -> None:
        """Put the index blocks that the next frame needs before it into the log.

        So a frame that was acknowledged can be published on a full disk, too.
        """
        if self._torn:
            os.ftruncate(self._fd, self._position)
            self._torn = False
        for new in self._index.needed():
            address = (known or {}).get((new.kind, new.start))
            if address is None:
                kind = hdf5_log.BLOCKS[new.kind]
                address = self._reserve(kind, new.start, new.size)
            self._index.adopt(new, address)

    def _reserve(self, kind: int, number: int, size: int) -> int:
        """Append a record of zeros, to be written over; return where they start."""
        start = aligned(self._position)
        data = Record(kind, number, size).to_bytes(self.layout.nonce) + bytes(size)
        pwrite_all(self._fd, [data], len(data), start)
        self._position = start + len(data)
        self._unsynced = True
        return self._position - size

    def _put(self, chunks: list[EncodedFrame]) -> int:
        """Append frames up to the next block of the index; return how many."""
        room = self._index.room
        buffers: list[Any] = []
        places: list[tuple[int, int]] = []
        position = start = self._position
        number = self._index.count
        nonce = self.layout.nonce
        for chunk in chunks[:room]:
            kind, crc = hdf5_log.FRAME, chunk.checksum
            if crc is None:
                kind, crc = hdf5_log.BARE_FRAME, 0
            head = hdf5_log.header(nonce, kind, number + len(places), chunk.size, crc)
            gap = -position % 8
            buffers += [bytes(gap) + head, chunk.data] if gap else [head, chunk.data]
            address = position + gap + len(head)
            places.append((address, chunk.size))
            position = address + chunk.size
        pwrite_all(self._fd, buffers, position - start, start)
        self._unsynced = True
        if self._power:
            os.fdatasync(self._fd)
        for address, size in places:
            # In this order: a frame that Ctrl-C keeps out of the index leaves a record
            # whose number the next one bears again.
            self._position = address + size
            self._index.append(address, size)
        return len(places)

    def _drop_tail(self) -> None:
        """Remove what a failed write left, which nobody was told of.

        The size of the file must stay the proof that its last frame is whole.
        """
        self._torn = True
        with suppress(OSError):
            os.ftruncate(self._fd, self._position)
            self._torn = False

    def recover(
        self,
        frames: Mapping[int, tuple[int, int]],
        blocks: Mapping[tuple[str, int], int],
    ) -> None:
        """Put frames that are found in the log into the index, up to the last.

        Parameters
        ----------
        frames
            Addresses and sizes of chunks, by the frames' numbers. A number that is not
            there stays empty.
        blocks
            Where room was made for blocks of the index, by kind and first element.

        Raises
        ------
        StoreWriteError
            The disk refused.
        """
        try:
            with self._lock:
                self._position = os.fstat(self._fd).st_size
                for number in range(self.length, max(frames, default=-1) + 1):
                    self._make_room(blocks)
                    if number in frames:
                        self._index.append(*frames[number])
                    else:
                        self._index.skip()
        except OSError as error:
            raise write_error("the index of the frames", self.path, error) from error
