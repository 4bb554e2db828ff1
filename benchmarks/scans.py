"""A fly scan with two cameras in one store, beside a bare loop over two sinks (S6).

Both write the same frames with two threads, one for each camera: what differs is
Bluesky, the devices, their accounting and the database.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Ready:
    """A frame source whose frames are there already."""

    def __init__(self, frames: list[NDArray[Any]]) -> None:
        self.frames = frames
        self.shape, self.dtype = frames[0].shape, frames[0].dtype
        self.thread: Any = None

    async def configure(self, exposure: float | None) -> None:
        pass

    async def start(self, number: int, receiver: Any) -> None:
        from bluesky_beamtime.devices import AcquisitionThread

        def acquire(stopping: threading.Event) -> None:
            for index in range(number):
                if stopping.is_set():
                    return
                receiver.frame(self.frames[index % len(self.frames)])

        self.thread = AcquisitionThread("ready", acquire, receiver)

    async def stop(self) -> None:
        if self.thread is not None:
            await self.thread.stop()


def bare(folder: Path, frames: list[NDArray[Any]], count: int) -> float:
    """Return the seconds of two threads with a sink each."""
    from bluesky_beamtime.storage import FrameStore

    store = FrameStore(folder, name=lambda: "bare")
    shape, dtype = frames[0].shape, frames[0].dtype
    sinks = [store.attach(name, dtype=dtype, shape=shape) for name in ("one", "two")]

    def write(sink: Any) -> None:
        for index in range(count):
            sink.write(frames[index % len(frames)])
        store.detach(sink)

    threads = [threading.Thread(target=write, args=(sink,)) for sink in sinks]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


class Scans:
    """A RunEngine and two cameras; each scan goes into a beamtime of its own."""

    def __init__(self) -> None:
        from bluesky import RunEngine

        self.engine = RunEngine(context_managers=[])

    def scan(self, folder: Path, frames: list[NDArray[Any]], count: int) -> float:
        """Return the seconds of ``RE(fly_frames([cam1, cam2], count))``."""
        from ophyd_async.core import init_devices

        from bluesky_beamtime import Beamtime
        from bluesky_beamtime.devices import Camera
        from bluesky_beamtime.plans import fly_frames

        with Beamtime(folder / "scan.db") as beamtime:
            token = self.engine.subscribe(beamtime)
            with init_devices():
                cam1 = Camera(beamtime.frames, source=Ready(frames))
                cam2 = Camera(beamtime.frames, source=Ready(frames))
            start = time.perf_counter()
            self.engine(fly_frames([cam1, cam2], count, exposure=None))
            seconds = time.perf_counter() - start
            self.engine.unsubscribe(token)
            written = [one["written"] for one in beamtime[-1].accounting.values()]
            assert written == [count, count], written
        return seconds


def flying(
    place: Path, frames_file: Path, mebi: int, rounds: int
) -> tuple[list[float], int]:
    """Return the ratios of scan to loop, round by round, and the frames of each."""
    frames = list(np.load(frames_file))
    count = max(32, mebi * (1 << 20) // frames[0].nbytes // 2)
    scans = Scans()
    work: dict[str, Callable[..., float]] = {"scan": scans.scan, "bare": bare}
    found: list[float] = []
    for number in range(rounds + 1):
        seconds = {}
        for name, run in work.items():
            with tempfile.TemporaryDirectory(dir=place) as folder:
                seconds[name] = run(Path(folder), frames, count)
        if number:
            found.append(seconds["bare"] / seconds["scan"])
    return found, count
