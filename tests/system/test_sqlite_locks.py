"""SQLite's locks survive what a session does with the file that it records into.

A process that records also opens its file to read, lists it, copies it. Each time
another program opens the file, writes and closes it. Had the recorder lost its locks,
SQLite would take that program for the last one and remove the log; whatever is recorded
afterwards would be gone with the process.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from bluesky_beamtime import sqlite_locks as locks
from bluesky_beamtime.database.connect import connect_to_read
from bluesky_beamtime.database.index_beamtimes import is_index
from bluesky_beamtime.sinks import DaqReading, SqliteSink
from bluesky_beamtime.sqlite_locks import first_bytes

CHILD = """
import sys, warnings
from pathlib import Path
from event_model import compose_run
from bluesky_beamtime import Beamtime
from bluesky_beamtime.cli import app
from bluesky_beamtime.database import Index
from bluesky_beamtime.database.index_beamtimes import is_index
from bluesky_beamtime.doctor import examine
from bluesky_beamtime.exports import archive, take_home

path, beside = Path(sys.argv[1]), Path(sys.argv[2])
beamtime = Beamtime(path)

def record():
    run = compose_run(metadata={"plan_name": "count"})
    beamtime("start", run.start_doc)
    keys = {"x": {"source": "s", "dtype": "number", "shape": []}}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    beamtime("descriptor", stream.descriptor_doc)
    beamtime("event", stream.compose_event(data={"x": 1}, timestamps={"x": 0.0}))
    beamtime("stop", run.compose_stop())

def command(*words):
    app([*words], standalone_mode=False)

index = Index(beside / "index.db")
actions = {
    "read": lambda: Beamtime(path, mode="r").close(),
    "record twice": lambda: Beamtime(path).close(),
    "forget": lambda: Beamtime(path, mode="r"),
    "ls": lambda: command("ls", str(path)),
    "verify": lambda: beamtime.verify(),
    "recover": lambda: beamtime.recover(),
    "doctor": lambda: examine(path),
    "index": lambda: index.refresh(path),
    "index of a folder": lambda: index.refresh(path.parent),
    "is an index": lambda: is_index(path),
    "export": lambda: beamtime[-1].export(beside / "run.csv", "csv"),
    "take home": lambda: take_home(path, beside / "home"),
    "archive": lambda: archive(path, str(beside / "archive")),
}
warnings.simplefilter("ignore")
record()
for name, action in actions.items():
    action()
    record()
    print(f"did {name}", flush=True)
    sys.stdin.readline()
record()
print("did all", flush=True)
sys.stdin.readline()
"""


def test_nothing_is_lost_when_others_close_the_file(tmp_path: Path) -> None:
    path, beside = tmp_path / "beamtime" / "x.db", tmp_path / "beside"
    path.parent.mkdir()
    beside.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(beside)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    done: list[str] = []
    try:
        while "all" not in done:
            line = child.stdout.readline()
            assert line, f"the recorder ended after {done}"
            if not line.startswith("did "):
                continue
            done.append(line.removeprefix("did ").strip())
            with closing(sqlite3.connect(path, timeout=60)) as other:
                other.execute("CREATE TABLE IF NOT EXISTS remarks (text)")
                other.execute("INSERT INTO remarks VALUES (?)", (done[-1],))
                other.commit()
            assert Path(f"{path}-wal").exists(), f"{done[-1]!r} lost the locks"
            child.stdin.write("\n")
            child.stdin.flush()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
    # The first, one after each action, and the last.
    with closing(sqlite3.connect(path)) as look:
        assert look.execute("SELECT count(*) FROM runs").fetchone() == (len(done) + 1,)
        assert look.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def descriptors_of(path: Path) -> int:
    return sum(
        os.path.samefile(link, path)
        for number in os.listdir("/proc/self/fd")
        if os.path.exists(link := f"/proc/self/fd/{number}")
    )


def test_descriptors_do_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE t (a)")
    with closing(connect_to_read(path)), closing(connect_to_read(path)):
        before = descriptors_of(path)
        for _ in range(50):
            assert first_bytes(path, 16) == b"SQLite format 3\0"
        assert descriptors_of(path) == before + 1
    assert descriptors_of(path) == 0
    assert first_bytes(path, 16) == b"SQLite format 3\0"
    assert descriptors_of(path) == 0


def test_a_connection_lets_go_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    sqlite3.connect(path).close()
    with closing(connect_to_read(path)):
        connection = connect_to_read(path)
        first_bytes(path, 16)
        connection.close()
        connection.close()
        assert descriptors_of(path) == 2
    assert descriptors_of(path) == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_that_nobody_closes_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    sqlite3.connect(path).close()
    connection = connect_to_read(path)
    first_bytes(path, 16)
    del connection
    gc.collect()
    assert descriptors_of(path) == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_may_be_collected_while_a_file_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    sqlite3.connect(path).close()
    forgotten = [connect_to_read(path)]
    inode_of = locks._inode

    def collecting(status: os.stat_result) -> tuple[int, int]:
        # Garbage collection comes between any two lines, in this thread too.
        forgotten.clear()
        gc.collect()
        return inode_of(status)

    monkeypatch.setattr(locks, "_guard", threading.Lock())
    monkeypatch.setattr(locks, "_inode", collecting)
    looking = threading.Thread(target=first_bytes, args=(path, 16), daemon=True)
    looking.start()
    looking.join(60)
    assert not looking.is_alive()
    assert descriptors_of(path) == 0


def test_a_sink_keeps_its_locks_while_its_file_is_looked_at(tmp_path: Path) -> None:
    """As a shelf or an index does with each database in a folder."""
    path = tmp_path / "x.db"
    other = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "

    async def write() -> None:
        async with SqliteSink(path) as sink:
            await sink.write_many([DaqReading(device="d", values={"a": 1.0})])
            assert not is_index(path)
            statement = "c.execute('CREATE TABLE t (a)'); c.commit(); c.close()"
            command = [sys.executable, "-c", other + statement, str(path)]
            subprocess.run(command, check=True)
            assert Path(f"{path}-wal").exists()
            await sink.write_many([DaqReading(device="d", values={"a": 2.0})])
            statement = "print(*c.execute('SELECT a FROM readings'))"
            command = [sys.executable, "-c", other + statement, str(path)]
            found = subprocess.run(command, check=True, capture_output=True).stdout
            assert found.decode().split() == ["(1.0,)", "(2.0,)"]

    asyncio.run(write())
    assert descriptors_of(path) == 0
