"""The object that users hold."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run

import bluesky_beamtime
from bluesky_beamtime import Beamtime, Run, SampleMetadata
from bluesky_beamtime.errors import (
    BeamtimeFileError,
    BeamtimeWarning,
    DatabaseError,
    DocumentError,
    ReadOnlyError,
    RunNotFoundError,
)
from bluesky_beamtime.testing import assert_documents_equal

KEY = {"source": "s", "dtype": "number", "shape": []}


def documents(events: int = 2, **metadata):
    bundle = compose_run(metadata={"plan_name": "count", "scan_id": 1, **metadata})
    stream = bundle.compose_descriptor(name="primary", data_keys={"x": KEY})
    found = [("start", bundle.start_doc), ("descriptor", stream.descriptor_doc)]
    for number in range(events):
        event = stream.compose_event(data={"x": float(number)}, timestamps={"x": 1.0})
        found.append(("event", event))
    return [*found, ("stop", bundle.compose_stop())]


def record(beamtime: Beamtime, docs) -> Run:
    for name, doc in docs:
        beamtime(name, doc)
    return beamtime[docs[0][1]["uid"]]


@pytest.fixture
def beamtime(tmp_path: Path):
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime


def test_the_store_appears_beside_the_file(tmp_path) -> None:
    import zarr

    with Beamtime(str(tmp_path / "2026-11-LaB6.db"), sample="LaB6"):
        found = {"2026-11-LaB6.db", "2026-11-LaB6.zarr"}
        assert found <= set(os.listdir(tmp_path))
        assert list(zarr.open_group(tmp_path / "2026-11-LaB6.zarr", mode="r")) == []


def test_it_is_a_callback(beamtime) -> None:
    docs = documents()
    run = record(beamtime, docs)
    assert_documents_equal(run.documents(), docs)
    assert hash(beamtime) == hash(beamtime)
    assert len({beamtime}) == 1
    assert beamtime != object()


def test_runs_are_found(beamtime) -> None:
    docs = [documents(scan_id=number, number=number) for number in (1, 2, 2, 5)]
    runs = [record(beamtime, each) for each in docs]
    assert len(beamtime) == 4
    assert list(beamtime) == runs[::-1]
    assert beamtime[-1] == runs[3]
    assert beamtime[-4] == runs[0]
    assert beamtime[2] == runs[2]
    assert beamtime[np.int64(5)] == runs[3]
    assert beamtime[runs[1].uid] == runs[1]
    assert beamtime[runs[1].uid[:8]] == runs[1]
    assert runs[1].uid in beamtime
    assert "x" not in beamtime and 3 not in beamtime
    assert list(beamtime.search(number=2)) == [runs[2], runs[1]]
    assert [run.start["number"] for run in beamtime.search(plan_name="count")[:2]] == [
        5,
        2,
    ]
    for key in (0, 3, 99, -5, "nobody"):
        with pytest.raises(RunNotFoundError):
            beamtime[key]
    for key in (1.0, None, slice(2), True):
        with pytest.raises(TypeError, match="scan number"):
            beamtime[key]


def test_an_empty_one_is_still_true(beamtime) -> None:
    assert beamtime
    assert len(beamtime) == 0
    assert list(beamtime) == []
    with pytest.raises(RunNotFoundError, match="no run yet"):
        beamtime[-1]


def test_its_repr_answers_the_next_question(beamtime, tmp_path) -> None:
    assert re.fullmatch(r"<Beamtime 'x' 0 runs, [\d.]+ kB>", repr(beamtime))
    record(beamtime, documents())
    assert "1 run, " in repr(beamtime)
    half = documents()[:3]
    for name, doc in half:
        beamtime(name, doc)
    assert re.fullmatch(r"<Beamtime 'x' 2 runs, [\d.]+ kB>", repr(beamtime))
    beamtime.close()
    assert repr(beamtime) == "<Beamtime 'x' closed>"
    with Beamtime(tmp_path / "x.db") as again:
        assert "2 runs, 1 incomplete, " in repr(again)
        (tmp_path / "x.zarr" / "big").write_bytes(b"\0" * 12_345_678)
        assert repr(again).endswith(" 13 MB>")


def test_size_does_not_make_a_prompt_wait(beamtime, monkeypatch) -> None:
    monkeypatch.setattr("bluesky_beamtime.beamtime.beamtime._PATIENCE", -1.0)
    assert ", over " in repr(beamtime)


# ------------------------------------------------------------------------------ sample


def test_the_sample_belongs_to_the_runs_that_start(tmp_path) -> None:
    with Beamtime(tmp_path / "x.db", sample="LaB6") as beamtime:
        assert beamtime.sample == SampleMetadata("LaB6", id=1)
        first = record(beamtime, documents())
        beamtime.sample = {"name": "Si", "formula": "Si", "slot": 3}
        second = record(beamtime, documents())
        third = record(beamtime, documents(sample="Au"))
        fourth = record(beamtime, documents(sample={"name": "Si", "serial": "7"}))
        beamtime.sample = None
        fifth = record(beamtime, documents())
        assert beamtime.sample is None
        names = [run.sample and run.sample.name for run in reversed(list(beamtime))]
        assert names == ["LaB6", "Si", "Au", "Si", None]
        assert (first.sample, fifth.sample) == (SampleMetadata("LaB6", id=1), None)
        assert third.sample == SampleMetadata("Au", id=3)
        si = SampleMetadata("Si", "Si", "7", extra={"slot": 3}, id=2)
        assert second.sample == SampleMetadata("Si", "Si", extra={"slot": 3}, id=2)
        assert fourth.sample == beamtime.samples["Si"].metadata == si
        assert list(beamtime.search(sample="Si")) == [fourth, second]


def test_what_is_no_sample_is_refused(tmp_path) -> None:
    with pytest.raises(DocumentError, match="sample"):
        Beamtime(tmp_path / "x.db", sample="")
    with Beamtime(tmp_path / "x.db", sample="LaB6") as beamtime:
        with pytest.raises(DocumentError, match="sample"):
            beamtime.sample = 3
        assert beamtime.sample.name == "LaB6"


# ------------------------------------------------------------------------ scan numbers


def test_numbers_go_on_after_a_restart(tmp_path) -> None:
    for expected in (1, 2, 3):
        with Beamtime(tmp_path / "x.db") as beamtime:
            assert beamtime.next_scan_id() == expected
    with Beamtime(tmp_path / "x.db") as beamtime:
        assert beamtime.next_scan_id({}) == 4
        assert beamtime.next_scan_id({"scan_id": 40}) == 41
        assert beamtime.next_scan_id({"scan_id": "x"}) == 42
        assert beamtime.next_scan_id({"scan_id": True}) == 43


def test_a_number_that_cannot_be_reserved_does_not_stop_the_plan(
    tmp_path, monkeypatch
) -> None:
    def refuse(*_: object) -> int:
        raise DatabaseError("the disk is gone")

    monkeypatch.setattr("bluesky_beamtime.beamtime.recording.reserve_scan_id", refuse)
    with (
        Beamtime(tmp_path / "x.db") as beamtime,
        pytest.warns(BeamtimeWarning, match=r"no scan number.*disk is gone"),
    ):
        assert beamtime.next_scan_id({"scan_id": 7}) == 8
    with (
        Beamtime(tmp_path / "x.db", on_error="raise") as strict,
        pytest.raises(DatabaseError, match="disk is gone"),
    ):
        strict.next_scan_id({"scan_id": 7})


# -------------------------------------------------------------------------- attaching


def test_attaching_and_detaching(tmp_path, RE) -> None:
    from bluesky.plans import count

    before = RE.scan_id_source
    with Beamtime(tmp_path / "x.db") as beamtime:
        beamtime.attach(RE)
        beamtime.attach(RE)
        seen = []
        RE.subscribe(lambda name, doc: seen.append((name, doc)))
        RE(count([], 1))
        assert len(beamtime) == 1
        assert_documents_equal(beamtime[-1].documents(), seen)
        assert RE.md["scan_id"] == beamtime[-1].scan_id == 1
        beamtime.detach(RE)
        beamtime.detach(RE)
        assert RE.scan_id_source is before
        RE(count([], 1))
        assert len(beamtime) == 1
        beamtime.attach(RE)
        RE(count([], 1))
        assert beamtime[-1].scan_id == 3
    # Closing lets go of it.
    assert RE.scan_id_source is before
    RE(count([], 1))


def test_another_source_of_numbers_is_not_taken_away(beamtime, RE) -> None:
    beamtime.attach(RE)
    RE.scan_id_source = other = lambda md: 99
    beamtime.detach(RE)
    assert RE.scan_id_source is other


def test_two_engines_and_two_beamtimes(tmp_path, RE) -> None:
    from bluesky.plans import count

    with Beamtime(tmp_path / "x.db") as one, Beamtime(tmp_path / "x.db") as other:
        one.attach(RE)
        other.attach(RE)
        RE(count([], 1))
        assert len(one) == len(other) == 1
        seen = list(one[-1].documents())
        assert_documents_equal(other[-1].documents(), seen)
        assert [name for name, _ in seen] == ["start", "stop"]
        assert one[-1].complete


@pytest.fixture
def paused(RE) -> Callable[..., list[tuple[str, Any]]]:
    """Run a plan up to a pause in its first run; return the documents, as they come."""
    from bluesky import RunEngineInterrupted
    from bluesky import plan_stubs as bps

    def plan(inside: bool):
        yield from bps.open_run()
        if not inside:
            yield from bps.close_run()
        yield from bps.checkpoint()
        yield from bps.pause()
        if inside:
            for _ in range(2):
                yield from bps.create()
                yield from bps.save()
            yield from bps.close_run()
        yield from bps.open_run()
        yield from bps.close_run()

    def pause(inside: bool = True) -> list[tuple[str, Any]]:
        seen: list[tuple[str, Any]] = []
        RE.subscribe(lambda name, doc: seen.append((name, doc)))
        with pytest.raises(RunEngineInterrupted):
            RE(plan(inside))
        return seen

    return pause


def of_run(seen: list[tuple[str, Any]], number: int) -> list[tuple[str, Any]]:
    """Return the documents of one of the runs that came one after the other."""
    starts = [n for n, (name, _) in enumerate(seen) if name == "start"]
    return seen[starts[number] : [*starts, len(seen)][number + 1]]


def test_a_beamtime_that_is_closed_in_a_run_keeps_the_rest_of_it(
    tmp_path, RE, paused
) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        beamtime.attach(RE)
        seen = paused()
    del beamtime
    gc.collect()
    assert RE.preprocessors == []
    with pytest.warns(BeamtimeWarning, match="closed"):
        RE.resume()
    assert [name for name, _ in seen].count("start") == 2
    with Beamtime(tmp_path / "x.db") as beamtime:
        assert not beamtime[-1].complete
        beamtime.recover()
        assert len(beamtime) == 1
        assert_documents_equal(beamtime[-1].documents(), of_run(seen, 0))


def test_a_run_is_recorded_to_its_end_after_detaching(beamtime, RE, paused) -> None:
    lines: list[str] = []
    source = RE.scan_id_source
    beamtime.attach(RE, report=lines.append)
    seen = paused()
    beamtime.detach(RE)
    beamtime.detach(RE)
    assert (RE.scan_id_source, RE.preprocessors) == (source, [])
    RE.resume()
    (run,) = beamtime
    assert_documents_equal(run.documents(), of_run(seen, 0))
    assert lines == []


@pytest.mark.parametrize("close", [True, False])
def test_attaching_again_goes_on_with_the_run(tmp_path, RE, paused, close) -> None:
    """Also with another object of the same file, and no document comes twice."""
    taken: list[str] = []

    class Counting(Beamtime):
        def __call__(self, name, doc) -> None:
            taken.append(name)
            super().__call__(name, doc)

    first = Counting(tmp_path / "x.db")
    first.attach(RE)
    seen = paused()
    if close:
        first.close()
        second = Counting(tmp_path / "x.db")
    else:
        first.detach(RE)
        second = first
    second.attach(RE)
    RE.resume()
    assert taken == [name for name, _ in seen]
    for number, run in enumerate(reversed(list(second))):
        assert run.complete
        assert_documents_equal(run.documents(), of_run(seen, number))
    second.close()


def test_the_runs_of_another_run_engine_hold_nothing(beamtime, RE, paused) -> None:
    from bluesky import RunEngine
    from bluesky.plans import count

    other: Any = RunEngine(context_managers=[])
    beamtime.attach(other)
    beamtime.attach(RE)
    seen = paused()
    beamtime.detach(other)
    other(count([], 1))
    RE.resume()
    assert len(beamtime) == [name for name, _ in seen].count("start") == 2
    other.loop.call_soon_threadsafe(other.loop.stop)
    other._th.join()
    other.loop.close()


def test_a_run_whose_end_nobody_saw_holds_nothing(beamtime, RE, paused) -> None:
    def fail(*_: object) -> None:
        raise ValueError("this was the end")

    from bluesky.plans import count

    token = RE.subscribe(fail, "stop")
    beamtime.attach(RE)
    with pytest.raises(ValueError, match="the end"):
        RE(count([], 1))
    RE.unsubscribe(token)
    assert beamtime[-1].stop is None
    paused(inside=False)
    beamtime.detach(RE)
    RE.resume()
    assert len(beamtime) == 2


def test_closing_between_the_runs_of_a_plan_is_warned_of(beamtime, RE, paused) -> None:
    beamtime.attach(RE)
    paused(inside=False)
    with pytest.warns(BeamtimeWarning, match="not recorded; open"):
        beamtime.close()
    RE.resume()


# ------------------------------------------------------------------------------- frames


def test_frames_are_named_after_the_run(beamtime, tmp_path) -> None:
    frames = beamtime.frames
    assert frames is beamtime.frames
    docs = documents(scan_id=214, plan_name="en_scan")
    beamtime(*docs[0])
    sink = frames.attach("cam1", dtype="<u2", shape=(2, 3))
    frames.detach(sink)
    beamtime(*docs[-1])
    sink = frames.attach("cam1", dtype="<u2", shape=(2, 3))
    frames.detach(sink)
    found = sorted(
        str(path.relative_to(tmp_path).parent)
        for path in (tmp_path / "x.zarr").rglob("cam1")
    )
    assert len(found) == 2
    assert re.fullmatch(r"x.zarr/frames/\d{4}_\d\d_\d\d/acquisition_00000", found[0])
    assert re.fullmatch(r"x.zarr/frames/\d{4}_\d\d_\d\d/en_scan_00214", found[1])


def test_hostile_plan_names_stay_inside(beamtime, tmp_path) -> None:
    for number, plan in enumerate(["../../out", "/out", "a/b", "\0", "x" * 300, ".."]):
        beamtime(*documents(scan_id=number, plan_name=plan)[0])
        sink = beamtime.frames.attach("cam", dtype="<u2", shape=(2,))
        sink.write(np.zeros(2, "<u2"))
        beamtime.frames.detach(sink)
    assert set(os.listdir(tmp_path)) <= {
        "x.db",
        "x.db-shm",
        "x.db-wal",
        "x.zarr",
        *(name for name in os.listdir(tmp_path) if name.startswith(".x.")),
    }
    assert len(list((tmp_path / "x.zarr" / "frames").glob("*/*/cam"))) == 6


def test_detectors_that_write_files_get_a_path(beamtime, tmp_path) -> None:
    beamtime(*documents(scan_id=3)[0])
    info = beamtime.path_provider("det")
    folder = Path(info.directory_path)
    assert folder.is_relative_to(tmp_path / "x_files")
    assert not (tmp_path / "x.zarr" / "frames").exists()
    assert "MB" not in repr(beamtime)
    (folder / "det.h5").write_bytes(bytes(5_000_000))
    assert re.search(r"5\.\d MB", repr(beamtime))


# ------------------------------------------------------------------------- reading only


def test_reading_only(tmp_path, RE) -> None:
    docs = documents()
    with Beamtime(tmp_path / "x.db") as beamtime:
        record(beamtime, docs)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with Beamtime(tmp_path / "x.db", mode="r") as reader:
        assert_documents_equal(reader[-1].documents(), docs)
        assert reader[-1].primary.read()["x"].values.tolist() == [0.0, 1.0]
        for attempt in (
            lambda: reader(*docs[0]),
            lambda: reader.attach(RE),
            lambda: reader.next_scan_id(),
            lambda: reader.frames,
            lambda: reader.path_provider,
            lambda: setattr(reader, "sample", "x"),
        ):
            with pytest.raises(ReadOnlyError, match=r"mode='r'.*open it with mode='a'"):
                attempt()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    side_files = {path for path in after if path.name in ("x.db-shm", "x.db-wal")}
    assert {p: data for p, data in after.items() if p not in side_files} == before
    with pytest.raises(ReadOnlyError):
        Beamtime(tmp_path / "x.db", mode="r", sample="x")


def test_reading_labels_nothing_but_says_it(tmp_path) -> None:
    beamtime = Beamtime(tmp_path / "x.db")
    for name, doc in documents()[:3]:
        beamtime(name, doc)
    beamtime.close()
    with Beamtime(tmp_path / "x.db", mode="r") as reader:
        assert reader[-1].exit_status == "interrupted"
        assert "1 incomplete" in repr(reader)
        with reader._database.reading() as connection:
            status = connection.exec_driver_sql("SELECT exit_status FROM runs").scalar()
        assert status is None


@pytest.mark.parametrize("name", ["x.zarr", "none/x.db"])
def test_a_wrong_path_is_named_and_leaves_nothing(tmp_path, name) -> None:
    with pytest.raises(BeamtimeFileError, match=r"'x.db'|no folder"):
        Beamtime(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_wrong_option_leaves_nothing_open(tmp_path) -> None:
    with pytest.raises(ValueError, match="on_error"):
        Beamtime(tmp_path / "x.db", on_error="ignore")
    gc.collect()
    assert not any(t.name.startswith("beamtime-sync") for t in threading.enumerate())


# -------------------------------------------------------------------- the journal, ends


def test_a_run_in_the_journal_is_incomplete_everywhere(beamtime, tmp_path) -> None:
    docs = documents()
    for name, doc in docs[:2]:
        beamtime(name, doc)
    with pytest.warns(BeamtimeWarning, match="put aside"):
        beamtime("event", {"descriptor": docs[1][1]["uid"]})
    for name, doc in docs[2:]:
        beamtime(name, doc)
    run = beamtime[-1]
    assert not run.complete
    assert "incomplete" in repr(run)
    assert "1 incomplete" in repr(beamtime)
    assert run.summary()["complete"] is False
    with Beamtime(tmp_path / "x.db", mode="r") as reader:
        assert not reader[-1].complete


def test_a_closed_beamtime_keeps_documents_and_refuses_questions(tmp_path) -> None:
    beamtime = Beamtime(tmp_path / "x.db")
    docs = documents()
    beamtime(*docs[0])
    beamtime.close()
    beamtime.close()
    with pytest.warns(BeamtimeWarning, match="closed"):
        beamtime(*docs[1])
    assert (tmp_path / "x.journal.jsonl").exists()
    with pytest.raises(DatabaseError, match="is closed"):
        len(beamtime)
    with pytest.raises(DatabaseError, match="is closed"):
        beamtime[-1]


def test_one_that_is_dropped_closes_itself(tmp_path) -> None:
    beamtime = Beamtime(tmp_path / "x.db", sample="x")
    del beamtime
    gc.collect()
    assert sorted(os.listdir(tmp_path)) == ["x.db", "x.zarr"]


EXIT = """
import sys, threading
from bluesky_beamtime import Beamtime
beamtime = Beamtime(sys.argv[1], sample="x")
beamtime("start", {"uid": "a", "time": 1.0})
def forever():
    n = 0
    while True:
        n += 1
        try:
            beamtime("start", {"uid": f"b{n}", "time": 1.0})
        except BaseException:
            return
