"""Frames into HDF5 files on a local disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import (
    FrameMismatchError,
    MissingExtraError,
    PathError,
    StoreWriteError,
)
from bluesky_beamtime.storage.files import FolderLock, make_folder, write_error
from bluesky_beamtime.storage.hdf5_codecs import (
    ChunkCodec,
    EncodedFrame,
    HDF5Compression,
)
from bluesky_beamtime.storage.hdf5_file import HDF5File
from bluesky_beamtime.storage.hdf5_layout import DATASET, FileLayout
from bluesky_beamtime.storage.layout import check_node_name, zarr_data_type
from bluesky_beamtime.storage.pacer import Pacer
from bluesky_beamtime.storage.paths import from_uri
from bluesky_beamtime.storage.registry import register_writer
from bluesky_beamtime.storage.source import SourceInfo
from bluesky_beamtime.storage.writer import Writer
from bluesky_beamtime.storage.zarr import Durability, default_dims

_OPTIONS = frozenset(("compression", "checksum"))
# What HDF5 can hold: bytes of a chunk, and dimensions of a dataset.
_MOST_CHUNK_BYTES = (1 << 32) - 1
_MOST_DIMENSIONS = 32


@register_writer
class HDF5Writer(Writer):
    """Writes each source as one HDF5 file, ``<uri>/<source name>.h5``.

    The frames stand in ``/entry/data/data``, one chunk each, in groups that NeXus
    readers know. What :meth:`FrameSink.write` returned from survives ``kill -9``. While
    it grows, any HDF5 library from 1.10 on opens the file for single-writer
    multiple-reader access (``h5py.File(path, swmr=True)``); its length follows within
    50 ms, and at once when documents are collected. Once closed it is a plain file.

    After a kill the published frames can still be read with ``swmr=True``, but HDF5
    refuses to open the file otherwise; :func:`~bluesky_beamtime.storage.repair_store`
    brings every frame back and takes the mark of the dead writer away.

    Parameters
    ----------
    name
        Name of the group of devices that share the writer.
    compression
        ``"none"``; ``"gzip"``, which every HDF5 library reads; ``"lz4"`` or ``"zstd"``
        with blosc, many times as fast, for which stock readers need
        ``import hdf5plugin``.
    checksum
        Keep a crc32c of every stored chunk beside it. Our own reader checks it at each
        read, and so do ``verify_store`` and ``repair_store``. Stock HDF5 readers know
        nothing of it: HDF5's own Fletcher-32 costs more time than writing the frame.
    durability
        ``"kill"``: frames survive the death of the process at once, and a power cut
        after 50 ms. ``"power"``: every frame is fsynced before it is acknowledged.
    threads
        Worker threads that compress and write submitted frames.

    Raises
    ------
    MissingExtraError
        The package ``h5py`` is absent. Writing does without it, but nobody here could
        read what was written.

    Notes
    -----
    :meth:`prepare` takes ``compression`` and ``checksum`` for one source as well.

    The HDF5 library takes no part in writing: two sources share no lock, readers in the
    same process neither wait for a writer nor stop it, and a full disk leaves no
    library in a state that it cannot leave.
    """

    def __init__(
        self,
        name: str,
        *,
        compression: HDF5Compression = "none",
        checksum: bool = True,
        durability: Durability = "kill",
        threads: int = 2,
    ) -> None:
        super().__init__(name)
        if find_spec("h5py") is None:
            raise MissingExtraError("writing HDF5 files", "h5py", "hdf5")
        if threads < 1:
            raise ValueError(f"threads must be 1 or more, got {threads}")
        if durability not in ("kill", "power"):
            raise ValueError(
                f"durability is 'kill' or 'power', not {durability!r}; see the docs on "
                "the crash promise"
            )
        self.threads = threads
        self.compression = compression
        self.checksum = checksum
        self.durability = durability
        self._codec(np.dtype("u1"), {})
        self._files: dict[str, HDF5File] = {}
        self._pacer: Pacer | None = None
        self._lock_file: FolderLock | None = None

    @classmethod
    def _class_mimetype(cls) -> str:
        return "application/x-hdf5"

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return Path(from_uri(self._uri))

    # ---------------------------------------------------------------- documents

    def source_uri(self, source: SourceInfo) -> str:
        """Return the URI of a source's file."""
        return f"{super().source_uri(source)}.h5"

    def source_parameters(self, source: SourceInfo) -> dict[str, Any]:
        """Return the parameters of a source's StreamResource."""
        return {
            "dataset": DATASET,
            "chunk_shape": list(self.source_chunk_shape(source)),
            "swmr": True,
        }

    # -------------------------------------------------------------------- hooks

    def _check_uri(self, uri: str) -> None:
        path = from_uri(uri)
        if "://" in path or not os.path.isabs(path):
            raise PathError(
                f"{self} writes to the local disk: give a file: URI or an absolute "
                f"path, not {uri!r}"
            )

    def _on_prepare(self, name: str) -> None:
        check_node_name(name)
        source = self._source(name)
        zarr_data_type(source.dtype)
        layout = FileLayout(
            shape=source.shape, codec=self._codec(source.dtype, source.options)
        )
        if not 0 < layout.frame_bytes <= _MOST_CHUNK_BYTES:
            limit = "frames of at least one value and less than 4 GiB"
            raise FrameMismatchError(name, f"{limit} in HDF5", source.promised)
        if len(source.shape) >= _MOST_DIMENSIONS:
            limit = f"frames of less than {_MOST_DIMENSIONS} dimensions"
            raise FrameMismatchError(name, f"{limit} in HDF5", source.promised)

    def _codec(self, dtype: np.dtype[Any], options: Mapping[str, Any]) -> ChunkCodec:
        unknown = set(options) - _OPTIONS
        if unknown:
            raise TypeError(
                f"{self} knows no option {', '.join(sorted(map(repr, unknown)))}; "
                f"it has {', '.join(sorted(map(repr, _OPTIONS)))}"
            )
        return ChunkCodec(
            dtype,
            options.get("compression", self.compression),
            options.get("checksum", self.checksum),
        )

    def kickoff(self) -> None:
        """Make the store's folder and the files of its sources; see the base class.

        Raises
        ------
        StoreStateError
            Another live writer has this store, or a file of a source holds frames.
        StoreWriteError
            The disk refused.
        """
        # Files of an earlier acquisition that never received a frame.
        self._abandon()
        try:
            self._open_folder()
            for name in self._sources:
                self._on_join(name)
        except BaseException:
            self._abandon()
            raise
        self._start()

    def _open_folder(self) -> None:
        try:
            make_folder(self.path, sync=self.durability == "power")
            self._lock_file = FolderLock(self.path)
        except OSError as error:
            raise write_error("the folder of a store", self.path, error) from error

    def _start(self) -> None:
        self._pacer = Pacer(lambda: list(self._files.values()), self.name)

    def _abandon(self) -> None:
        """Close every file, whatever becomes of it."""
        files, self._files = self._files, {}
        for file in files.values():
            try:
                file.close()
            except StoreWriteError:
                self.logger.warning("could not close %s", file, exc_info=True)
        self._release_folder()

    def _release_folder(self) -> None:
        lock, self._lock_file = self._lock_file, None
        if lock is not None:
            lock.release()

    def _on_join(self, name: str) -> None:
        source = self._source(name)
        attributes: dict[str, Any] = {"data_key": source.data_key}
        if source.units is not None:
            attributes["units"] = source.units
        if name in self.metadata:
            attributes["metadata"] = self.metadata[name]
        dims = source.dims or default_dims(source.data_key, len(source.shape))
        file = HDF5File.create(
            self.path / f"{name}.h5",
            FileLayout(
                shape=source.shape,
                codec=self._codec(source.dtype, source.options),
                dimension_names=("time", *dims),
            ),
            attributes=attributes,
            metadata=self.metadata,
            power=self.durability == "power",
        )
        # Replaced as a whole: the pacer's thread looks at the table meanwhile.
        self._files = {**self._files, name: file}

    def _encode(self, name: str, frame: NDArray[Any]) -> EncodedFrame | None:
        file = self._files.get(name)
        # Before kickoff there is no file; the state check that follows says so.
        return None if file is None else file.encode(frame)

    def _write_frame(self, name: str, frame: EncodedFrame) -> None:
        file = self._files[name]
        if self._pacer is not None:
            self._pacer.check(file)
        file.append_many([frame])

    def _write_frames(self, source: SourceInfo, frames: NDArray[Any]) -> None:
        file = self._files[source.name]
        if self._pacer is not None:
            self._pacer.check(file)
        try:
            # "frames[n]" of numbers would be a scalar, in native byte order.
            numbers = range(len(frames))
            file.append_many([file.encode(frames[n, ...]) for n in numbers])
        finally:
            source.frames_written = file.length

    def _on_publish(self, name: str) -> int:
        return self._files[name].publish()

    def _published(self, source: SourceInfo) -> int:
        return self._files[source.name].published

    def _on_flush(self, name: str) -> None:
        file = self._files[name]
        file.sync()
        file.publish(sync=True)

    def _on_attributes(self, name: str, attributes: Mapping[str, Any]) -> None:
        file = self._files.get(name)
        if file is not None:
            file.set_attributes(attributes)

    def _on_complete(self, name: str) -> None:
        try:
            self._files[name].close()
        finally:
            if self._pacer is None:
                self._release_if_done()

    def _on_reopen(self) -> None:
        if self._lock_file is None:
            self._open_folder()
        self._start()

    def _release_if_done(self) -> None:
        """Let others write the folder, once nothing is open in it.

        A file of a source that has not begun may outlive the store.
        """
        if all(file.closed for file in self._files.values()):
            self._release_folder()

    def _finalize(self) -> None:
        if self._pacer is not None:
            self._pacer.stop()
            self._pacer = None
        self._release_if_done()
