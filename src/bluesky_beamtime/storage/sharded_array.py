"""One Zarr v3 array that grows by frames and can be read at every moment."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bluesky_beamtime.errors import (
    FrameMismatchError,
    StoreStateError,
    StoreWriteError,
)
from bluesky_beamtime.storage.blocks import append_block
from bluesky_beamtime.storage.codecs import Compression, Encoded, FrameCodec
from bluesky_beamtime.storage.extent import holds_frames, written_frames
from bluesky_beamtime.storage.files import make_folder, replace_file, write_error
from bluesky_beamtime.storage.layout import (
    LAYOUT_FILE,
    METADATA_FILE,
    ArrayLayout,
    default_frames_per_shard,
    read_metadata,
    zarr_data_type,
)
from bluesky_beamtime.storage.reserve import drop_reserve
from bluesky_beamtime.storage.source import frame_shape
from bluesky_beamtime.storage.synced_array import SyncedArray
from bluesky_beamtime.storage.tiling import Tiling, frame_chunks, stored_shape

# One call of pwritev takes at most 1024 buffers; a chunk has up to two.
_MOST_CHUNKS = 500


class ShardedArray(SyncedArray):
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
            taken = holds_frames(folder)
            fresh = not (folder / METADATA_FILE).exists()
        except OSError as error:
            raise write_error("an array", folder, error) from error
        if taken:
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


def _remove_empty_array(folder: Path) -> None:
    """Remove what a failed creation has made."""
    for name in (METADATA_FILE, LAYOUT_FILE):
        with suppress(OSError):
            os.unlink(folder / name)
    drop_reserve(folder)
    with suppress(OSError):
        os.rmdir(folder)