if sys.argv[2] == "busy":
    threading.Thread(target=forever, daemon=True).start()
if sys.argv[2] == "error":
    raise SystemExit("the user's script failed")
"""


@pytest.mark.parametrize("how", ["quiet", "busy", "error"])
def test_the_interpreter_ends_without_it_being_closed(tmp_path, how) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", EXIT, str(tmp_path / "x.db"), how],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (1 if how == "error" else 0), done.stderr
    assert "ResourceWarning" not in done.stderr
    assert "Traceback" not in done.stderr
    with Beamtime(tmp_path / "x.db", mode="r") as reader:
        assert reader["a"].exit_status == "interrupted"


def _record_in_child(beamtime: Beamtime, results) -> None:
    try:
        run = record(beamtime, documents())
        results.put((run.exit_status, beamtime.next_scan_id()))
        beamtime.close()
    except BaseException as error:
        results.put(repr(error))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_may_use_it(beamtime) -> None:
    docs = documents()
    for name, doc in docs[:3]:
        beamtime(name, doc)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_record_in_child, args=(beamtime, results))
    child.start()
    assert results.get(timeout=60) == ("success", 2)
    child.join()
    results.close()
    results.join_thread()
    assert beamtime[docs[0][1]["uid"]].exit_status is None
    for name, doc in docs[3:]:
        beamtime(name, doc)
    assert_documents_equal(beamtime[docs[0][1]["uid"]].documents(), docs)
    assert len(beamtime) == 2


def test_public_names() -> None:
    assert bluesky_beamtime.Beamtime is Beamtime
    assert {"Beamtime", "Run", "SampleMetadata", "Stream"} <= set(dir(bluesky_beamtime))
    assert bluesky_beamtime.errors.BeamtimeError is bluesky_beamtime.BeamtimeError
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bluesky_beamtime.nothing  # noqa: B018
