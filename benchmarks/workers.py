"""A process for each engine, so that its memory and CPU time are its own.

The processes live as long as the benchmark and work one at a time, when asked: what an
engine loads once is loaded once, and no engine inherits another's threads or caches.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from engines import Engine, Frames, ours, raw, raw_synced, synced_at_end
from peers import acquire_zarr, h5py_swmr, tensorstore, zarr_python

HDF5 = "application/x-hdf5"

ENGINES: dict[str, Callable[[], Engine]] = {
    "raw file": lambda: raw,
    "raw file, synced": lambda: raw_synced,
    "ours, Zarr": lambda: ours(),
    "ours, Zarr, no checksum": lambda: ours(checksum=False),
    "ours, HDF5": lambda: ours(HDF5),
    "ours, HDF5, no checksum": lambda: ours(HDF5, checksum=False),
    "ours, Zarr, lz4, write()": lambda: ours(compression="lz4"),
    "ours, Zarr, lz4, write_many()": lambda: ours(
        call="write_many", compression="lz4", threads=2
    ),
    "ours, Zarr, lz4": lambda: ours(compression="lz4", threads=2, call="submit"),
    "ours, HDF5, lz4": lambda: ours(HDF5, compression="lz4", threads=2, call="submit"),
    "h5py": lambda: h5py_swmr(),
    "h5py, direct chunks": lambda: h5py_swmr(direct=True),
    "h5py, direct, no flush": lambda: h5py_swmr(direct=True, flush=False),
    "h5py, lz4": lambda: h5py_swmr(lz4=True),
    "tensorstore": lambda: tensorstore(None),
    "tensorstore, sharded": lambda: tensorstore(None, 32),
    "tensorstore, lz4": lambda: tensorstore("lz4"),
    "tensorstore, lz4, sharded": lambda: tensorstore("lz4", 32),
    "zarr-python": lambda: zarr_python(),
    "zarr-python, sharded": lambda: zarr_python(None, 32),
    "zarr-python, lz4": lambda: zarr_python("lz4"),
    "zarr-python, lz4, sharded": lambda: zarr_python("lz4", 32),
    "acquire-zarr": lambda: acquire_zarr(None),
    "acquire-zarr, sharded": lambda: acquire_zarr(64),
    "acquire-zarr, lz4": lambda: acquire_zarr(None, "lz4"),
    "acquire-zarr, lz4, sharded": lambda: acquire_zarr(64, "lz4"),
}
"""Every engine by its name. Those of this package begin with "ours"."""


@dataclass(frozen=True, slots=True)
class Task:
    """What an engine is to write, and where."""

    place: Path
    """Folder below which it makes its own."""
    frames: Path
    """An ``.npy`` file with the frames that it cycles through."""
    count: int
    """Frames to write."""
    synced: bool = False
    """Whether every file is fsynced at the end, within the time that is taken."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one engine needed for one task."""

    calls: list[float]
    """Seconds of each call."""
    ending: float
    """Seconds of the close, and of the sync behind it."""
    cpu: float
    """Seconds of all its threads and children, in user and system mode."""
    disk: int
    """Bytes that its files occupy."""
    peak: int
    """Bytes of memory at the most, above those at the start."""

    @property
    def total(self) -> float:
        """Seconds from the first frame to the end of the close."""
        return sum(self.calls) + self.ending


class Worker:
    """The process of one engine."""

    def __init__(self, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, task: Task) -> Round:
        """Let the engine do a task; the others rest meanwhile."""
        self._pipe.send(task)
        answer: Round = self._pipe.recv()
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(name: str, pipe: Connection) -> None:
    engine = ENGINES[name]()
    loaded: Path | None = None
    frames: Frames = []
    while True:
        try:
            task: Task = pipe.recv()
        except EOFError:
            return
        if task.frames != loaded:
            frames = list(np.load(task.frames))
            loaded = task.frames
        pipe.send(
            _round(synced_at_end(engine) if task.synced else engine, task, frames)
        )


def _round(engine: Engine, task: Task, frames: Frames) -> Round:
    folder = Path(tempfile.mkdtemp(dir=task.place))
    try:
        gc.collect()
        # From here on the kernel keeps a new high-water mark.
        Path("/proc/self/clear_refs").write_text("5")
        before, cpu = _status("VmRSS"), _cpu()
        seconds = engine(folder, frames, task.count)
        cpu, peak = _cpu() - cpu, _status("VmHWM") - before
        calls, ending = seconds[: task.count], sum(seconds[task.count :])
        return Round(calls, ending, cpu, _occupied(folder), max(0, peak))
    finally:
        shutil.rmtree(folder)


def _cpu() -> float:
    own, children = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    used = [resource.getrusage(who) for who in (own, children)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _occupied(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(parent, name)).st_blocks * 512
        for parent, _, files in os.walk(folder)
        for name in files
    )
