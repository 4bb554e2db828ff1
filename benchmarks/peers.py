"""Other people's frame engines, each at the best setting that was found for it.

A better setting is welcome: a comparison is worth what its strongest opponent is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from engines import Engine, Frames, closing, timed
from numpy.typing import NDArray


def acquire_zarr(shard_frames: int | None, compression: str | None = None) -> Engine:
    """Return an engine for acquire-zarr, with one chunk per frame."""

    def engine(folder: Path, frames: Frames, count: int) -> list[float]:
        import acquire_zarr as az

        height, width = frames[0].shape
        kind = az.DimensionType
        axes = (
            ("t", kind.TIME, 0, 1, shard_frames or 1),
            ("y", kind.SPACE, height, height, 1),
            ("x", kind.SPACE, width, width, 1),
        )
        dimensions = [
            az.Dimension(
                name=name,
                kind=what,
                array_size_px=size,
                chunk_size_px=chunk,
                shard_size_chunks=shard,
            )
            for name, what, size, chunk, shard in axes
        ]
        array = az.ArraySettings(
            output_key="cam", data_type=az.DataType.UINT16, dimensions=dimensions
        )
        if compression:
            array.compression = az.CompressionSettings(
                compressor=az.Compressor.BLOSC1,
                codec=az.CompressionCodec.BLOSC_LZ4,
                level=1,
                shuffle=2,
            )
        settings = az.StreamSettings(
            store_path=str(folder / "acquire.zarr"),
            version=az.ZarrVersion.V3,
            overwrite=True,
        )
        settings.arrays = [array]
        stream = az.ZarrStream(settings)
        seconds = timed(lambda f: stream.append(f, "cam"), frames, count)
        return closing(stream.close, seconds)

    return engine


def h5py_swmr(*, direct: bool = False, flush: bool = True, lz4: bool = False) -> Engine:
    """Return an engine for h5py in SWMR mode, with one chunk per frame.

    By default what ophyd-async does: resize, assign, flush. ``direct`` writes each
    chunk past the library's own pipeline; without ``flush`` readers see a frame only
    when HDF5 happens to write its index, and a kill loses it.
    """

    def engine(folder: Path, frames: Frames, count: int) -> list[float]:
        import h5py

        shape = frames[0].shape
        filters: dict[str, Any] = {}
        if lz4:
            import hdf5plugin

            filters = dict(
                hdf5plugin.Blosc(
                    cname="lz4", clevel=1, shuffle=hdf5plugin.Blosc.BITSHUFFLE
                )
            )
        file = h5py.File(folder / "frames.h5", "w", libver="latest")
        data = file.create_dataset(
            "data",
            (0, *shape),
            frames[0].dtype,
            maxshape=(None, *shape),
            chunks=(1, *shape),
            **filters,
        )
        file.swmr_mode = True
        origin = [0] * len(shape)

        def write(frame: NDArray[Any]) -> None:
            length = len(data)
            data.resize(length + 1, axis=0)
            if direct:
                data.id.write_direct_chunk((length, *origin), frame)
            else:
                data[length] = frame
            if flush:
                data.flush()

        return closing(file.close, timed(write, frames, count))

    return engine


def tensorstore(compression: str | None, shard_frames: int | None = None) -> Engine:
    """Return an engine for tensorstore's zarr3 driver, a chunk for each frame.

    With shards, a shard is written when it is full, as a transaction does.
    """

    def engine(folder: Path, frames: Frames, count: int) -> list[float]:
        import tensorstore as ts

        shape = list(frames[0].shape)
        codecs: list[dict[str, Any]] = [
            {"name": "bytes", "configuration": {"endian": "little"}}
        ]
        if compression:
            blosc = {
                "cname": compression,
                "clevel": 1,
                "shuffle": "bitshuffle",
                "typesize": 2,
                "blocksize": 0,
            }
            codecs.append({"name": "blosc", "configuration": blosc})
        chunk = [1, *shape]
        if shard_frames:
            inner = {"chunk_shape": chunk, "codecs": codecs}
            codecs = [{"name": "sharding_indexed", "configuration": inner}]
            chunk = [shard_frames, *shape]
        grid = {"name": "regular", "configuration": {"chunk_shape": chunk}}
        store = ts.open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(folder / "ts.zarr")},
                "metadata": {
                    "shape": [count, *shape],
                    "data_type": "uint16",
                    "chunk_grid": grid,
                    "codecs": codecs,
                },
                "create": True,
            }
        ).result()
        written = 0
        pending: list[Any] = []
        batch = ts.Transaction()

        def write(frame: NDArray[Any]) -> None:
            nonlocal written, batch
            if shard_frames:
                store.with_transaction(batch)[written] = frame
                if (written + 1) % shard_frames == 0:
                    pending.append(batch.commit_async())
                    batch = ts.Transaction()
            else:
                pending.append(store[written].write(frame))
            while len(pending) > 8:
                pending.pop(0).result()
            written += 1

        def close() -> None:
            if shard_frames:
                pending.append(batch.commit_async())
            for future in pending:
                future.result()

        return closing(close, timed(write, frames, count))

    return engine


def zarr_python(
    compression: str | None = None, shard_frames: int | None = None
) -> Engine:
    """Return an engine for zarr-python: length known, a chunk for each frame.

    With shards the frames are gathered and a shard is written when it is full: the
    only way in which it does not read and write the whole shard for every frame.
    """

    def engine(folder: Path, frames: Frames, count: int) -> list[float]:
        import zarr

        shape = frames[0].shape
        compressor = None
        if compression:
            compressor = zarr.codecs.BloscCodec(
                cname=compression, clevel=1, shuffle="bitshuffle", typesize=2
            )
        array = zarr.create_array(
            str(folder / "python.zarr"),
            shape=(count, *shape),
            chunks=(1, *shape),
            shards=(shard_frames, *shape) if shard_frames else None,
            dtype=frames[0].dtype,
            compressors=compressor,
        )
        written = 0
        size = shard_frames or 1
        gathered = np.empty((size, *shape), frames[0].dtype)

        def write(frame: NDArray[Any]) -> None:
            nonlocal written
            if shard_frames:
                gathered[written % size] = frame
                if (written + 1) % size == 0:
                    array[written + 1 - size : written + 1] = gathered
            else:
                array[written] = frame
            written += 1

        def close() -> None:
            rest = written % size
            if rest:
                array[written - rest : written] = gathered[:rest]

        return closing(close, timed(write, frames, count))

    return engine
