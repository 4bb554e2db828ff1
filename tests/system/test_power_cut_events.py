"""What a power cut leaves of events (R3), by replaying what had not reached the disk.

``strace`` records every write and every sync of a process that records events. A cut is
simulated at a random moment: what was synced before it is there; of everything else a
random part is, some of it torn. Then plain ``sqlite3`` opens the file. Where there is
no ``strace``, the end of the write-ahead log is torn instead.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from event_model import compose_run

from bluesky_beamtime import Beamtime

CUTS = int(os.environ.get("BEAMTIME_POWER_CUTS", "150"))
EVENTS = 120
KEY = {"source": "s", "dtype": "number", "shape": []}

# Pauses let the thread that syncs and moves the log do so in between.
CHILD = """
import os, sys, time
from event_model import compose_run
from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import durability
durability._COMMITS_PER_CHECKPOINT = 20
with Beamtime(sys.argv[1], durability=sys.argv[2]) as beamtime:
    bundle = compose_run()
    key = {"source": "s", "dtype": "number", "shape": []}
    stream = bundle.compose_descriptor(name="primary", data_keys={"x": key})
    beamtime("start", bundle.start_doc)
    beamtime("descriptor", stream.descriptor_doc)
    for number in range(1, int(sys.argv[3]) + 1):
        event = stream.compose_event(data={"x": number / 3}, timestamps={"x": 0.0})
        beamtime("event", event)
        os.write(1, b"ack %d" % number)
        if number % 10 == 0:
            time.sleep(0.06)
    beamtime("stop", bundle.compose_stop())
"""

CALLS = "write,pwrite64,ftruncate,fsync,fdatasync,unlink"
LINE = re.compile(r"^(?:\[pid +)?(\d+)\]? +(.*)$")
CALL = re.compile(r'^(\w+)\((?:(\d+)<([^>]*)>|"([^"]*)")(?:, )?(.*?)\)? += (-?\d+)')


@dataclass
class Step:
    """One change of the disk, a sync, or an acknowledgement."""

    kind: str
    path: str = ""
    data: bytes = b""
    offset: int = 0


def parse(text: str, ours: set[str]) -> list[Step]:
    """Return the steps of a trace in our files, each when its call returned.

    A sync has as its offset the number of steps before it began: only those are on the
    disk for sure.
    """
    steps: list[Step] = []
    begun: dict[str, tuple[str, int]] = {}
    for line in text.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        pid, rest = match.groups()
        since = len(steps)
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>").rstrip(), since
            continue
        if rest.startswith("<..."):
            before, since = begun.pop(pid)
            rest = before + rest.partition("resumed>")[2]
        call = CALL.match(rest)
        if call is None or int(call[6]) < 0:
            continue
        name, fd, path, deleted, more, result = call.groups()
        if deleted is not None:
            path = bytes.fromhex(deleted.replace("\\x", "")).decode()
        if path not in ours and fd != "1":
            continue
        text_of_data, _, numbers = more.partition('"')[2].partition('"')
        data = bytes.fromhex(text_of_data.replace("\\x", ""))
        if name == "write":
            if fd == "1" and data.startswith(b"ack "):
                steps.append(Step("ack", offset=int(data[4:])))
        elif name == "pwrite64":
            assert len(data) == int(result), rest[:200]
            place = int(numbers.rpartition(",")[2])
            steps.append(Step("write", path, data, place))
        elif name == "ftruncate":
            steps.append(Step("truncate", path, offset=int(more)))
        elif name == "unlink":
            steps.append(Step("unlink", path))
        else:
            steps.append(Step("sync", path, offset=since))
    return steps


def record(path: Path, durability: str) -> list[Step]:
    trace = path.with_name("trace")
    command = ["strace", "-f", "-y", "-xx", "-s", "70000", "-e", f"trace={CALLS}"]
    child = [sys.executable, "-c", CHILD, str(path), durability, str(EVENTS)]
    done = subprocess.run(
        [*command, "-e", "signal=none", "-o", str(trace), *child],
        capture_output=True,
        timeout=110,
        check=False,
    )
    if done.returncode and not path.exists():
        pytest.skip(f"strace may not trace here: {done.stderr.decode()[-200:]}")
    assert done.returncode == 0, done.stderr.decode()
    text = trace.read_text()
    # Paths of descriptors are printed as hexadecimal numbers too.
    text = re.sub(
        r"<((?:\\x[0-9a-f]{2})+)>",
        lambda m: f"<{bytes.fromhex(m[1].replace(chr(92) + 'x', '')).decode()}>",
        text,
    )
    return parse(text, {str(path), f"{path}-wal"})


def synced(steps: list[Step]) -> dict[str, int]:
    """Return for each file how many steps the syncs that have returned cover."""
    covered: dict[str, int] = {}
    for step in steps:
        if step.kind == "sync":
            covered[step.path] = max(covered.get(step.path, 0), step.offset)
    return covered


def cut(steps: list[Step], chance: random.Random) -> dict[str, bytearray]:
    """Return what the files may hold after a power cut at the end of these steps."""
    covered = synced(steps)
    files: dict[str, bytearray] = {}
    for number, step in enumerate(steps):
        if step.kind not in ("write", "truncate", "unlink"):
            continue
        data = files.setdefault(step.path, bytearray())
        safe = covered.get(step.path, 0) > number
        if not safe and chance.random() < 0.5:
            continue
        if step.kind != "write":
            del data[step.offset :]
            continue
        part = step.data
        if not safe and chance.random() < 0.3:
            part = part[: chance.randrange(len(part) + 1)]
        data.extend(bytes(max(0, step.offset - len(data))))
        data[step.offset : step.offset + len(part)] = part
    return files


def events_of(path: Path) -> int:
    """Return how many events plain SQLite finds, after checking all of them."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        rows = database.execute(
            "SELECT seq_num, json_extract(data, '$.x') FROM events ORDER BY seq_num"
        ).fetchall()
    assert rows == [(number, number / 3) for number in range(1, len(rows) + 1)]
    return len(rows)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.timeout(120 + CUTS)
