"""Frames into Zarr v3 stores on a local disk."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import PathError, StoreStateError, StoreWriteError
from bluesky_beamtime.storage.codecs import (
    Compression,
    Encoded,
    FrameCodec,
    check_chunk_bytes,
)
from bluesky_beamtime.storage.files import FolderLock, make_folder, write_error
from bluesky_beamtime.storage.layout import (
    check_node_name,
    create_group,
    read_metadata,
    zarr_data_type,
)
from bluesky_beamtime.storage.ngff import multiscale, with_multiscale
from bluesky_beamtime.storage.pacer import Pacer
from bluesky_beamtime.storage.paths import from_uri
from bluesky_beamtime.storage.registry import register_writer
from bluesky_beamtime.storage.remote_frames import is_remote
from bluesky_beamtime.storage.sharded_array import ShardedArray
from bluesky_beamtime.storage.source import SourceInfo
from bluesky_beamtime.storage.tiling import check_chunks, frame_chunks
from bluesky_beamtime.storage.writer import Writer

Durability = Literal["kill", "power"]

_ARRAY_OPTIONS = frozenset(("compression", "frames_per_shard", "checksum", "chunks"))
_NGFF_OPTIONS = frozenset(("ome_ngff", "pixel_size", "pixel_unit"))


@register_writer
class ZarrWriter(Writer):
    """Writes each source as one sharded Zarr v3 array, ``<uri>/<source name>``.

    Frames are appended to shard files in place: what :meth:`FrameSink.write` returned
    from survives ``kill -9``, and any Zarr v3 reader opens the store at every moment.
    The arrays' lengths follow within 50 ms, and at once when documents are collected.

    Parameters
    ----------
    name
        Name of the group of devices that share the writer.
    compression
        ``"none"``, ``"lz4"`` or ``"zstd"``.
    frames_per_shard
        Frames in one file; by default about 256 MiB of them.
    checksum
        Put a crc32c behind every chunk, which readers check.
    chunks
        Cut the frames into inner chunks, so that a part of a huge one can be read
        alone: one size for every axis, or a size for each, such as ``(1024, 1024)``.
        Several sizes concern the sources whose frames have as many axes. By default a
        frame is one chunk.
    durability
        ``"kill"``: frames survive the death of the process at once, and a power cut
        after 50 ms. ``"power"``: every frame is fsynced before it is acknowledged.
    threads
        Worker threads that compress and write submitted frames.

    Notes
    -----
    :meth:`prepare` takes ``compression``, ``frames_per_shard``, ``checksum`` and
    ``chunks`` for one source as well, and ``ome_ngff=True`` with ``pixel_size`` (one
    number for each dimension of a frame) and ``pixel_unit`` for OME-NGFF metadata in
    the store's attributes.
    """

    def __init__(
        self,
        name: str,
        *,
        compression: Compression = "none",
        frames_per_shard: int | None = None,
        checksum: bool = True,
        chunks: int | tuple[int, ...] | None = None,
        durability: Durability = "kill",
        threads: int = 2,
    ) -> None:
        super().__init__(name)
        if threads < 1:
            raise ValueError(f"threads must be 1 or more, got {threads}")
        self.threads = threads
        if durability not in ("kill", "power"):
            raise ValueError(
                f"durability is 'kill' or 'power', not {durability!r}; see the docs on "
                "the crash promise"
            )
        self.compression = compression
        self.frames_per_shard = frames_per_shard
        self.checksum = checksum
        self.chunks = None if chunks is None else check_chunks(chunks)
        self.durability = durability
        self._check_options(self._array_options({}, 0))
        self._arrays: dict[str, ShardedArray] = {}
        self._pacer: Pacer | None = None
        self._locks: dict[str, FolderLock] = {}

    @classmethod
    def _class_mimetype(cls) -> str:
        return "application/x-zarr"

    # -------------------------------------------------------------------- hooks

    def _check_uri(self, uri: str) -> None:
        path = from_uri(uri)
        if is_remote(path):
            raise PathError(
                f"{self} writes to the local disk, where frames survive a crash at "
                f"once, not to {uri!r}: write to a folder and let a StoreUploader copy "
                "each full shard there while it grows"
            )
        if "://" in path or "\0" in path or not os.path.isabs(path):
            raise PathError(
                f"{self} writes to the local disk: give a file: URI or an absolute "
                f"path, not {uri!r}"
            )

    def _on_prepare(self, name: str) -> None:
        check_node_name(name)
        source = self._source(name)
        zarr_data_type(source.dtype)
        options = self._array_options(source.options, len(source.shape))
        self._check_options(options)
        chunk = frame_chunks(name, source.shape, options["chunks"])
        check_chunk_bytes(
            name, source.dtype.itemsize * math.prod(chunk), options["compression"]
        )
        self._multiscale(source)

    def _array_options(self, options: Mapping[str, Any], ndim: int) -> dict[str, Any]:
        """Return the options of an array whose frames have ``ndim`` axes."""
        known = _ARRAY_OPTIONS | _NGFF_OPTIONS
        unknown = set(options) - known
        if unknown:
            raise TypeError(
                f"{self} knows no option {', '.join(sorted(map(repr, unknown)))}; "
                f"it has {', '.join(sorted(map(repr, known)))}"
            )
        given = {key: options[key] for key in _ARRAY_OPTIONS & set(options)}
        usual = {key: getattr(self, key) for key in _ARRAY_OPTIONS}
        if isinstance(self.chunks, tuple) and len(self.chunks) != ndim:
            usual["chunks"] = None
        return usual | given

    @staticmethod
    def _multiscale(source: SourceInfo) -> dict[str, Any] | None:
        """Return the OME-NGFF entry of a source that asked for one."""
        options = source.options
        if not options.get("ome_ngff"):
            return None
        return multiscale(
            source.name,
            len(source.shape),
            options.get("pixel_size"),
            options.get("pixel_unit"),
        )

    def _check_options(self, options: Mapping[str, Any]) -> None:
        FrameCodec(np.dtype("u1"), options["compression"], options["checksum"])
        frames = options["frames_per_shard"]
        if frames is not None and (not isinstance(frames, int) or frames < 1):
            raise ValueError(f"frames_per_shard must be 1 or more, got {frames!r}")

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return Path(from_uri(self._uri))

    def kickoff(self) -> None:
        """Make the store's group and the arrays of its sources; see the base class.

        Raises
        ------
        StoreStateError
            Another live writer has this store, or an array of a source holds frames.
        StoreWriteError
            The disk refused.
        """
        self._arrays = {}
        try:
            self._open_folder()
            for name in self._sources:
                self._on_join(name)
        except BaseException:
            self._abandon()
            raise
        self._start()

    def _open_folder(self) -> None:
        create_group(
            self.path,
            {"metadata": self.metadata} if self.metadata else None,
            sync=self.durability == "power",
        )
        if FolderLock.is_held(self.path):
            raise StoreStateError(
                f"another live writer is writing {str(self.path)!r}; "
                "close it first, or write to another folder"
            )

    def _start(self) -> None:
        self._pacer = Pacer(lambda: list(self._arrays.values()), self.name)

    def _abandon(self) -> None:
        """Undo a kickoff that failed."""
        arrays, self._arrays = self._arrays, {}
        for array in arrays.values():
            try:
                array.close()
            except StoreWriteError:
                self.logger.warning("could not close %s", array, exc_info=True)
        self._unlock_all()

    def _lock(self, name: str) -> None:
        """Show others that an array is being written."""
        folder = self.path / name
        try:
            make_folder(folder)
            self._locks[name] = FolderLock(folder)
        except OSError as error:
            raise write_error("the lock file", folder, error) from error

    def _unlock(self, name: str) -> None:
        lock = self._locks.pop(name, None)
        if lock is not None:
            lock.release()

    def _unlock_all(self) -> None:
        for name in list(self._locks):
            self._unlock(name)

    def _on_join(self, name: str) -> None:
        self._lock(name)
        try:
            self._create(name)
        except BaseException:
            self._unlock(name)
            with suppress(OSError):
                # Readers stumble over a folder that is no array.
                os.rmdir(self.path / name)
            raise

    def _create(self, name: str) -> None:
        source = self._source(name)
        options = self._array_options(source.options, len(source.shape))
        attributes: dict[str, Any] = {"data_key": source.data_key}
        if source.units is not None:
            attributes["units"] = source.units
        if name in self.metadata:
            attributes["metadata"] = self.metadata[name]
            if self.is_open:
                # A source that joins late brings its metadata to the group as well.
                create_group(self.path, {"metadata": self.metadata})
        dims = source.dims or default_dims(source.data_key, len(source.shape))
        array = ShardedArray.create(
            self.path / name,
            dtype=source.dtype,
            shape=source.shape,
            attributes=attributes,
            dimension_names=("time", *dims),
            power=self.durability == "power",
            **options,
        )
        image = self._multiscale(source)
        if image is not None:
            known = read_metadata(self.path).get("attributes", {})
            create_group(self.path, with_multiscale(known, image))
        # Replaced as a whole: the pacer's thread looks at the table meanwhile.
        self._arrays = {**self._arrays, name: array}

    def _encode(self, name: str, frame: NDArray[Any]) -> Any:
        array = self._arrays.get(name)
        # Before kickoff there is no array; the state check that follows says so.
        return None if array is None else array.encode(frame)

    def _write_frame(self, name: str, frame: Encoded) -> None:
        array = self._arrays[name]
        if self._pacer is not None:
            self._pacer.check(array)
        array.append_encoded(frame)

    def _write_frames(self, source: SourceInfo, frames: NDArray[Any]) -> None:
        array = self._arrays[source.name]
        if self._pacer is not None:
            self._pacer.check(array)
        try:
            array.append_block(frames, self._helpers())
        finally:
            source.frames_written = array.length

    def source_chunk_shape(self, source: SourceInfo) -> tuple[int, ...]:
        """Return the shape of the chunks on disk, the frames' axis first."""
        options = self._array_options(source.options, len(source.shape))
        return (1, *frame_chunks(source.name, source.shape, options["chunks"]))

    def _on_publish(self, name: str) -> int:
        return self._arrays[name].publish()

    def _published(self, source: SourceInfo) -> int:
        return self._arrays[source.name].published

    def _on_flush(self, name: str) -> None:
        array = self._arrays[name]
        array.sync()
        array.publish(sync=True)

    def _on_attributes(self, name: str, attributes: Mapping[str, Any]) -> None:
        array = self._arrays.get(name)
        if array is not None:
            array.set_attributes(attributes)

    def _on_complete(self, name: str) -> None:
        array = self._arrays[name]
        try:
            array.close()
            if self._pacer is not None:
                self._pacer.check_synced(array)
        finally:
            self._unlock(name)

    def _on_reopen(self) -> None:
        self._open_folder()
        try:
            for name, array in self._arrays.items():
                if not array.closed:
                    self._lock(name)
        except BaseException:
            self._unlock_all()
            raise
        self._start()

    def _finalize(self) -> None:
        if self._pacer is not None:
            self._pacer.stop()
            self._pacer = None
        self._unlock_all()


def default_dims(data_key: str, count: int) -> tuple[str, ...]:
    """Return names for a frame's dimensions: ``<key>_y``, ``<key>_x`` and the like."""
    names = {
        0: (),
        1: ("x",),
        2: ("y", "x"),
        3: ("z", "y", "x"),
    }.get(count, tuple(f"dim{number}" for number in range(count)))
    return tuple(f"{data_key}_{name}" for name in names)
