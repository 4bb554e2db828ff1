"""The engines of this package and the raw file that they are held against.

An engine is a callable ``engine(folder, frames, count)`` that writes ``count`` frames,
cycling through ``frames``, and returns the seconds each call took. Opening is not
timed; closing is, as the last entry, because that is where some engines do their work.
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


def timed(write: Callable[[Any], Any], frames: Frames, count: int) -> list[float]:
    """Write ``count`` frames and return the seconds of each call."""
    clock = time.perf_counter
    seconds: list[float] = []
    for number in range(count):
        frame = frames[number % len(frames)]
        start = clock()
        write(frame)
        seconds.append(clock() - start)
    return seconds


def closing(close: Callable[[], Any], seconds: list[float]) -> list[float]:
    """Close, and return the seconds with those of the close behind them."""
    start = time.perf_counter()
    close()
    return [*seconds, time.perf_counter() - start]


def raw(folder: Path, frames: Frames, count: int) -> list[float]:
    """Append to one file; nothing is synced."""
    fd = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT)
    return closing(
        lambda: os.close(fd), timed(lambda f: os.write(fd, f), frames, count)
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

    return closing(close, timed(lambda f: os.write(fd, f), frames, count))


def ours(
    mimetype: str = "application/x-zarr", *, call: str = "write", **options: Any
) -> Engine:
    """Return an engine that writes through a FrameSink.

    ``call`` is ``"write"``, or ``"submit"`` or ``"write_many"`` for the writer's worker
    threads; the latter takes all of ``frames`` at once.
    """

    def engine(folder: Path, frames: Frames, count: int) -> list[float]:
        from bluesky_beamtime.storage import make_writer

        # One writer for each folder, so that two may run at once.
        writer = make_writer(mimetype, f"benchmark {folder}", **options)
        writer.set_uri(str(folder / "store"))
        sink = writer.prepare("cam", "cam", frames[0].dtype, frames[0].shape)
        writer.kickoff()
        if call == "write_many":
            block = np.stack(frames)
            calls = timed(sink.write_many, [block], count // len(block))
            each = [seconds / len(block) for seconds in calls for _ in block]
            each += timed(sink.write, frames, count % len(block))
        else:
            each = timed(getattr(sink, call), frames, count)
        seconds = closing(sink.close, each)
        type(writer).release(writer.name)
        return seconds

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

        return closing(sync, seconds)

    return run


def detector_frames(shape: tuple[int, ...], kind: str) -> Frames:
    """Return eight frames: ``"noise"`` that no codec compresses, or ``"poisson"``."""
    random = np.random.default_rng(1)
    if kind == "noise":
        return [random.integers(0, 1 << 16, shape, np.uint16) for _ in range(8)]
    return [random.poisson(8, shape).astype(np.uint16) for _ in range(8)]
