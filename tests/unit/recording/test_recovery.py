"""What was in the journal is in the tables, each document in its own place."""

from __future__ import annotations

import itertools
import random
import shutil
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Database
from bluesky_beamtime.errors import BeamtimeWarning, DatabaseWriteError
from bluesky_beamtime.recording import recover
from bluesky_beamtime.testing import assert_documents_equal

Documents = list[tuple[str, dict[str, Any]]]

pytestmark = pytest.mark.filterwarnings(
    "ignore::bluesky_beamtime.errors.BeamtimeWarning"
)


def no_room(*_: Any) -> Any:
    raise DatabaseWriteError("no room", errno=5)


def events_of(documents: Documents) -> list[str]:
    return [doc["uid"] for name, doc in documents if name == "event"]


@pytest.mark.parametrize("first", range(11))
def test_what_could_not_be_stored_comes_back(
    recording: Any, documents: Documents, monkeypatch: Any, first: int
) -> None:
    """The database fails from the document of that number on."""
    for number, (name, doc) in enumerate(documents):
        if number == first:
            monkeypatch.setattr(Database, "insert", no_room)
            monkeypatch.setattr(Database, "inserting", no_room)
        recording.recorder(name, doc)
    monkeypatch.undo()
    run = recording.run(documents[0][1]["uid"])
    assert len(recording.journaled()) == len(documents) - first
    report = recover(recording.database)
    assert (report.stored, report.kept) == (len(documents) - first, {})
    assert report.ok
    assert not recording.database.journal.exists()
    assert_documents_equal(list(run.documents()), documents)
    assert (run.exit_status, run.complete, run.num_events) == ("success", True, 8)
    # Again: nothing to do.
    again = recover(recording.database)
    assert (again.stored, again.runs, again.ok) == (0, [], True)


def test_arrays_in_the_journal_come_back(recording: Any, monkeypatch: Any) -> None:
    from event_model import compose_run

    bundle = compose_run()
    keys = {"img": {"source": "s", "dtype": "array", "shape": [2, 3]}}
    stream = bundle.compose_descriptor(name="primary", data_keys=keys)
    documents: Documents = [
        ("start", bundle.start_doc),
        ("descriptor", stream.descriptor_doc),
    ]
    for number in range(4):
        data = {"img": np.full((2, 3), number, ">u2")}
        event = stream.compose_event(data=data, timestamps={"img": float("nan")})
        documents.append(("event", event))
    documents.append(("stop", bundle.compose_stop()))
    for number, (name, doc) in enumerate(documents):
        if number == 4:
            monkeypatch.setattr(Database, "inserting", no_room)
        recording.recorder(name, doc)
    monkeypatch.undo()
    assert recover(recording.database).stored == 3
    run = recording.run(bundle.start_doc["uid"])
    assert_documents_equal(list(run.documents()), documents)
    frames = run.primary.read()["img"].values
    assert frames[:, 0, 0].tolist() == [0, 1, 2, 3]


def shuffled(documents: Documents, seed: int) -> Documents:
    """Return the start, and the rest of the run in a wrong order, the stop last."""
    middle = documents[1:-1]
    random.Random(seed).shuffle(middle)
    return [documents[0], *middle, documents[-1]]


@pytest.mark.parametrize("seed", range(12))
def test_documents_in_disorder_keep_their_order(
    recording: Any, documents: Documents, seed: int
) -> None:
    """An event before its descriptor is put aside; later it finds its place."""
    said = shuffled(documents, seed)
    run = recording(said)
    aside = len(recording.journaled())
    report = recover(recording.database)
    assert (report.stored, report.kept) == (aside, {})
    assert_documents_equal(list(run.documents()), said)
    assert run.num_events == 8
    assert run.complete
    # In the order of their numbers, as ever.
    assert run.primary.read()["primary_x"].values.tolist() == [n / 3 for n in range(4)]


def test_a_page_in_the_journal_takes_as_many_places_as_it_has_events(
    recording: Any, documents: Documents
) -> None:
    from event_model import pack_event_page

    start, descriptor, other, *events, stop = documents
    mine = [e for e in events if e[1]["descriptor"] == descriptor[1]["uid"]]
    theirs = [e for e in events if e not in mine]
    page = ("event_page", dict(pack_event_page(*(doc for _, doc in mine))))
    said = [start, other, theirs[0], page, theirs[1], descriptor, *theirs[2:], stop]
    run = recording(said)
    assert [line["name"] for line in recording.journaled()] == ["event_page"]
    assert recover(recording.database).stored == 1
    meant = [start, other, theirs[0], *mine, theirs[1], descriptor, *theirs[2:], stop]
    assert_documents_equal(list(run.documents()), meant)


