"""One HDF5 file of frames that grows and can be read at every moment."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from bluesky_beamtime.errors import StoreStateError
from bluesky_beamtime.storage import hdf5_log
from bluesky_beamtime.storage.files import (
    make_folder,
    pwrite_all,
    replace_file,
    write_error,
)
from bluesky_beamtime.storage.hdf5_format import Superblock
from bluesky_beamtime.storage.hdf5_index import ChunkIndex
from bluesky_beamtime.storage.hdf5_layout import STATE_ADDRESS, FileLayout, State
from bluesky_beamtime.storage.hdf5_publishing import PublishedFile
from bluesky_beamtime.storage.layout import plain_json, sync_hierarchy


class HDF5File(PublishedFile):
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
        super().__init__(
            path,
            fd,
            layout,
            state,
            index=index,
            attributes=attributes,
            power=power,
            recovered=recovered,
        )
        self._superblock = superblock
        self._new_name = True
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

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def unsynced(self) -> bool:
        """Whether a power cut would lose something that was acknowledged."""
        return self._unsynced

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
