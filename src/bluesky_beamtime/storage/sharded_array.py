"""One Zarr v3 array that grows by frames and can be read at every moment."""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from bluesky_beamtime.errors import (
    FrameMismatchError,
    SinkClosedError,
    StoreReadError,
    StoreStateError,
    StoreWriteError,
)
from bluesky_beamtime.storage.blocks import append_block
from bluesky_beamtime.storage.codecs import Compression, Encoded, FrameCodec
from bluesky_beamtime.storage.extent import written_frames
from bluesky_beamtime.storage.files import (
    make_folder,
    replace_file,
    sync_file,
    sync_folder,
    write_error,
)
from bluesky_beamtime.storage.layout import (
    LAYOUT_FILE,
    METADATA_FILE,
    ArrayLayout,
    default_frames_per_shard,
    plain_json,
    read_metadata,
    sync_hierarchy,
    zarr_data_type,
)
from bluesky_beamtime.storage.shards import ShardFile
from bluesky_beamtime.storage.source import frame_shape
from bluesky_beamtime.storage.tiling import Tiling, frame_chunks, stored_shape

# What is kept back so that the last length can still be published on a full disk.
RESERVE_FILE = ".reserve"
_RESERVE_BYTES = 1 << 14
# One call of pwritev takes at most 1024 buffers; a chunk has up to two.
_MOST_CHUNKS = 500
# Full shards that may wait for their sync with their files open.
_MOST_RETIRED = 32