@pytest.mark.parametrize("durability", ["power", "kill"])
def test_what_a_power_cut_leaves(
    durability: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "before").mkdir()
    path = tmp_path / "before" / "x.db"
    steps = record(path, durability)
    acks = [number for number, step in enumerate(steps) if step.kind == "ack"]
    assert [steps[number].offset for number in acks] == list(range(1, EVENTS + 1))
    moved = sum(s.kind == "write" and s.path == str(path) for s in steps[acks[0] :])
    # The log was moved into the database meanwhile, so that cuts hit that as well.
    assert moved > 5
    chance = random.Random(f"cuts {durability}")
    broken = lost = most = 0
    for number in range(CUTS):
        moment = chance.randrange(acks[0], len(steps) + 1)
        acknowledged = sum(each < moment for each in acks)
        # Without a sync for each event, those are promised that one has covered since.
        sure = synced(steps[:moment]).get(f"{path}-wal", 0)
        promised = sum(each < sure for each in acks)
        if durability == "power":
            promised = acknowledged
        folder = tmp_path / "after"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, data in cut(steps[:moment], chance).items():
            (folder / Path(name).name).write_bytes(data)
        found = events_of(folder / "x.db")
        broken += found < promised
        lost += found < acknowledged
        most = max(most, acknowledged - found)
        if number % 25 == 0 and durability == "power":
            with Beamtime(folder / "x.db") as beamtime:
                assert beamtime[-1].num_events == found
                assert beamtime.verify().ok
    with capsys.disabled():
        print(
            f"\n{durability}: {CUTS} cuts, {lost} lost acknowledged events (at most "
            f"{most}), {broken} lost promised ones"
        )
    assert broken == 0


def test_a_torn_end_of_the_log_costs_only_what_came_last(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    log = tmp_path / "x.db-wal"
    folder = tmp_path / "after"
    chance = random.Random(8)
    bundle = compose_run()
    stream = bundle.compose_descriptor(name="primary", data_keys={"x": KEY})
    cuts = 0
    with Beamtime(path, durability="power") as beamtime:
        beamtime("start", bundle.start_doc)
        beamtime("descriptor", stream.descriptor_doc)
        for number in range(1, 31):
            before = log.read_bytes()
            event = stream.compose_event(data={"x": number / 3}, timestamps={"x": 0.0})
            beamtime("event", event)
            database, after = path.read_bytes(), log.read_bytes()
            if after[: len(before)] != before:
                # The log was moved into the database, and begins anew.
                continue
            assert len(after) > len(before)
            for _ in range(max(1, CUTS // 30)):
                cuts += 1
                end = chance.randrange(len(before), len(after) + 1)
                left = bytearray(after[:end])
                if chance.random() < 0.3:
                    # The size reached the disk, some of the bytes did not.
                    left.extend(bytes(len(after) - end))
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                (folder / "x.db").write_bytes(database)
                (folder / "x.db-wal").write_bytes(left)
                found = events_of(folder / "x.db")
                assert found in (number - 1, number)
                assert found == number or end < len(after)
    assert cuts >= CUTS // 2
