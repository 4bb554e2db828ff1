"""The lines of a listing, which are those of each run and need few queries."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run
from sqlalchemy import event

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database.accounting import read_accounts
from bluesky_beamtime.database.search import count_incomplete
from bluesky_beamtime.storage import FrameStore, stream_resource_doc

FRAMES = {
    "source": "cam",
    "dtype": "array",
    "dtype_numpy": "<u2",
    "shape": [2, 3],
    "external": "STREAM:",
}
NOBODY_COUNTED = dict.fromkeys(("expected", "received", "dropped", "late"))
DESCRIPTOR = {"uid": "d", "name": "primary", "time": 1.0, "data_keys": {}}
EVENT = {"descriptor": "d", "time": 1.0, "data": {}, "timestamps": {}}


@pytest.fixture
def beamtime(tmp_path):
    with Beamtime(tmp_path / "x.db", sample="LaB6") as beamtime:
        yield beamtime


class FrameRun:
    """A run with a camera, given to a beamtime document by document."""

    def __init__(self, beamtime: Beamtime, number: int, **metadata: Any) -> None:
        self.beamtime = beamtime
        self.bundle = compose_run(
            metadata={"plan_name": "fly", "scan_id": number, **metadata}
        )
        self.uid = self.bundle.start_doc["uid"]
        beamtime("start", self.bundle.start_doc)
        stream = self.bundle.compose_descriptor(
            name="primary", data_keys={"cam": FRAMES}
        )
        beamtime("descriptor", stream.descriptor_doc)
        folder = beamtime.path.parent / "x.zarr" / "frames"
        self.store = FrameStore(folder, name=lambda: f"fly_{number:05d}")
        self.sink = self.store.attach("cam", dtype="<u2", shape=(2, 3))
        doc = stream_resource_doc(self.sink, "unused")
        del doc["uid"]
        resource = self.bundle.compose_stream_resource(**doc)
        beamtime("stream_resource", resource.stream_resource_doc)

    def write(self, count: int, **counted: int) -> None:
        for _ in range(count):
            self.sink.write(np.zeros((2, 3), "<u2"))
        self.sink.set_attributes({"accounting": counted})
        self.sink.publish()

    def stop(self) -> None:
        self.beamtime("stop", self.bundle.compose_stop())

    def unstage(self) -> None:
        self.store.detach(self.sink)


def table(beamtime: Beamtime, uid: str) -> dict[str, Any]:
    with beamtime._database.reading() as connection:
        return read_accounts(connection, [uid]).get(uid, {})


def account(written: int, **counted: int) -> dict[str, Any]:
    return {"cam": {**NOBODY_COUNTED, **counted, "written": written}}


def empty_table(beamtime: Beamtime) -> None:
    with beamtime._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM frame_accounts")


def test_the_table_is_filled_when_a_run_stops(beamtime) -> None:
    run = FrameRun(beamtime, 1)
    run.write(3, expected=3, received=3, dropped=0)
    assert table(beamtime, run.uid) == {}
    run.stop()
    expected = account(3, expected=3, received=3, dropped=0)
    assert table(beamtime, run.uid) == expected
    assert beamtime[-1].accounting == beamtime[-1].summary()["frames"] == expected
    run.unstage()


def test_what_comes_after_the_stop_counts_too(beamtime) -> None:
    """Cameras are unstaged when the run is over, and may have had more to write."""
    run = FrameRun(beamtime, 1)
    run.write(3, received=3)
    run.stop()
    run.write(2, received=5)
    run.unstage()
    # A listing while the recorder lives looks at the frames of its newest run.
    assert beamtime[-1].summary()["frames"] == account(5, received=5)
    assert table(beamtime, run.uid) == account(3, received=3)
    second = FrameRun(beamtime, 2)
    assert table(beamtime, run.uid) == account(5, received=5)
    second.write(1)
    second.stop()
    second.write(1)
    second.unstage()
    beamtime.close()
    with Beamtime(beamtime.path, mode="r") as reader:
        assert table(reader, second.uid) == account(2)


def test_old_runs_without_rows_are_looked_at(beamtime) -> None:
    for number in range(3):
        run = FrameRun(beamtime, number)
        run.write(number)
        run.stop()
        run.unstage()
    empty_table(beamtime)
    listed = beamtime.summaries()
    assert [line["frames"] for line in listed] == [account(n) for n in (2, 1, 0)]


def test_frames_that_are_away_do_not_fail_the_stop(beamtime, caplog) -> None:
    run = FrameRun(beamtime, 1)
    run.write(2)
    run.unstage()
    shutil.rmtree(beamtime.path.parent / "x.zarr" / "frames")
    run.stop()
    assert beamtime[-1].exit_status == "success"
    assert table(beamtime, run.uid) == {}
    assert beamtime.summaries()[0]["frames"] == {
        "cam": {**NOBODY_COUNTED, "written": None}
    }


def test_any_failure_to_count_leaves_the_stop_alone(
    beamtime, monkeypatch, caplog
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a surprise")

    monkeypatch.setattr("bluesky_beamtime.database.accounting.frame_accounts", fail)
    run = FrameRun(beamtime, 1)
    run.unstage()
    run.stop()
    assert beamtime[-1].exit_status == "success"
    assert "are not accounted for: a surprise" in caplog.text


def test_a_listing_is_that_of_each_run(beamtime) -> None:
    for number in range(4):
        run = FrameRun(beamtime, number, tags=["b", "a"] if number % 2 else [])
        run.write(number, expected=5, received=number)
        if number:
            run.stop()
        run.unstage()
    beamtime[2].star()
    beamtime("start", {"uid": "bare", "time": 1.0})
    beamtime("descriptor", {**DESCRIPTOR, "run_start": "bare"})
    for number in range(3):
        beamtime("event", {**EVENT, "uid": f"e{number}", "seq_num": number + 1})
    with Beamtime(beamtime.path, mode="r") as reader:
        lines = reader.summaries()
        assert lines == [run.summary() for run in reader]
        assert lines[1:] == list(reader.search(text="fly").summaries())
    assert [line["num_events"] for line in lines] == [3, 0, 0, 0, 0]
    assert [line["exit_status"] for line in lines] == [None, *["success"] * 3, None]
    assert [line["starred"] for line in lines] == [False, False, True, False, False]
    assert [line["tags"] for line in lines] == [[], ["a", "b"], [], ["a", "b"], []]
    assert [line["sample"] for line in lines] == ["LaB6"] * 5
    beamtime.close()
    with Beamtime(beamtime.path, mode="r") as reader:
        lines = reader.summaries(3)
        assert lines[0]["uid"] == "bare"
        assert len(lines) == 3
        assert lines[0]["exit_status"] == "interrupted"
        assert lines[0]["complete"] is False
        assert count_incomplete(reader._database, reader._journal) == 2


def count_queries(beamtime: Beamtime) -> int:
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    engine = beamtime._database._connections.readers
    event.listen(engine, "before_cursor_execute", note)
    try:
        assert len(beamtime.summaries(50)) <= 50
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len(statements)


def test_fifty_runs_need_as_many_queries_as_one(beamtime) -> None:
    run = FrameRun(beamtime, 1)
    run.write(1)
    run.stop()
    run.unstage()
    one = count_queries(beamtime)
    for number in range(60):
        start = {"uid": f"r{number}", "time": 1.0, "tags": ["x"]}
        stop = {"uid": f"s{number}", "run_start": f"r{number}", "time": 2.0}
        beamtime("start", start)
        beamtime("stop", {**stop, "exit_status": "success"})
    assert count_queries(beamtime) <= one <= 8


def test_counting_what_is_incomplete_looks_at_an_index(beamtime) -> None:
    query = "SELECT uid FROM runs WHERE exit_status = 'interrupted'"
    plan = beamtime.sql(f"EXPLAIN QUERY PLAN {query}").detail.tolist()
    assert plan == ["SEARCH runs USING INDEX runs_exit_status (exit_status=?)"]


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_summaries import Beamtime, FrameRun
beamtime = Beamtime(Path(sys.argv[1]))
run = FrameRun(beamtime, 1)
run.write(3, received=3)
run.stop()
run.write(2, received=5)
os._exit(0)
"""


def test_what_a_killed_process_did_not_count_is_counted(tmp_path) -> None:
    path = tmp_path / "x.db"
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, str(path), here]
    subprocess.run(command, check=True, timeout=100)
    with Beamtime(path, mode="r") as reader:
        uid = reader[-1].uid
        assert table(reader, uid) == account(3, received=3)
    with Beamtime(path) as beamtime:
        assert table(beamtime, uid) == account(5, received=5)
        assert beamtime[-1].exit_status == "success"
