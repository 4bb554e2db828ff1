"""``kill -9`` of the process that records and copies, between commit and copy (R9)."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bluesky_beamtime import Beamtime

from .conftest import caught_up

KILLS = int(os.environ.get("BEAMTIME_REPLICA_KILLS", "6"))

CHILD = """
import os, signal, sys
from event_model import compose_run
from bluesky_beamtime import Beamtime

beamtime = Beamtime(sys.argv[1], spool=sys.argv[2], sample="LaB6")
key = {"source": "s", "dtype": "number", "shape": []}
number = 0
while True:
    number += 1
    bundle = compose_run(metadata={"plan_name": "count", "scan_id": number})
    beamtime("start", bundle.start_doc)
    stream = bundle.compose_descriptor(name="primary", data_keys={"x": key})
    beamtime("descriptor", stream.descriptor_doc)
    for value in range(25):
        event = stream.compose_event(data={"x": value}, timestamps={"x": 1.0})
        beamtime("event", event)
        os.write(1, event["uid"].encode() + b"\\n")
        if sys.argv[3] == "held" and (number, value) == (3, 10):
            # For once the kill is sure to come amid a run.
            signal.pause()
    beamtime("stop", bundle.compose_stop())
    if beamtime.replica.progress.copied and sys.argv[3] == "slow":
        beamtime.replica.wait(0.05)
"""


@pytest.mark.parametrize("pace", ["fast", "slow"])
def test_what_was_acknowledged_comes_to_the_server_once(
    pace: str, url: str, tmp_path: Path
) -> None:
    chance = random.Random(9)
    acknowledged: list[str] = []
    for how in (*[pace] * (KILLS // 2), "held"):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, url, str(tmp_path), how],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert child.stdout is not None
        assert child.stdout.readline()
        os.set_blocking(child.stdout.fileno(), False)
        deadline = time.monotonic() + chance.uniform(0.3, 1.2)
        parts: list[bytes] = []
        while time.monotonic() < deadline or (
            # Two runs and eleven events, of which one line was read.
            how == "held" and b"".join(parts).count(b"\n") < 60
        ):
            seen = child.stdout.read()
            if seen:
                parts.append(seen)
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        os.set_blocking(child.stdout.fileno(), True)
        parts.append(child.stdout.read())
        child.stdout.close()
        lines = b"".join(parts).split(b"\n")
        # What was cut off in the middle is no acknowledgement.
        acknowledged += [line.decode() for line in lines if len(line) == 36]
    assert len(acknowledged) > 20 * KILLS // 2
    with Beamtime(url, spool=tmp_path) as beamtime:
        caught_up(beamtime)
        here = beamtime.sql("SELECT uid FROM events")["uid"].tolist()
        stopped = {run.uid: run.exit_status for run in beamtime}
        journaled = beamtime._journal.runs()
    assert not journaled
    with Beamtime(url, mode="r") as reader:
        there = reader.sql("SELECT uid FROM events")["uid"].tolist()
        assert len(there) == len(set(there))
        assert set(acknowledged) <= set(there)
        assert sorted(there) == sorted(here)
        assert {run.uid: run.exit_status for run in reader} == stopped
        assert "interrupted" in stopped.values()
        positions = reader.sql("SELECT feed, position FROM replica_positions")
    assert json.loads(positions.to_json())
