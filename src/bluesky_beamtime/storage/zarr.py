"""Frames into Zarr v3 stores on a local disk."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from bluesky_beamtime.errors import StoreStateError
from bluesky_beamtime.storage.codecs import (
    Compression,
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
from bluesky_beamtime.storage.local_writer import Durability, LocalWriter
from bluesky_beamtime.storage.ngff import multiscale, with_multiscale
from bluesky_beamtime.storage.registry import register_writer
from bluesky_beamtime.storage.sharded_array import ShardedArray
from bluesky_beamtime.storage.source import SourceInfo
from bluesky_beamtime.storage.tiling import check_chunks, frame_chunks

_ARRAY_OPTIONS = frozenset(("compression", "frames_per_shard", "checksum", "chunks"))
_NGFF_OPTIONS = frozenset(("ome_ngff", "pixel_size", "pixel_unit"))


@register_writer
class ZarrWriter(LocalWriter):
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
        super().__init__(name, durability=durability, threads=threads)
        self.compression = compression
        self.frames_per_shard = frames_per_shard
        self.checksum = checksum
        self.chunks = None if chunks is None else check_chunks(chunks)
        self._check_options(self._array_options({}, 0))
        self._locks: dict[str, FolderLock] = {}

    @classmethod
    def _class_mimetype(cls) -> str:
        return "application/x-zarr"

    # -------------------------------------------------------------------- hooks

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
        self._refuse_unknown(options, _ARRAY_OPTIONS | _NGFF_OPTIONS)
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

        try:
            for name, array in self._arrays.items():
                if not array.closed:
                    self._lock(name)
        except BaseException:
            self._release()
            raise

    def _lock(self, name: str) -> None:
        """Show others that an array is being written."""
        folder = self.path / name
        try:
            make_folder(folder)
            self._locks[name] = FolderLock(folder)
        except OSError as error:
            raise write_error("the lock file", folder, error) from error

    def _on_closed(self, name: str) -> None:
        lock = self._locks.pop(name, None)
        if lock is not None:
            lock.release()

    def _release(self) -> None:
        for name in list(self._locks):
            self._on_closed(name)

    def _create(
        self,
        source: SourceInfo,
        attributes: dict[str, Any],
        dimension_names: tuple[str, ...],
    ) -> ShardedArray:
        self._lock(source.name)
        try:
            if source.name in self.metadata and self.is_open:
                # A source that joins late brings its metadata to the group as well.
                create_group(self.path, {"metadata": self.metadata})
            array = ShardedArray.create(
                self.path / source.name,
                dtype=source.dtype,
                shape=source.shape,
                attributes=attributes,
                dimension_names=dimension_names,
                power=self.durability == "power",
                **self._array_options(source.options, len(source.shape)),
            )
            image = self._multiscale(source)
            if image is not None:
                known = read_metadata(self.path).get("attributes", {})
                create_group(self.path, with_multiscale(known, image))
        except BaseException:
            self._on_closed(source.name)
            with suppress(OSError):
                # Readers stumble over a folder that is no array.
                os.rmdir(self.path / source.name)
            raise
        return array

    def source_chunk_shape(self, source: SourceInfo) -> tuple[int, ...]:
        """Return the shape of the chunks on disk, the frames' axis first."""
        options = self._array_options(source.options, len(source.shape))
        return (1, *frame_chunks(source.name, source.shape, options["chunks"]))
