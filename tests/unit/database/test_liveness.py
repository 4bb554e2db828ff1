"""Whether a writer is alive, by its lock alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bluesky_beamtime.database.liveness import WriterLock, is_alive, remove_stale

HOLD = """
import sys
from pathlib import Path
from bluesky_beamtime.database.liveness import WriterLock
lock = WriterLock(Path(sys.argv[1]))
print(lock.name, flush=True)
sys.stdin.read()
"""


def test_a_lock_is_alive_until_it_is_released(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "x.db")
    assert is_alive(tmp_path, lock.name)
    lock.release()
    lock.release()
    assert not is_alive(tmp_path, lock.name)
    assert os.listdir(tmp_path) == []


def test_each_writer_has_its_own(tmp_path: Path) -> None:
    one, other = WriterLock(tmp_path / "x.db"), WriterLock(tmp_path / "x.db")
    assert one.name != other.name
    one.release()
    assert is_alive(tmp_path, other.name)
    other.release()


def test_the_lock_of_a_killed_process_is_dead(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "x.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    name = child.stdout.readline().strip()
    assert is_alive(tmp_path, name)
    remove_stale(tmp_path / "x.db")
    assert os.listdir(tmp_path) == [name]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert not is_alive(tmp_path, name)
    assert os.listdir(tmp_path) == [name]
    remove_stale(tmp_path / "x.db")
    assert os.listdir(tmp_path) == []


def test_only_locks_of_this_database_are_removed(tmp_path: Path) -> None:
    for name in (".x.db.abc.lock", ".y.db.abc.lock", "x.db", ".x.db.lock.txt"):
        (tmp_path / name).touch()
    remove_stale(tmp_path / "x.db")
    assert sorted(os.listdir(tmp_path)) == [".x.db.lock.txt", ".y.db.abc.lock", "x.db"]
    (tmp_path / ".[x]*.db.abc.lock").touch()
    remove_stale(tmp_path / "[x]*.db")
    assert not (tmp_path / ".[x]*.db.abc.lock").exists()


def test_what_nobody_can_know_is_alive(tmp_path: Path) -> None:
    assert is_alive(tmp_path, None)
    assert not is_alive(tmp_path, "never-there")
    # A name from a file that somebody else made must not lead anywhere.
    outside = WriterLock(tmp_path / "x.db")
    inside = tmp_path / "folder"
    inside.mkdir()
    assert not is_alive(inside, f"../{outside.name}")
    outside.release()


def _wait(connection: multiprocessing.connection.Connection) -> None:
    connection.send("there")
    connection.recv()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_does_not_keep_it_alive(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "x.db")
    name = lock.name
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_wait, args=(there,))
    child.start()
    assert here.recv() == "there"
    assert is_alive(tmp_path, name)
    os.link(tmp_path / str(name), tmp_path / "copy")
    lock.release()
    # The file is gone; the lock itself, seen through another name, is too.
    assert not is_alive(tmp_path, "copy")
    here.send("end")
    child.join()
    here.close()
    there.close()
