"""Frames into HDF5 files on a local disk."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from bluesky_beamtime.errors import FrameMismatchError, MissingExtraError
from bluesky_beamtime.storage.files import FolderLock, make_folder, write_error
from bluesky_beamtime.storage.hdf5_codecs import ChunkCodec, HDF5Compression
from bluesky_beamtime.storage.hdf5_file import HDF5File
from bluesky_beamtime.storage.hdf5_layout import DATASET, FileLayout
from bluesky_beamtime.storage.layout import check_node_name, zarr_data_type
from bluesky_beamtime.storage.local_writer import Durability, LocalWriter
from bluesky_beamtime.storage.registry import register_writer
from bluesky_beamtime.storage.source import SourceInfo

_OPTIONS = frozenset(("compression", "checksum"))
# What HDF5 can hold: bytes of a chunk, and dimensions of a dataset.
_MOST_CHUNK_BYTES = (1 << 32) - 1
_MOST_DIMENSIONS = 32


@register_writer
class HDF5Writer(LocalWriter):
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
        if find_spec("h5py") is None:
            raise MissingExtraError("writing HDF5 files", "h5py", "hdf5")
        super().__init__(name, durability=durability, threads=threads)
        self.compression = compression
        self.checksum = checksum
        self._codec(np.dtype("u1"), {})
        self._lock_file: FolderLock | None = None

    @classmethod
    def _class_mimetype(cls) -> str:
        return "application/x-hdf5"

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
        self._refuse_unknown(options, _OPTIONS)
        return ChunkCodec(
            dtype,
            options.get("compression", self.compression),
            options.get("checksum", self.checksum),
        )

    def _open_folder(self) -> None:
        if self._lock_file is not None:
            return
        try:
            make_folder(self.path, sync=self.durability == "power")
            self._lock_file = FolderLock(self.path)
        except OSError as error:
            raise write_error("the folder of a store", self.path, error) from error

    def _create(
        self,
        source: SourceInfo,
        attributes: dict[str, Any],
        dimension_names: tuple[str, ...],
    ) -> HDF5File:
        return HDF5File.create(
            self.path / f"{source.name}.h5",
            FileLayout(
                shape=source.shape,
                codec=self._codec(source.dtype, source.options),
                dimension_names=dimension_names,
            ),
            attributes=attributes,
            metadata=self.metadata,
            power=self.durability == "power",
        )

    def _on_closed(self, name: str) -> None:
        if self._pacer is None:
            self._release()

    def _release(self) -> None:
        """Let others write the folder, once nothing is open in it.

        A file of a source that has not begun may outlive the store.
        """
        lock = self._lock_file
        if lock is not None and all(file.closed for file in self._arrays.values()):
            self._lock_file = None
            lock.release()
