"""Frames over PVAccess on loopback: a server, a bare monitor, and a camera.

The server is a process of its own that posts ready-made frames; run as a script it is
that server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

PV = "BENCH:Image"
LOOPBACK = "127.0.0.1"
QUEUE = 128
"""Frames that may wait for a client: the same for both."""


@dataclass(frozen=True)
class Received:
    """What a client got of a stream."""

    frames: int
    lost: int
    seconds: float
    """From the first frame to the last, by the server's clock."""

    @property
    def rate(self) -> float:
        """Frames received a second."""
        return (self.frames - 1) / self.seconds

    @property
    def offered(self) -> float:
        """Frames posted a second."""
        return (self.frames - 1 + self.lost) / self.seconds


class Server:
    """The server's process."""

    def __init__(self, shape: tuple[int, int], rate: float) -> None:
        command = [sys.executable, __file__, *map(str, shape), str(rate)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.conf: dict[str, str] = json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def counted(conf: dict[str, str], count: int) -> Received:
    """Let a bare monitor of p4p count frames, and do nothing else."""
    from p4p.client.thread import Context

    done = threading.Event()
    ids: list[int] = []
    times: list[float] = []

    def update(value: Any) -> None:
        if done.is_set():
            return
        ids.append(value["uniqueId"])
        if len(ids) in (1, count):
            stamp = value["timeStamp"]
            times.append(stamp["secondsPastEpoch"] + stamp["nanoseconds"] * 1e-9)
        if len(ids) == count:
            done.set()

    with Context("pva", conf=conf, nt=False, useenv=False) as context:
        request = f"record[queueSize={QUEUE}]field()"
        subscription = context.monitor(PV, update, request=request)
        assert done.wait(120), f"{len(ids)} of {count} frames came"
        subscription.close()
    return Received(count, ids[-1] - ids[0] + 1 - count, times[1] - times[0])


class Recorder:
    """A RunEngine that lets a camera record the stream, each time in a new beamtime."""

    def __init__(self) -> None:
        from bluesky import RunEngine

        self.engine = RunEngine(context_managers=[])

    def record(self, conf: dict[str, str], count: int, place: Path) -> Received:
        """Record so many frames, and look what the run says of them."""
        from ophyd_async.core import init_devices

        from bluesky_beamtime import Beamtime
        from bluesky_beamtime.devices import PvaCamera
        from bluesky_beamtime.plans import fly_frames

        with (
            tempfile.TemporaryDirectory(dir=place) as folder,
            Beamtime(Path(folder) / "x.db") as beamtime,
        ):
            token = self.engine.subscribe(beamtime)
            with init_devices():
                cam = PvaCamera(beamtime.frames, PV, conf=conf, queue_size=QUEUE)
            self.engine(fly_frames([cam], count, exposure=None))
            self.engine.unsubscribe(token)
            cam.close()
            run = beamtime[-1]
            account = run.accounting["cam"]
            stamps = run.primary.read(["cam_time", "cam_id"])
            ids = np.asarray(stamps["cam_id"]).astype(int)
            times = np.asarray(stamps["cam_time"])
            assert account["written"] == account["received"] == count, account
            lost = int(ids[-1] - ids[0] + 1 - count)
            # Those before the first frame have no place between frames.
            assert account["dropped"] >= lost, (account, lost)
        return Received(count, lost, float(times[-1] - times[0]))


def serve(shape: tuple[int, int], rate: float) -> None:
    """Post frames at a rate, 0 for as fast as it goes, until killed."""
    from p4p.nt import NTNDArray
    from p4p.server import Server as PvaServer
    from p4p.server.thread import SharedPV

    random = np.random.default_rng(0)
    frames = [random.poisson(50, shape).astype("u2") for _ in range(8)]
    values = [NTNDArray().wrap(frame) for frame in frames]
    pv = SharedPV(initial=values[0])
    conf = {
        "EPICS_PVAS_INTF_ADDR_LIST": LOOPBACK,
        "EPICS_PVAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_SERVER_PORT": "0",
        "EPICS_PVAS_BROADCAST_PORT": "0",
    }
    with PvaServer(providers=[{PV: pv}], conf=conf, useenv=False) as server:
        port = server.conf()["EPICS_PVAS_SERVER_PORT"]
        client = {
            "EPICS_PVA_NAME_SERVERS": f"{LOOPBACK}:{port}",
            "EPICS_PVA_ADDR_LIST": "",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        }
        print(json.dumps(client), flush=True)
        number, due = 0, time.monotonic()
        while True:
            number += 1
            value = values[number % len(values)]
            now = time.time()
            value["uniqueId"] = number
            value["timeStamp"] = {
                "secondsPastEpoch": int(now),
                "nanoseconds": int(now % 1 * 1e9),
            }
            pv.post(value)
            if rate:
                due += 1 / rate
                time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    """Be the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", type=int, nargs=2)
    parser.add_argument("rate", type=float)
    options = parser.parse_args()
    serve(tuple(options.shape), options.rate)


if __name__ == "__main__":
    main()
