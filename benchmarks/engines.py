"""The frame engines that ``frames.py`` compares, each at its best known setting.

An engine is a callable ``engine(folder, frames, count)`` that writes ``count`` frames,
cycling through ``frames``, and returns the seconds each call took. Opening is not
timed; closing is, because that is where some engines do their work.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = list[NDArray[Any]]
Engine = Callable[[Path, Frames, int], list[float]]


def _timed(write: Callable[[Any], Any], frames: Frames, count: int) -> list[float]:
    clock = time.perf_counter
    seconds: list[float] = []
    for number in range(count):
        frame = frames[number % len(frames)]
        start = clock()
        write(frame)
        seconds.append(clock() - start)
    return seconds


def _closing(close: Callable[[], Any], seconds: list[float]) -> list[float]:
    start = time.perf_counter()
    close()
    return [*seconds, time.perf_counter() - start]


def raw(folder: Path, frames: Frames, count: int) -> list[float]:
    """Append to one file; nothing is synced."""
    fd = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT)
    return _closing(
        lambda: os.close(fd), _timed(lambda f: os.write(fd, f), frames, count)
    )


def raw_synced(folder: Path, frames: Frames, count: int) -> list[float]:
    """Append to one file that a thread brings to the disk every 50 ms."""
    fd = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT)
    stop = threading.Event()

    def sync() -> None:
        while not stop.wait(0.05):
            os.fdatasync(fd)

    thread = threading.Thread(target=sync)
    thread.start()

    def close() -> None:
        stop.set()
        thread.join()
        os.fdatasync(fd)
        os.close(fd)

    return _closing(close, _timed(lambda f: os.write(fd, f), frames, count))


def ours(**options: Any) -> Engine:
    """Return an engine that writes through a FrameSink."""

    def engine(folder: Path, frames: Frames, count: int) -> list[float]:
        from bluesky_beamtime.storage import ZarrWriter

        writer = ZarrWriter("benchmark", **options)
        writer.set_uri(str(folder / "ours.zarr"))
        sink = writer.prepare("cam", "cam", frames[0].dtype, frames[0].shape)
        writer.kickoff()
        return _closing(sink.close, _timed(sink.write, frames, count))

    return engine


def acquire_zarr(shard_frames: int | None, compression: str | None = None) -> Engine:
    """Return an engine for acquire-zarr, with one chunk per frame."""

    def engine(folder: Path, frames: Frames, count: int) -> list[float]:
        import acquire_zarr as az

        height, width = frames[0].shape
        kind = az.DimensionType
        dimensions = [
            az.Dimension(
                name="t",
                kind=kind.TIME,
                array_size_px=0,
                chunk_size_px=1,
                shard_size_chunks=shard_frames or 1,
            ),
            az.Dimension(
                name="y",
                kind=kind.SPACE,
                array_size_px=height,
                chunk_size_px=height,
                shard_size_chunks=1,
            ),
            az.Dimension(
                name="x",
                kind=kind.SPACE,
                array_size_px=width,
                chunk_size_px=width,
                shard_size_chunks=1,
            ),
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
        seconds = _timed(lambda f: stream.append(f, "cam"), frames, count)
        return _closing(stream.close, seconds)

    return engine


def h5py_swmr(folder: Path, frames: Frames, count: int) -> list[float]:
    """Write HDF5 as ophyd-async does: resize, assign, flush, in SWMR mode."""
    import h5py

    shape = frames[0].shape
    file = h5py.File(folder / "swmr.h5", "w", libver="latest")
    data = file.create_dataset(
        "data",
        (0, *shape),
        frames[0].dtype,
        maxshape=(None, *shape),
        chunks=(1, *shape),
    )
    file.swmr_mode = True

    def write(frame: NDArray[Any]) -> None:
        length = len(data)
        data.resize(length + 1, axis=0)
        data[length] = frame
        data.flush()

    return _closing(file.close, _timed(write, frames, count))


def h5py_direct(folder: Path, frames: Frames, count: int) -> list[float]:
    """Write HDF5 chunks directly, and flush each frame, in SWMR mode."""
    import h5py

    shape = frames[0].shape
    file = h5py.File(folder / "direct.h5", "w", libver="latest")
    data = file.create_dataset(
        "data",
        (0, *shape),
        frames[0].dtype,
        maxshape=(None, *shape),
        chunks=(1, *shape),
    )
    file.swmr_mode = True

    def write(frame: NDArray[Any]) -> None:
        length = len(data)
        data.resize(length + 1, axis=0)
        data.id.write_direct_chunk((length, *[0] * len(shape)), frame)
        data.flush()

    return _closing(file.close, _timed(write, frames, count))


def ours_submitting(**options: Any) -> Engine:
    """Return an engine that hands frames to the writer's worker threads."""

    def engine(folder: Path, frames: Frames, count: int) -> list[float]:
        from bluesky_beamtime.storage import ZarrWriter

        writer = ZarrWriter("benchmark", **options)
        writer.set_uri(str(folder / "submitted.zarr"))
        sink = writer.prepare("cam", "cam", frames[0].dtype, frames[0].shape)
        writer.kickoff()
        return _closing(sink.close, _timed(sink.submit, frames, count))

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
        store = ts.open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(folder / "ts.zarr")},
                "metadata": {
                    "shape": [count, *shape],
                    "data_type": "uint16",
                    "chunk_grid": {
                        "name": "regular",
                        "configuration": {"chunk_shape": chunk},
                    },
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

        return _closing(close, _timed(write, frames, count))

    return engine


def zarr_python(compression: str | None = None) -> Engine:
    """Return an engine for zarr-python: length known, a chunk for each frame."""

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
            dtype=frames[0].dtype,
            compressors=compressor,
        )
        written = 0

        def write(frame: NDArray[Any]) -> None:
            nonlocal written
            array[written] = frame
            written += 1

        return _closing(lambda: None, _timed(write, frames, count))

    return engine


def synced_at_end(engine: Engine) -> Engine:
    """Return the engine with every file fsynced in the time that is measured."""

    def run(folder: Path, frames: Frames, count: int) -> list[float]:
        seconds = engine(folder, frames, count)

        def sync() -> None:
            for parent, _, files in os.walk(folder):
                for name in files:
                    fd = os.open(os.path.join(parent, name), os.O_RDONLY)
                    os.fsync(fd)
                    os.close(fd)

        return _closing(sync, seconds)

    return run


def detector_frames(shape: tuple[int, int], kind: str) -> Frames:
    """Return eight frames: ``"noise"`` that no codec compresses, or ``"poisson"``."""
    random = np.random.default_rng(1)
    if kind == "noise":
        return [random.integers(0, 1 << 16, shape, np.uint16) for _ in range(8)]
    return [random.poisson(8, shape).astype(np.uint16) for _ in range(8)]
