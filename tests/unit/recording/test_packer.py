"""Runs are packed when nothing else is going on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bluesky_beamtime.database import Database
from bluesky_beamtime.database.packed import FEWEST_EVENTS, unpacked_streams
from bluesky_beamtime.errors import DatabaseError
from bluesky_beamtime.recording import DocumentRecorder, packer
from bluesky_beamtime.recording.packer import Packer

KEY = {"source": "s", "dtype": "number", "shape": []}


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "not within a minute"
        time.sleep(0.01)


def send(recorder: DocumentRecorder, uid: str, count: int = FEWEST_EVENTS) -> None:
    recorder("start", {"uid": uid, "time": 1.0})
    recorder(
        "descriptor",
        {
            "uid": f"d-{uid}",
            "run_start": uid,
            "time": 1.0,
            "name": "primary",
            "data_keys": {"x": KEY},
        },
    )
    numbers = list(range(count))
    page = {
        "uid": [f"{uid}-{n}" for n in numbers],
        "time": [float(n) for n in numbers],
        "seq_num": [n + 1 for n in numbers],
        "data": {"x": [float(n) for n in numbers]},
        "timestamps": {"x": [float(n) for n in numbers]},
        "descriptor": f"d-{uid}",
    }
    recorder("event_page", page)


def stop(recorder: DocumentRecorder, uid: str) -> None:
    doc = {"uid": f"s-{uid}", "run_start": uid, "time": 2.0, "exit_status": "success"}
    recorder("stop", doc)


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path / "x.db")
    yield database
    database.close()


@pytest.fixture
def recorder(database):
    recorder = DocumentRecorder(database, on_error="raise")
    yield recorder
    recorder.close()


def test_a_run_is_packed_after_it_has_stopped(recorder, database) -> None:
    send(recorder, "a")
    assert unpacked_streams(database) == []
    stop(recorder, "a")
    eventually(lambda: not unpacked_streams(database))
    send(recorder, "few", 5)
    stop(recorder, "few")
    assert recorder.pack() == 0


def test_packing_gives_way_to_a_run_that_begins(
    recorder, database, monkeypatch
) -> None:
    began = threading.Event()

    def pack_stream(database: Any, uid: str, go_on: Any) -> bool:
        began.set()
        while go_on():
            time.sleep(0.001)
        return False

    monkeypatch.setattr(packer, "pack_stream", pack_stream)
    send(recorder, "a")
    stop(recorder, "a")
    assert began.wait(60)
    send(recorder, "b", 1)
    eventually(lambda: recorder._packer._thread is None)
    assert unpacked_streams(database) == ["d-a"]
    monkeypatch.undo()
    stop(recorder, "b")
    eventually(lambda: not unpacked_streams(database))


def test_closing_does_not_wait_for_it(database, monkeypatch) -> None:
    def pack_stream(database: Any, uid: str, go_on: Any) -> bool:
        while go_on():
            time.sleep(0.001)
        return False

    monkeypatch.setattr(packer, "pack_stream", pack_stream)
    recorder = DocumentRecorder(database)
    send(recorder, "a")
    stop(recorder, "a")
    recorder.close()
    assert recorder._packer._thread is None
    assert unpacked_streams(database) == ["d-a"]


@pytest.mark.parametrize("error", [DatabaseError("full"), RuntimeError("odd")])
def test_what_cannot_be_packed_is_only_logged(
    recorder, database, monkeypatch, caplog, error
) -> None:
    def pack_stream(*args: Any) -> bool:
        raise error

    monkeypatch.setattr(packer, "pack_stream", pack_stream)
    caplog.set_level("INFO")
    send(recorder, "a")
    stop(recorder, "a")
    eventually(lambda: "run a stays in rows alone" in caplog.text)
    assert recorder._packer.wait(60)
    monkeypatch.undo()
    assert recorder.pack() == 1


def test_a_closed_packer_takes_nothing(database) -> None:
    closed = Packer(database, lambda: True)
    closed.close()
    closed.stopped("a", 10**6)
    assert not closed.wait(1)
