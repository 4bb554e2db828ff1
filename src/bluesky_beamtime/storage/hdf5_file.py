"""One HDF5 file of frames that grows and can be read at every moment."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from bluesky_beamtime.errors import SinkClosedError, StoreStateError
from bluesky_beamtime.storage import hdf5_log
from bluesky_beamtime.storage.blocks import append_block
from bluesky_beamtime.storage.codecs import checksum
from bluesky_beamtime.storage.files import (
    make_folder,
    pwrite_all,
    replace_file,
    write_error,
)
from bluesky_beamtime.storage.hdf5_codecs import EncodedFrame
from bluesky_beamtime.storage.hdf5_format import Superblock
from bluesky_beamtime.storage.hdf5_index import ChunkIndex
from bluesky_beamtime.storage.hdf5_layout import (
    HEADER_ADDRESS,
    INDEX_ADDRESS,
    STATE_ADDRESS,
    FileLayout,
    State,
)
from bluesky_beamtime.storage.hdf5_log import Record, aligned
from bluesky_beamtime.storage.layout import plain_json, sync_hierarchy

# One call of pwritev takes at most 1024 buffers; a record has up to three.
_MOST_RECORDS = 300
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class HDF5File:
    """A file with one dataset of frames: appended by one process, read by any.

    Use :meth:`create`. All methods are thread-safe; appending holds a lock of this file
    alone, and :meth:`publish` and :meth:`sync` do not hold it while they wait for the
    disk. The HDF5 library, whose one lock all files of a process share, takes no part.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    layout : FileLayout
        What it was made for.
    """

    def __init__(
        self,
        path: Path,
        fd: int,
        layout: FileLayout,
        state: State,
        superblock: Superblock,
        *,
        index: ChunkIndex | None = None,
        attributes: Mapping[str, Any] | None = None,
        power: bool = False,
        recovered: bool = False,
    ) -> None:
        self.path = path
        self.layout = layout
        self._fd = fd
        self._state = state
        self._superblock = superblock
        self._index = index or ChunkIndex(INDEX_ADDRESS, layout.size_bytes)
        self._attributes = dict(attributes or {})
        self._attributes_changed = False
        self._power = power
        self._position = state.position
        self._published = -1 if recovered else 0
        self._unsynced = True
        self._new_name = True
        self._torn = False
        self._closed = False
        self._lock = threading.Lock()
        self._publish_lock = threading.Lock()
        self._sync_lock = threading.Lock()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        layout: FileLayout,
        *,
        attributes: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        power: bool = False,
    ) -> Self:
        """Make a file without frames, which can be read at once.

        Parameters
        ----------
        path
            The file; its folder is created.
        layout
            Dtype, shape, codec and names of the dimensions.
        attributes
            JSON attributes of the dataset.
        metadata
            Metadata of the acquisition, an attribute of the group ``/entry``.
        power
            Fsync every frame before it is acknowledged.

        Raises
        ------
        StoreStateError
            There is a file with frames, or one that is none of ours.
        StoreWriteError
            The disk refused.
        MetadataError
            Attributes that cannot be written as JSON.
        """
        file = Path(path)
        checked = plain_json(dict(attributes or {}))
        layout = replace(layout, nonce=os.urandom(8))
        layout, state, data = layout.skeleton(checked, metadata)
        superblock = Superblock.from_bytes(data)
        assert superblock is not None
        try:
            make_folder(file.parent)
            if _holds_frames(file):
                raise StoreStateError(
                    f"the file {str(file)!r} already holds frames, or is none of ours; "
                    "write to another store"
                )
            replace_file(file, data, sync=power)
            fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise write_error("an HDF5 file", file, error) from error
        made = cls(file, fd, layout, state, superblock, attributes=checked, power=power)
        if power:
            made.sync()
        return made

    # ------------------------------------------------------------------- state

    @property
    def length(self) -> int:
        """Frames that would survive ``kill -9``."""
        return self._index.count

    @property
    def published(self) -> int:
        """Frames that a fresh reader sees."""
        return max(0, self._published)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    # ------------------------------------------------------------------ writing

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

    # --------------------------------------------------------- what others see

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Update attributes; they are written with the next :meth:`publish`.

        Raises
        ------
        MetadataError
            They cannot be written as JSON.
        """
        checked = plain_json(dict(attributes))
        with self._lock:
            self._attributes.update(checked)
            self._attributes_changed = True

    def publish(self, *, sync: bool = False) -> int:
        """Let fresh readers see every frame that is written; return how many.

        Parameters
        ----------
        sync
            Also fsync, so that the length survives a power cut.

        Raises
        ------
        StoreWriteError
            The disk refused; readers still see what was published before.
        """
        with self._publish_lock:
            with self._lock:
                done = self.length == self._published and not self._attributes_changed
                if self._closed or done:
                    return self.published
            try:
                self._publish(sync or self._power)
            except OSError as error:
                what = f"the length of {self.length} frames"
                raise write_error(what, self.path, error) from error
            return self._published

    def _publish(self, sync: bool) -> None:
        if os.fstat(self._fd).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        failure: OSError | None = None
        if self._attributes_changed:
            try:
                self._write_attributes()
            except OSError as error:
                # A full disk keeps new attributes from growing, but not the length.
                if error.errno not in _NO_ROOM:
                    raise
                failure = error
        with self._lock:
            staged = self._index.stage()
            position = aligned(self._position)
        for address, data in staged.blocks:
            pwrite_all(self._fd, [data], len(data), address)
        if sync:
            os.fdatasync(self._fd)
        state = replace(self._state, count=staged.count, position=position)
        header = self.layout.dataset_header(staged.count, state)
        head = state.to_bytes() + staged.head
        self._state = state
        pwrite_all(self._fd, [head], len(head), STATE_ADDRESS)
        # The length comes last: who sees it finds the index that belongs to it.
        pwrite_all(self._fd, [header], len(header), HEADER_ADDRESS)
        with self._lock:
            self._index.commit()
            self._unsynced = True
        self._published = staged.count
        if sync:
            os.fdatasync(self._fd)
        if failure is not None:
            raise failure

    def _write_attributes(self) -> None:
        """Write the attributes to the slot that is not in use."""
        with self._lock:
            attributes = dict(self._attributes)
            self._attributes_changed = False
        try:
            state = replace(self._state, slot=1 - self._state.slot)
            data = self.layout.attribute_slot(
                attributes, state.block_bytes, state.text_bytes
            )
            if data is None:
                block_bytes, text_bytes = self.layout.slot_sizes(attributes)
                size = 2 * (block_bytes + text_bytes)
                with self._lock:
                    try:
                        address = self._reserve(hdf5_log.ATTRIBUTES, 0, size)
                    except OSError:
                        self._drop_tail()
                        raise
                data = self.layout.attribute_slot(attributes, block_bytes, text_bytes)
                assert data is not None
                state = replace(
                    state,
                    attributes=address,
                    slot=0,
                    block_bytes=block_bytes,
                    text_bytes=text_bytes,
                )
            pwrite_all(self._fd, [data], len(data), state.slot_address)
            text = data[state.block_bytes :].rstrip(b"\0")
            self._state = replace(
                state, text_length=len(text), text_checksum=checksum(text)
            )
        except OSError:
            self._attributes_changed = True
            raise

    def sync(self) -> None:
        """Bring every frame written so far to the disk itself, against power cuts.

        Raises
        ------
        StoreWriteError
            The disk refused.
        """
        with self._sync_lock:
            if self._closed or not self._unsynced:
                return
            self._unsynced = False
            try:
                os.fdatasync(self._fd)
                self._sync_name()
            except OSError as error:
                self._unsynced = True
                raise write_error("frames", self.path, error) from error

    def _sync_name(self) -> None:
        if self._new_name:
            sync_hierarchy(self.path)
            self._new_name = False

    @property
    def unsynced(self) -> bool:
        """Whether a power cut would lose something that was acknowledged."""
        return self._unsynced

    def close(self) -> None:
        """Publish the exact length, bring everything to the disk, close the file.

        May be called again. When the disk refuses, the file is closed all the same and
        the error is raised; every acknowledged frame is in it.
        """
        with self._lock:
            if self._closed:
                return
        failure: BaseException | None = None
        try:
            self.publish(sync=True)
        except BaseException as error:
            failure = error
        with self._publish_lock, self._sync_lock, self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                if self.length == self._published:
                    self._mark_closed()
            except OSError as error:
                failure = failure or write_error("the end", self.path, error)
            finally:
                os.close(self._fd)
        if failure is not None:
            raise failure

    def abandon(self) -> None:
        """Close the file as the death of the process would, marked as being written."""
        with self._publish_lock, self._sync_lock, self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)

    def _mark_closed(self) -> None:
        """Take back the signs of a file that is being written."""
        # One after the other, whatever a power cut takes: a state that says closed
        # means that everything else is there, and a file without a mark is closed.
        os.fdatasync(self._fd)
        self._state = replace(self._state, closed=True)
        data = self._state.to_bytes()
        pwrite_all(self._fd, [data], len(data), STATE_ADDRESS)
        os.fdatasync(self._fd)
        end = os.fstat(self._fd).st_size
        data = replace(self._superblock, flags=0, end=end).to_bytes()
        pwrite_all(self._fd, [data], len(data), 0)
        os.fdatasync(self._fd)
        self._sync_name()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        layout = self.layout
        return (
            f"<HDF5File {self.path.name!r} {self.length} frames of "
            f"{layout.dtype} {layout.shape}, {state}>"
        )


def _holds_frames(path: Path) -> bool:
    """Say whether there is a file with frames, or one that is not ours."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        layout = FileLayout.read(fd)
        if layout is None:
            return True
        size = os.fstat(fd).st_size
        records = hdf5_log.walk(fd, layout.nonce, layout.log_start, size)
        return any(record.is_frame for _, record in records)
    finally:
        os.close(fd)