def test_a_run_whose_start_came_last_is_whole(
    recording: Any, documents: Documents
) -> None:
    for name, doc in (*documents[1:], documents[0]):
        recording.recorder(name, doc)
    recording.recorder.close()
    assert recover(recording.database).ok
    run = recording.run(documents[0][1]["uid"])
    assert_documents_equal(list(run.documents()), documents)
    assert run.exit_status == "success"


def test_what_is_malformed_stays_and_the_rest_keeps_its_place(
    recording: Any, documents: Documents
) -> None:
    start, descriptor, other, *events, stop = documents
    bad = {**events[2][1], "uid": "bad", "seq_num": "two"}
    worse = {"uid": "worse"}
    said = [start, other, events[1], events[0], ("event", bad), descriptor]
    said += [("event", worse), *events[2:], stop]
    run = recording(said)
    assert len(recording.journaled()) == 3
    report = recover(recording.database)
    assert (report.stored, sum(report.kept.values()), report.ok) == (1, 2, False)
    assert any("'seq_num' must be an integer" in reason for reason in report.kept)
    left = recording.journaled()
    assert [line["doc"]["uid"] for line in left] == ["bad", "worse"]
    # Its place has moved with its neighbours: events[0] took one before it.
    assert left[0]["ordinal"] == 4
    assert not run.complete
    good = [pair for pair in said if pair[1].get("uid") not in ("bad", "worse")]
    assert_documents_equal(list(run.documents()), good)
    # And when the bad one has become a good one, it goes where it belongs.
    path = recording.database.journal
    text = path.read_text().replace('"seq_num":"two"', '"seq_num":2')
    path.write_text(text)
    assert recover(recording.database).stored == 1
    repaired = [(n, {**d, "seq_num": 2} if d is bad else d) for n, d in said]
    meant = [pair for pair in repaired if pair[1].get("uid") != "worse"]
    assert_documents_equal(list(run.documents()), meant)


def test_another_document_with_a_uid_that_is_taken_is_kept(
    recording: Any, documents: Documents
) -> None:
    start, descriptor, other, *events, stop = documents
    twin = {**events[0][1], "data": {"primary_x": 99.0}}
    again = {**start[1], "plan_name": "other"}
    end = {**stop[1], "exit_status": "fail"}
    said = [start, descriptor, other, *events, ("event", twin), ("start", again), stop]
    run = recording([*said, ("stop", end)])
    # The same ones once more are no news.
    recording([start, descriptor, events[0], stop])
    assert [line["doc"] for line in recording.journaled()] == [twin, again, end]
    for _ in range(2):
        report = recover(recording.database)
        assert (report.stored, sum(report.kept.values())) == (0, 3)
    assert_documents_equal(list(run.documents()), documents)


def test_a_run_without_an_end_is_called_interrupted(
    recording: Any, documents: Documents, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Database, "inserting", no_room)
    for name, doc in documents[:-1]:
        recording.recorder(name, doc)
    monkeypatch.undo()
    # Its process is alive: it may go on.
    report = recover(recording.database)
    assert (report.stored, report.waiting) == (0, 11)
    recording.recorder.close()
    report = recover(recording.database)
    assert (report.stored, report.waiting) == (11, 0)
    run = recording.run(documents[0][1]["uid"])
    assert (run.exit_status, run.num_events) == ("interrupted", 8)
    assert_documents_equal(list(run.documents()), documents[:-1])


def test_runs_that_are_recorded_are_left_alone(
    recording: Any, documents: Documents, make_documents: Any
) -> None:
    start, descriptor, _, *events, _ = documents
    for name, doc in (start, events[0], descriptor):
        recording.recorder(name, doc)
    other = make_documents()
    recording(shuffled(other, 3))
    report = recover(recording.database)
    assert report.waiting == 1
    assert report.runs == [other[0][1]["uid"]]
    assert [line["doc"] for line in recording.journaled()] == [events[0][1]]
    recording.recorder("event", events[2][1])
    recording.recorder.close()
    assert recover(recording.database).ok
    found = list(recording.run(start[1]["uid"]).documents())
    assert_documents_equal(found, [start, events[0], descriptor, events[2]])


def test_a_line_that_was_cut_off_stays(recording: Any, documents: Documents) -> None:
    recording(shuffled(documents, 1))
    path = recording.database.journal
    whole = path.read_bytes()
    path.write_bytes(b'{"run":"torn\n' + whole + b'{"run":"half')
    report = recover(recording.database)
    assert list(report.kept) == [
        "nobody knows its run: the line cannot be read: it was cut off"
    ]
    assert path.read_bytes() == b'{"run":"torn\n{"run":"half'


