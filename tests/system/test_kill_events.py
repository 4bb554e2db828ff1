"""``kill -9`` while events are recorded, arrays in them included (R1).

The child acknowledges through a pipe each event that the recorder has returned from.
Afterwards everything is looked up with plain ``sqlite3`` and plain zarr-python, before
this package has seen the file again; then the beamtime is opened as after any crash.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

KILLS = int(os.environ.get("BEAMTIME_KILLS", "20"))

CHILD = """
import json, os, sys, time
import numpy as np
from bluesky import RunEngine, plans as bp
from bluesky_beamtime import Beamtime

class Soft:
    parent = None

    def __init__(self, name, **values):
        self.name, self.values, self.count = name, values, 0

    def describe(self):
        keys = {"count": {"source": "s", "dtype": "integer", "shape": []}}
        for key, make in self.values.items():
            shape = list(np.shape(make(0)))
            keys[key] = {"source": "s", "dtype": "array", "shape": shape}
        return {f"{self.name}_{key}": value for key, value in keys.items()}

    def read(self):
        now, self.count = time.time(), self.count + 1
        data = {"count": self.count}
        data |= {key: make(self.count) for key, make in self.values.items()}
        return {
            f"{self.name}_{key}": {"value": value, "timestamp": now}
            for key, value in data.items()
        }

def acknowledge(name, doc):
    if name in ("start", "event"):
        os.write(1, json.dumps([name, doc["uid"]]).encode() + b"\\n")

RE = RunEngine(context_managers=[])
beamtime = Beamtime(sys.argv[1], durability=sys.argv[2])
beamtime.attach(RE, report=False)
RE.subscribe(acknowledge)
plain = Soft("plain")
image = Soft("image", img=lambda n: np.full((16, 24), n, "u2"), wave=lambda n: [n, n])
while True:
    RE(bp.count([plain], 30))
    RE(bp.count([image], 30))
"""


def record_and_kill(
    path: Path, durability: str, delay: float
) -> tuple[list[Any], bool]:
    """Return what a child acknowledged before it was killed, and if it was at work."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), durability],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    out = child.stdout.fileno()
    data, heard = b"", 0.0
    give_up, kill_at = time.monotonic() + 60, None
    while kill_at is None or time.monotonic() < kill_at:
        if time.monotonic() > give_up or child.poll() is not None:
            child.kill()
            pytest.fail(child.communicate()[1].decode())
        timeout = 0.1 if kill_at is None else max(0.0, kill_at - time.monotonic())
        if select.select([out], [], [], timeout)[0]:
            data += os.read(out, 1 << 16)
            heard = time.monotonic()
            if kill_at is None and b"event" in data:
                kill_at = heard + delay
    child.send_signal(signal.SIGKILL)
    rest = child.communicate()[0]
    # It said something while it died, or just before: it was in the middle of a run.
    at_work = bool(rest) or time.monotonic() - heard < 0.3
    lines = (data + rest).split(b"\n")[:-1]
    return [json.loads(line) for line in lines], at_work


def look_up(path: Path, said: list[Any]) -> Counter[str]:
    """Find what was acknowledged, with stock readers, and count what is missing."""
    import zarr

    found: Counter[str] = Counter()
    uri = f"file:{path}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        check = database.execute("PRAGMA integrity_check").fetchone()
        found["integrity"] += check != ("ok",)
        found["references"] += len(
            database.execute("PRAGMA foreign_key_check").fetchall()
        )
        runs = {uid for (uid,) in database.execute("SELECT uid FROM runs")}
        events = dict(database.execute("SELECT uid, data FROM events"))
        images = database.execute(
            "SELECT event_uid, zarr_group, index_in_stack, shape_x, shape_y "
            "FROM image_refs"
        ).fetchall()
    for name, uid in said:
        found[name] += 1
        found[f"{name} lost"] += uid not in (runs if name == "start" else events)
    arrays: dict[str, Any] = {}
    for event_uid, group, index, width, height in images:
        found["images"] += 1
        if group not in arrays:
            arrays[group] = zarr.open_array(path.with_suffix(".zarr") / group, mode="r")
        count = json.loads(events[event_uid])["image_count"]
        frame = arrays[group][index]
        wrong = frame.shape != (height, width) or not np.all(frame == count)
        found["images wrong"] += bool(wrong)
    # Each event with an image says so in the table as well.
    referring = sum('"$array"' in data for data in events.values())
    found["images missing"] += referring - len(images)
    return found


@pytest.mark.timeout(60 * KILLS)
@pytest.mark.parametrize("durability", ["kill", "power"])
def test_no_acknowledged_event_is_lost(tmp_path: Path, durability: str) -> None:
    from bluesky_beamtime import Beamtime

    chance = random.Random(f"events {durability}")
    kills = KILLS if durability == "kill" else max(1, KILLS // 5)
    total: Counter[str] = Counter()
    path = tmp_path / "x.db"
    for number in range(kills):
        # Some in the same file, as an evening at a beamline goes.
        if number % 5 == 0:
            path = tmp_path / str(number) / "x.db"
            path.parent.mkdir()
        said, at_work = record_and_kill(path, durability, chance.uniform(0.0, 0.5))
        total["kills"] += 1
        total["at work"] += at_work
        total += look_up(path, said)
        newest = [uid for name, uid in said if name == "start"][-1]
        begin = time.perf_counter()
        with Beamtime(path) as beamtime:
            total["slow to open"] += time.perf_counter() - begin > 1.0
            run = beamtime[newest]
            if run.stop is None:
                total["interrupted"] += run.exit_status == "interrupted"
                total["called otherwise"] += run.exit_status != "interrupted"
            names = [name for name, _ in run.documents()]
            mine = said[said.index(["start", newest]) + 1 :]
            total["not read back"] += names.count("event") < len(mine)
            assert beamtime.next_scan_id() > max(each.scan_id or 0 for each in beamtime)
            assert not beamtime.path.with_name("x.journal.jsonl").exists()
    print(f"\n{durability}: {dict(sorted(total.items()))}")
    bad = (
        "integrity",
        "references",
        "start lost",
        "event lost",
        "images wrong",
        "images missing",
        "called otherwise",
        "not read back",
    )
    assert {key: total[key] for key in bad} == dict.fromkeys(bad, 0)
    assert total["event"] > 10 * kills
    # A second, as a rule; a busy machine stops any program for longer now and then.
    assert total["slow to open"] <= max(1, kills // 10)
    # Nine in ten, as a rule; some die between two runs.
    assert total["at work"] >= (0.9 if kills >= 100 else 0.5) * kills
    assert total["interrupted"] >= (0.4 * kills if kills >= 100 else 1)
    assert total["images"] > kills
