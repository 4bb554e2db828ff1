"""A run that goes on in another process, followed by a client that asks again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.served import client_of, served

pytestmark = pytest.mark.filterwarnings("default")

# Takes one more frame for each line that it is sent, and ends at the end of them.
_MEASUREMENT = """
import sys
from bluesky import RunEngine, plan_stubs as bps, preprocessors as bpp
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor
from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera

RE = RunEngine(context_managers=[])
beamtime = Beamtime(sys.argv[1], sample="LaB6")
beamtime.attach(RE, report=False)
with init_devices():
    camera = SimCamera(beamtime.frames, shape=(6, 8))
    x = SimMotor(instant=True)

@bpp.stage_decorator([camera])
@bpp.run_decorator(md={"plan_name": "live"})
def plan():
    for number, _ in enumerate(sys.stdin):
        yield from bps.mv(x, number)
        yield from bps.trigger_and_read([camera, x])
        print(number, flush=True)

RE(plan())
print("ended", flush=True)
beamtime.close()
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_client_sees_new_events_and_frames(tmp_path: Path) -> None:
    from bluesky_beamtime import Beamtime

    path = tmp_path / "x.db"
    Beamtime(path).close()
    process = subprocess.Popen(
        [sys.executable, "-c", _MEASUREMENT, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    def take(number: int) -> None:
        stdin.write("\n")
        assert stdout.readline() == f"{number}\n"

    try:
        with served(path) as address, client_of(address) as catalog:
            take(0)
            wait_for(lambda: len(catalog) == 1)
            uid = catalog[-1].start["uid"]
            for number in range(1, 6):
                take(number)
                points = number + 1
                wait_for(
                    lambda points=points: (
                        len(catalog[uid].primary.read()["time"]) == points
                    )
                )
                run = catalog[uid]
                assert run.stop is None
                assert run.metadata["beamtime"]["status"] == "running"
                data = run.primary.read()
                assert data["x"].values.tolist() == list(range(points))
                # What was promised is there, to the last frame.
                assert data["camera"].shape == (points, 6, 8)
                assert data["camera"].values[-1].any()
                frames = run.primary["camera"]
                assert frames[points - 1].any()
                assert [n for n, _ in run.documents()].count("event") == points
            stdin.close()
            assert stdout.readline() == "ended\n"
            wait_for(lambda: catalog[uid].stop is not None)
            assert catalog[uid].metadata["beamtime"]["status"] == "success"
            assert catalog[uid].stop["exit_status"] == "success"
            process.wait(60)
    finally:
        process.kill()
        process.wait()
        stdin.close()
        stdout.close()


def test_a_run_whose_process_was_killed_is_interrupted(tmp_path: Path) -> None:
    from bluesky_beamtime import Beamtime

    path = tmp_path / "x.db"
    Beamtime(path).close()
    process = subprocess.Popen(
        [sys.executable, "-c", _MEASUREMENT, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    try:
        with served(path) as address, client_of(address) as catalog:
            for number in range(3):
                stdin.write("\n")
                assert stdout.readline() == f"{number}\n"
            assert catalog[-1].metadata["beamtime"]["status"] == "running"
            process.kill()
            process.wait()
            run = catalog[-1]
            assert run.stop is None
            assert run.metadata["beamtime"]["status"] == "interrupted"
            data = run.primary.read()
            assert data["x"].values.tolist() == [0, 1, 2]
            assert data["camera"].shape == (3, 6, 8)
            assert data["camera"].values[-1].any()
    finally:
        process.kill()
        process.wait()
        stdin.close()
        stdout.close()