def test_a_journal_that_grows_meanwhile_loses_nothing(
    recording: Any, documents: Documents, monkeypatch: Any
) -> None:
    from bluesky_beamtime.recording import recovery

    recording(shuffled(documents, 2))
    real = recovery.replay

    def replay(*args: Any, **options: Any) -> Any:
        recording.recorder("event", {"uid": "meanwhile"})
        return real(*args, **options)

    monkeypatch.setattr(recovery, "replay", replay)
    assert recover(recording.database).stored > 0
    assert [line["doc"] for line in recording.journaled()] == [{"uid": "meanwhile"}]


KILLED = """
import os, random, sys
from bluesky_beamtime.database import Database
from bluesky_beamtime.recording import recover, replaying, journal
chance = random.Random(int(sys.argv[2]))
left = chance.randrange(60)
def trace(statement):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
database = Database(sys.argv[1])
real = Database.inserting
import contextlib
@contextlib.contextmanager
def inserting(self):
    with real(self) as cursor:
        cursor.connection.set_trace_callback(trace)
        yield cursor
Database.inserting = inserting
if left % 5 == 0:
    # Committed, and the journal as it was.
    journal.Journal.remove = lambda *_: os.kill(os.getpid(), 9)
if left % 5 == 1:
    journal.Path.replace = journal.Path.unlink = lambda *_: os.kill(os.getpid(), 9)
recover(database)
database.close()
"""


@pytest.mark.timeout(300)
def test_a_kill_while_it_recovers_loses_nothing(
    tmp_path: Path, make_documents: Any
) -> None:
    from bluesky_beamtime.recording import DocumentRecorder

    database = Database(tmp_path / "x.db")
    recorder = DocumentRecorder(database)
    runs = [shuffled(make_documents(), seed) for seed in range(3)]
    for said in runs:
        for name, doc in said:
            recorder(name, doc)
    recorder.close()
    database.close()
    killed = 0
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for name in ("x.db", "x.journal.jsonl"):
            shutil.copy(tmp_path / name, folder)
        for attempt in itertools.count():
            script = [sys.executable, "-c", KILLED, str(folder / "x.db")]
            done = subprocess.run(
                [*script, str(seed + 100 * attempt)], capture_output=True, text=True
            )
            assert done.returncode in (0, -9), done.stderr
            killed += done.returncode == -9
            if done.returncode == 0 or attempt == 2:
                break
        with Beamtime(folder / "x.db") as beamtime:
            beamtime.recover()
            for said in runs:
                found = list(beamtime[said[0][1]["uid"]].documents())
                assert_documents_equal(found, said)
        assert not (folder / "x.journal.jsonl").exists()
    assert killed >= 2


def test_frames_are_repaired(tmp_path: Path) -> None:
    from bluesky_beamtime.storage import ShardedArray, open_frames

    Beamtime(tmp_path / "x.db").close()
    folder = tmp_path / "x.zarr" / "frames" / "mine"
    script = (
        "import os, sys, numpy as np; from bluesky_beamtime.storage import *\n"
        "from pathlib import Path; p = Path(sys.argv[1]); create_group(p)\n"
        "a = ShardedArray.create(p / 'cam', dtype=np.dtype('u2'), shape=(4, 4))\n"
        "for n in range(3): a.append(np.full((4, 4), n, 'u2'))\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)])
    assert done.returncode == -9
    assert ShardedArray is not None
    with Beamtime(tmp_path / "x.db") as beamtime:
        report = beamtime.recover()
    assert any("3 frames more can be read" in line for line in report.repaired)
    assert len(open_frames(folder / "cam")) == 3


def test_packed_columns_are_made_anew(recording: Any, make_documents: Any) -> None:
    """A copy of the numbers that lacks the recovered ones must not be read."""
    documents = make_documents(events=400)
    late = documents.pop(-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BeamtimeWarning)
        run = recording([documents[0], late, *documents[1:]])
    recording.recorder.pack()
    assert recover(recording.database).stored == 1
    name = "primary" if "primary_x" in late[1]["data"] else "baseline"
    values = run[name].read()[f"{name}_x"].values.tolist()
    assert values == [n / 3 for n in range(400)]


def test_a_recovery_needs_the_right_to_write(tmp_path: Path) -> None:
    from bluesky_beamtime.errors import ReadOnlyError

    Beamtime(tmp_path / "x.db").close()
    with (
        Beamtime(tmp_path / "x.db", mode="r") as beamtime,
        pytest.raises(ReadOnlyError),
    ):
        beamtime.recover()


def test_integrity_holds_after_all_this(recording: Any, documents: Documents) -> None:
    recording(shuffled(documents, 5))
    recover(recording.database)
    connection = sqlite3.connect(recording.database.path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    ordinals = [
        row[0]
        for table in ("streams", "events")
        for row in connection.execute(f"SELECT ordinal FROM {table}")
    ]
    assert sorted(ordinals) == list(range(1, 11))
    (stop,) = connection.execute("SELECT stop_ordinal FROM runs").fetchone()
    assert stop == 11
    connection.close()