class ShardedArray:
    """An array of frames on a local disk: appended by one process, read by any.

    Use :meth:`create` or :meth:`open`. All methods are thread-safe; :meth:`append`
    holds a lock of this array alone, and :meth:`publish` and :meth:`sync` do not hold
    it while they wait for the disk.

    Attributes
    ----------
    path : pathlib.Path
        Folder of the array.
    layout : ArrayLayout
        Dtype, frame shape, codecs and sharding.
    """

    def __init__(
        self,
        path: Path,
        layout: ArrayLayout,
        attributes: Mapping[str, Any],
        *,
        length: int,
        published: int,
        power: bool,
    ) -> None:
        self.path = path
        self.layout = layout
        self._attributes = dict(attributes)
        self._metadata = orjson.loads(layout.to_json(length, {}))
        self._power = power
        self._length = length
        self._published = published
        self._attributes_changed = False
        self._closed = False
        self._lock = threading.Lock()
        self._publish_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._shard: ShardFile | None = None
        self._shard_number = -1
        self._retired: list[ShardFile] = []
        self._unsynced = False
        self._new_names = False
        self._created = False

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        dtype: Any,
        shape: tuple[int, ...],
        frames_per_shard: int | None = None,
        compression: Compression = "none",
        checksum: bool = True,
        attributes: Mapping[str, Any] | None = None,
        dimension_names: tuple[str, ...] | None = None,
        chunks: int | tuple[int, ...] | None = None,
        power: bool = False,
    ) -> Self:
        """Make an empty array; its metadata can be read at once.

        Parameters
        ----------
        path
            Folder of the array; created with its parents. The folder above should be a
            group, see :func:`~bluesky_beamtime.storage.create_group`.
        dtype, shape
            Of one frame; ``shape`` may be ``()``.
        frames_per_shard
            Frames in one file; by default about 256 MiB of them.
        compression, checksum
            See :class:`~bluesky_beamtime.storage.codecs.FrameCodec`.
        attributes
            JSON attributes of the array.
        dimension_names
            Names of all dimensions, the frames' first.
        chunks
            Cut each frame into inner chunks of this shape; by default it is one.
        power
            Fsync every frame before :meth:`append` returns.

        Raises
        ------
        StoreStateError
            The path already holds frames.
        StoreWriteError
            The disk refused.
        FrameMismatchError
            A dtype that is not a number.
        """
        folder = Path(path)
        stored = np.dtype(dtype)
        zarr_data_type(stored)
        sizes = frame_shape(folder.name, shape)
        whole = stored_shape(sizes)
        tiling = Tiling(whole, frame_chunks(folder.name, sizes, chunks))
        if frames_per_shard is None:
            frames_per_shard = default_frames_per_shard(
                stored.itemsize * math.prod(sizes), tiling.count
            )
        if frames_per_shard < 1:
            raise ValueError(f"frames_per_shard must be 1 or more: {frames_per_shard}")
        layout = ArrayLayout(
            shape=sizes,
            codec=FrameCodec(stored, compression, checksum),
            frames_per_shard=frames_per_shard,
            dimension_names=dimension_names,
            chunks=None if tiling.chunks == whole else tiling.chunks,
        )
        try:
            holds_frames = _holds_frames(folder)
            fresh = not (folder / METADATA_FILE).exists()
        except OSError as error:
            raise write_error("an array", folder, error) from error
        if holds_frames:
            raise StoreStateError(
                f"the array {str(folder)!r} already holds frames; write to another "
                "store, or open() it to go on"
            )
        array = cls(folder, layout, {}, length=0, published=-1, power=power)
        array.set_attributes(attributes or {})
        try:
            make_folder(folder)
            replace_file(
                folder / LAYOUT_FILE, layout.to_json(0, array.attributes), sync=power
            )
            array.publish()
            array._created = array._unsynced = True
            if power:
                array.sync()
        except OSError as error:
            if fresh:
                # A folder that is no array is in the way of those who list the group.
                _remove_empty_array(folder)
            if isinstance(error, StoreWriteError):
                raise
            raise write_error("an array", folder, error) from error
        return array

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, power: bool = False) -> Self:
        """Open an array to go on after the frames that are there.

        Raises
        ------
        StoreReadError
            There is no array of this layout.
        """
        folder = Path(path)
        metadata = read_metadata(folder)
        layout = ArrayLayout.from_json(metadata, str(folder))
        array = cls(
            folder,
            layout,
            metadata.get("attributes", {}),
            # A number that readers saw is never used again, although its frame may be
            # lost: documents refer to it.
            length=max(written_frames(folder, layout), metadata["shape"][0]),
            published=metadata["shape"][0],
            power=power,
        )
        array.publish()
        return array

    # ------------------------------------------------------------------- state

    @property
    def length(self) -> int:
        """Frames that would survive ``kill -9``."""
        return self._length

    @property
    def published(self) -> int:
        """Frames that a fresh reader sees."""
        return max(0, self._published)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of the attributes."""
        with self._lock:
            return dict(self._attributes)

    # ------------------------------------------------------------------ writing

    def encode(self, frame: NDArray[Any]) -> Encoded:
        """Return a frame's chunks; needs no lock, for several threads at once.

        The frame must have the array's dtype and shape. What is returned is good for
        one :meth:`append_encoded`.
        """
        layout = self.layout
        if layout.chunks is None:
            return layout.codec.encode([np.ascontiguousarray(frame)])
        return layout.codec.encode(layout.tiling.split(frame))

    def append(self, frame: ArrayLike) -> int:
        """Append one frame and return its index.

        When this returns, the frame survives the death of the process. When it raises,
        nothing was appended, and the next call may succeed.

        Raises
        ------
        FrameMismatchError
            Another dtype or shape.
        SinkClosedError
            The array is closed.
        StoreWriteError
            The disk refused.
        """
        array = np.asarray(frame)
        layout = self.layout
        if array.dtype != layout.dtype or array.shape != layout.shape:
            raise FrameMismatchError(
                self.path.name,
                f"{layout.dtype} {layout.shape}",
                f"{array.dtype} {array.shape}",
            )
        return self.append_encoded(self.encode(array))

    def append_encoded(self, frame: Encoded) -> int:
        """Append what :meth:`encode` returned; see :meth:`append`."""
        with self._lock:
            index = self._length
            shard = self._shard_of(index)
            try:
                shard.put(index % self.layout.frames_per_shard, (frame,))
                self._unsynced = True
                if self._power:
                    self._sync_shard(shard)
            except OSError as error:
                shard.take_back(index % self.layout.frames_per_shard)
                raise write_error(f"frame {index}", shard.path, error) from error
            self._length = index + 1
        frame.release()
        return index

    def append_block(
        self, frames: NDArray[Any], workers: Executor | None = None
    ) -> int:
        """Append frames that lie along the leading axis; see :meth:`append_many`.

        Parameters
        ----------
        frames
            They must have the array's dtype and shape.
        workers
            Threads that compress some frames while others are written.
        """
        codec, chunks = self.layout.codec, self.layout.chunks
        as_they_are = codec.compression == "none" and chunks is None
        append_block(self, frames, workers, as_they_are=as_they_are)
        return self._length

    def append_many(self, frames: list[Encoded]) -> int:
        """Append several frames, as few system calls as possible; return the length.

        All or a leading part of them is appended when this raises; :attr:`length` says
        how many.
        """
        per_shard = self.layout.frames_per_shard
        most = max(1, _MOST_CHUNKS // self.layout.chunks_per_frame)
        with self._lock:
            done = 0
            while done < len(frames):
                index = self._length
                shard = self._shard_of(index)
                slot = index % per_shard
                part = frames[done : done + min(most, per_shard - slot)]
                try:
                    shard.put(slot, part)
                    self._unsynced = True
                    if self._power:
                        self._sync_shard(shard)
                except OSError as error:
                    shard.take_back(slot, len(part))
                    raise write_error(f"frame {index}", shard.path, error) from error
                self._length = index + len(part)
                done += len(part)
                for frame in part:
                    frame.release()
            return self._length

    def _shard_of(self, index: int) -> ShardFile:
        """Return the open shard of a frame; the lock is held."""
        number = index // self.layout.frames_per_shard
        if self._closed:
            raise SinkClosedError(
                f"the array {str(self.path)!r} is closed after {index} frames"
            )
        shard = self._shard
        if shard is None or number != self._shard_number:
            path = self.path / self.layout.shard_name(number)
            try:
                self._retire_some()
                fresh = ShardFile(
                    path, self.layout.frames_per_shard, self.layout.chunks_per_frame
                )
            except OSError as error:
                raise write_error(f"frame {index}", path, error) from error
            if shard is not None:
                self._retired.append(shard)
            self._shard, self._shard_number, shard = fresh, number, fresh
            self._new_names = True
        return shard

    def _retire_some(self) -> None:
        """Keep few files open, also when shards fill faster than they are synced."""
        while len(self._retired) >= _MOST_RETIRED:
            self._retired[0].sync()
            self._retired.pop(0).close()

    def _sync_shard(self, shard: ShardFile) -> None:
        """Make a frame survive a power cut before it is acknowledged; lock held."""
        shard.sync()
        if self._new_names:
            sync_folder(self.path)
            self._new_names = False

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

        The metadata file is replaced as a whole, about 50 µs, and only when something
        changed.

        Parameters
        ----------
        sync
            Also fsync it, so that the length survives a power cut.

        Raises
        ------
        StoreWriteError
            The disk refused; readers still see what was published before.
        """
        with self._publish_lock:
            with self._lock:
                length = self._length
                if length == self._published and not self._attributes_changed:
                    return length
                self._metadata["shape"][0] = length
                self._metadata["attributes"] = self._attributes
                self._attributes_changed = False
                data = orjson.dumps(self._metadata, option=orjson.OPT_INDENT_2)
            try:
                self._replace_metadata(data, sync or self._power)
            except OSError as error:
                self._attributes_changed = True
                raise write_error(
                    f"the length of {length} frames", self.path / METADATA_FILE, error
                ) from error
            self._published = length
            return length

    def _replace_metadata(self, data: bytes, sync: bool) -> None:
        path = self.path / METADATA_FILE
        reserve = self.path / RESERVE_FILE
        try:
            replace_file(path, data, sync=sync)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            try:
                os.unlink(reserve)
            except OSError:
                raise error from None
            replace_file(path, data, sync=sync)
            # Before a frame takes what is free again.
            _make_reserve(reserve)
            return
        if self._published < 0:
            _make_reserve(reserve)

    def sync(self) -> None:
        """Bring every frame written so far to the disk itself, against power cuts.

        Raises
        ------
        StoreWriteError
            The disk refused.
        """
        with self._sync_lock:
            with self._lock:
                if not self._unsynced and not self._retired:
                    return
                self._unsynced = False
                retired, self._retired = self._retired, []
                current = self._shard
                new_names, self._new_names = self._new_names, False
                created, self._created = self._created, False
            try:
                if created:
                    sync_file(self.path / LAYOUT_FILE)
                    sync_file(self.path / METADATA_FILE)
                for shard in retired:
                    shard.sync()
                    shard.close()
                if current is not None:
                    current.sync()
                if new_names or created:
                    sync_folder(self.path)
                if created:
                    sync_hierarchy(self.path)
            except OSError as error:
                with self._lock:
                    self._unsynced = True
                    self._retired[:0] = [shard for shard in retired if shard.is_open]
                    self._new_names |= new_names
                    self._created |= created
                raise write_error("frames", self.path, error) from error

    @property
    def unsynced(self) -> bool:
        """Whether a power cut would lose something that was acknowledged."""
        return self._unsynced

    def close(self) -> None:
        """Publish the exact length, bring everything to the disk, close the files.

        May be called again. When the disk refuses, the files are closed all the same
        and the error is raised; the next call publishes what this one could not.
        """
        with self._lock:
            done = self._length == self._published and not self._attributes_changed
            if self._closed and done:
                return
            self._closed = True
        try:
            self.sync()
            self.publish(sync=True)
        finally:
            with self._sync_lock, self._lock:
                for shard in (*self._retired, self._shard):
                    if shard is not None:
                        shard.close()
                self._retired, self._shard = [], None
            with suppress(OSError):
                os.unlink(self.path / RESERVE_FILE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        layout = self.layout
        return (
            f"<ShardedArray {self.path.name!r} {self._length} frames of "
            f"{layout.dtype} {layout.shape}, {state}>"
        )


def _make_reserve(path: Path) -> None:
    """Keep some space back; a disk that cannot give even that is left alone."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.posix_fallocate(fd, 0, _RESERVE_BYTES)
        finally:
            os.close(fd)
    except OSError:
        with suppress(OSError):
            os.unlink(path)


def _remove_empty_array(folder: Path) -> None:
    """Remove what a failed creation has made."""
    for name in (METADATA_FILE, LAYOUT_FILE, RESERVE_FILE):
        with suppress(OSError):
            os.unlink(folder / name)
    with suppress(OSError):
        os.rmdir(folder)


def _holds_frames(folder: Path) -> bool:
    """Say whether a folder holds frames, or something that is not ours."""
    if not folder.exists():
        return False
    try:
        metadata = read_metadata(folder)
        layout = ArrayLayout.from_json(metadata, str(folder))
    except StoreReadError:
        return any(not name.startswith(".") for name in os.listdir(folder))
    return metadata["shape"][0] > 0 or written_frames(folder, layout) > 0
