"""Index and IndexWriter: many beamtimes, one search."""

from __future__ import annotations

import gc
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Index, IndexWriter, RunWriter
from bluesky_beamtime.errors import (
    BeamtimeFileError,
    DocumentError,
    IntegrityError,
    NewerVersionError,
    RunNotFoundError,
)

ORCID = "0000-0002-1825-0097"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "all.index"


@pytest.fixture
def writer(path: Path) -> IndexWriter:
    return IndexWriter(path)


def rows(path: Path, sql: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, values).fetchall()


def make_beamtime(
    file: Path, sample: str = "LaB6", runs: int = 2, **metadata: Any
) -> list[str]:
    uids: list[str] = []
    with RunWriter(file, sample) as writer:
        for number in range(runs):
            uids.append(
                writer.open_run("scan" if number % 2 else "count", metadata=metadata)
            )
            writer.open_stream("primary", {})
            writer.write_event({"x": number})
            writer.close_run()
    return uids


def until(true: Callable[[], bool], patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ------------------------------------------------------------------------- the writer


@pytest.mark.parametrize("kind", [str, Path])
def test_w36_construction_touches_no_disk(path: Path, kind: type) -> None:
    assert IndexWriter(kind(path)).index_db_path == path
    assert not path.exists()


def test_w37_tables_are_made_once(path: Path, writer: IndexWriter) -> None:
    writer.ensure_schema()
    number = writer.register_researcher("Ada", "/data/ada")
    writer.ensure_schema()
    tables = {name for (name,) in rows(path, "SELECT name FROM sqlite_master")}
    assert tables >= {"researchers", "beamtimes", "runs_index"}
    assert rows(path, "PRAGMA user_version") == [(1,)]
    assert rows(path, "SELECT id, name FROM researchers") == [(number, "Ada")]


def test_w37_other_files_are_left_alone(path: Path, writer: IndexWriter) -> None:
    make_beamtime(path.with_suffix(".db"))
    for file in (path.with_suffix(".db"), path.with_name("junk")):
        if not file.exists():
            file.write_bytes(b"nothing of the kind" * 50)
        before = file.read_bytes()
        with pytest.raises(BeamtimeFileError, match="not an index"):
            IndexWriter(file).ensure_schema()
        assert file.read_bytes() == before
    with pytest.raises(BeamtimeFileError, match="no folder"):
        IndexWriter(path / "nowhere" / "x.index").ensure_schema()


def test_w37_newer_version_is_refused(path: Path, writer: IndexWriter) -> None:
    writer.ensure_schema()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(NewerVersionError, match="99"):
        writer.ensure_schema()
    with pytest.raises(NewerVersionError, match="99"):
        len(Index(path))


def test_w38_researcher_is_registered_once(path: Path, writer: IndexWriter) -> None:
    first = writer.register_researcher("Ada", "/data/ada", email="ada@example.org")
    second = writer.register_researcher(
        "Ada", "/data/new", orcid=f"https://orcid.org/{ORCID}", affiliation="ESRF"
    )
    # Known by the ORCID iD from now on, whatever the spelling of the name.
    third = writer.register_researcher("Ada L.", "/data/new", orcid=ORCID)
    assert first == second == third
    found = rows(
        path, "SELECT name, root_path, email, orcid, affiliation FROM researchers"
    )
    assert found == [("Ada L.", "/data/new", "ada@example.org", ORCID, "ESRF")]


def test_w38_mistyped_orcid(path: Path, writer: IndexWriter) -> None:
    with pytest.raises(DocumentError, match="mistyped"):
        writer.register_researcher("Ada", "/data", orcid="0000-0002-1825-0098")
    assert not path.exists()


def test_w38_same_name_is_not_the_same_person(writer: IndexWriter) -> None:
    one = writer.register_researcher("Ada", "/data", orcid=ORCID)
    two = writer.register_researcher("Ada", "/data", orcid="0000-0001-5109-3700")
    assert one != two
    with pytest.raises(IntegrityError, match="ORCID"):
        writer.register_researcher("Ada", "/data")


def test_w39_beamtime_is_known_by_its_file(path: Path, writer: IndexWriter) -> None:
    ada = writer.register_researcher("Ada", "/data")
    (path.parent / "real").mkdir()
    (path.parent / "link").symlink_to(path.parent / "real")
    first = writer.register_beamtime(ada, "old", path.parent / "link" / "a.db")
    second = writer.register_beamtime(
        ada, "new", str(path.parent / "real" / "a.db"), time_start=12.5
    )
    assert first == second
    found = rows(path, "SELECT label, db_path, time_start FROM beamtimes")
    assert found == [("new", str(path.parent / "real" / "a.db"), 12.5)]
    with pytest.raises(sqlite3.IntegrityError, match="99"):
        writer.register_beamtime(99, "x", "/x.db")
    assert rows(path, "SELECT count(*) FROM beamtimes") == [(1,)]


def test_w40_run_is_brought_up_to_date(path: Path, writer: IndexWriter) -> None:
    ada = writer.register_researcher("Ada", "/data")
    beamtime = writer.register_beamtime(ada, "first", "/data/a.db")
    writer.index_run("u1", ada, beamtime, "count")
    writer.index_run(
        *("u1", ada, beamtime, "scan"),
        sample_name="LaB6",
        time_start=1.5,
        tags=["good", "good"],
        time_stop=2.5,
        exit_status="success",
    )
    found = rows(
        path,
        "SELECT uid, plan_name, sample_name, time_start, tags, time_stop, exit_status "
        "FROM runs_index",
    )
    assert found == [("u1", "scan", "LaB6", 1.5, '["good"]', 2.5, "success")]
    (row,) = Index(path).search(tags="good", sample="LaB6", text="lab6")
    assert (row.uid, row.researcher, row.beamtime) == ("u1", "Ada", "first")
    for wrong in ((99, beamtime), (ada, 99)):
        with pytest.raises(IntegrityError, match="99"):
            writer.index_run("u2", *wrong, "scan")
    assert len(Index(path)) == 1


def test_w41_many_writers_at_once(path: Path) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            writer = IndexWriter(path, timeout=60)
            ada = writer.register_researcher("Ada", "/data")
            beamtime = writer.register_beamtime(ada, "b", "/data/a.db")
            for run in range(5):
                writer.index_run(f"{number}-{run}", ada, beamtime, "scan")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(Index(path)) == 20
    assert rows(path, "SELECT count(*) FROM researchers") == [(1,)]


# -------------------------------------------------------------------------- searching


@pytest.fixture
def three(tmp_path: Path, path: Path) -> dict[str, list[str]]:
    """Three beamtimes in folders, all indexed."""
    uids: dict[str, list[str]] = {}
    for name, sample in (("a", "LaB6"), ("b", "CeO2"), ("c", "LaB6")):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        uids[name] = make_beamtime(
            folder / f"{name}.db",
            sample,
            optics={"energy": 12.5},
            operator="Zoë",
            tags=["ref", name],
        )
    (tmp_path / "data" / "other.db").write_bytes(b"no beamtime")
    Index(path).refresh(tmp_path / "data")
    return uids


def test_every_condition_of_a_beamtime(path: Path, three: dict[str, list[str]]) -> None:
    index = Index(path)

    def found(**conditions: Any) -> set[str]:
        return {row.uid for row in index.search(**conditions)}

    everything = {uid for uids in three.values() for uid in uids}
    assert found() == everything
    assert len(index) == 6
    assert found(sample="CeO2") == set(three["b"])
    assert found(plan_name="scan") == {uids[1] for uids in three.values()}
    assert found(beamtime="c") == set(three["c"])
    assert found(beamtime=path.parent / "data" / "c" / "c.db") == set(three["c"])
    assert found(text="zoë") == everything
    assert found(text="ZO") == everything
    assert found(text="nowhere") == set()
    assert found(tags=["ref", "a"]) == set(three["a"])
    assert found(**{"optics.energy": 12.5}) == everything
    assert found(user="Zoë") == everything
    assert found(exit_status="fail") == set()
    assert found(since=0, until="2001-01-01") == set()
    assert found(scan_id=2, sample="LaB6") == {three["a"][1], three["c"][1]}
    assert found(starred=True) == set()


def test_researcher_of_beamtimes(tmp_path: Path, path: Path, three: Any) -> None:
    writer = IndexWriter(path)
    ada = writer.register_researcher("Ada", tmp_path, orcid=ORCID, email="a@x.org")
    Index(path).refresh(tmp_path / "data" / "b", researcher=ada)
    for name in ("Ada", ORCID, "a@x.org"):
        assert {row.uid for row in Index(path).search(researcher=name)} == {*three["b"]}
    assert len(Index(path).search(researcher="Bob")) == 0


def test_rows_are_lazy_sized_and_sliceable(path: Path, three: Any) -> None:
    found = Index(path).search()
    newest_first = [row.uid for row in found]
    times = [row.time for row in found]
    assert times == sorted(times, reverse=True)
    assert [row.uid for row in found[:2]] == newest_first[:2]
    assert [row.uid for row in found[1::2]] == newest_first[1::2]
    assert [row.uid for row in found[::-1]] == newest_first[::-1]
    assert found[-1].uid == newest_first[-1]
    assert found
    with pytest.raises(IndexError):
        found[6]
    IndexWriter(path).index_run("new", None, 1, "scan", time_start=time.time() + 10)
    assert found[0].uid == "new"
    assert len(found) == 7


def test_row_opens_its_run(path: Path, three: Any) -> None:
    (row,) = Index(path).search(sample="CeO2", plan_name="scan")
    assert row.available
    run = row.open()
    gc.collect()
    assert run.uid == row.uid
    assert run["primary"].read()["x"].values.tolist() == [1]
    assert json.loads(json.dumps(row.summary()))["available"] is True


def test_row_whose_disk_is_absent(tmp_path: Path, path: Path, three: Any) -> None:
    shutil.move(tmp_path / "data" / "b", tmp_path / "away")
    (row,) = Index(path).search(sample="CeO2", plan_name="scan")
    assert not row.available
    assert row.scan_id == 2
    with pytest.raises(BeamtimeFileError, match="connect the disk"):
        row.open()
    # It was moved: the index is told, and forgets the old place.
    Index(path).refresh(tmp_path / "away")
    (row,) = Index(path).search(sample="CeO2", plan_name="scan")
    assert row.available
    assert row.open().uid == three["b"][1]


def test_row_of_a_run_that_is_gone(tmp_path: Path, path: Path, three: Any) -> None:
    file = tmp_path / "data" / "b" / "b.db"
    file.unlink()
    make_beamtime(file)
    with pytest.raises(RunNotFoundError, match=three["b"][1]):
        Index(path).search(sample="CeO2")[0].open()


def test_refresh_may_be_repeated(tmp_path: Path, path: Path, three: Any) -> None:
    index = Index(path)
    before = [row.summary() for row in index.search()]
    found = index.refresh(tmp_path / "data")
    assert [row.summary() for row in index.search()] == before
    assert sorted(found.values()) == [2, 2, 2]
    # Labels of old runs, and new runs, come too.
    with Beamtime(tmp_path / "data" / "a" / "a.db") as beamtime:
        beamtime[1].tag("later")
    make_beamtime(tmp_path / "data" / "a" / "a.db", runs=1)
    index.refresh(tmp_path / "data" / "a" / "a.db")
    assert [row.uid for row in index.search(tags="later")] == [three["a"][0]]
    assert len(index) == 7


def test_refresh_names_what_cannot_be_read(tmp_path: Path, path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    make_beamtime(folder / "good.db")
    make_beamtime(folder / "newer.db")
    with closing(sqlite3.connect(folder / "newer.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    found = Index(path).refresh(folder)
    assert found[folder / "good.db"] == 2
    assert isinstance(found[folder / "newer.db"], NewerVersionError)
    with pytest.raises(BeamtimeFileError):
        Index(path).refresh(tmp_path / "nowhere")


def test_index_that_is_not_there(path: Path) -> None:
    assert "all.index" in repr(Index(path))
    with pytest.raises(BeamtimeFileError, match="beamtime index refresh"):
        list(Index(path).search())


# ------------------------------------------------------------------------- following


def test_beamtime_tells_its_index(tmp_path: Path, path: Path) -> None:
    index = Index(path)
    with Beamtime(tmp_path / "a.db", index=path) as beamtime:
        record(beamtime, "first", ended=False)
        until(lambda: path.exists() and len(index) == 1)
        assert index.search()[0].exit_status is None
        stop(beamtime, "first")
        until(lambda: index.search()[0].exit_status == "success")
        record(beamtime, "second")
    assert [row.uid for row in index.search()] == ["second", "first"]


def test_beamtime_registers_its_researcher(tmp_path: Path, path: Path) -> None:
    with Beamtime(tmp_path / "a.db") as beamtime:
        record(beamtime, "first")
        beamtime.register(path, researcher="Ada", label="November")
    (row,) = Index(path).search(researcher="Ada", beamtime="November")
    assert row.uid == "first"


def test_locked_index_costs_and_loses_nothing(tmp_path: Path, path: Path) -> None:
    IndexWriter(path).ensure_schema()
    with closing(sqlite3.connect(path, isolation_level=None)) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        with Beamtime(tmp_path / "a.db", index=path) as beamtime:
            took = [record(beamtime, f"r{number}") for number in range(30)]
            # Had a document waited, it would have been for the lock: seconds.
            assert sorted(took)[15] < 0.5
            locker.execute("ROLLBACK")
            until(lambda: len(Index(path)) == 30)
    assert len(Index(path).search(exit_status="success")) == 30


@pytest.mark.filterwarnings("ignore::bluesky_beamtime.BeamtimeWarning")
def test_deleted_index_is_made_anew(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    path = disk / "all.index"
    with Beamtime(tmp_path / "a.db", index=path) as beamtime:
        record(beamtime, "first")
        until(lambda: path.exists() and len(Index(path)) == 1)
        # At once, whatever the thread that writes there is at.
        disk.rename(tmp_path / "gone")
        shutil.rmtree(tmp_path / "gone", ignore_errors=True)
        record(beamtime, "second")
        disk.mkdir()
        record(beamtime, "third")
    assert {row.uid for row in Index(path).search()} == {"first", "second", "third"}


def test_absent_index_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "disk" / "all.index"
    said = "does not hear of the runs"
    beamtime = Beamtime(tmp_path / "a.db", index=path)
    for number in range(5):
        record(beamtime, f"r{number}")
        until(lambda: said in caplog.text)
    beamtime.close()
    assert caplog.text.count(said) == 1
    # Caught up by the next one that finds the disk.
    path.parent.mkdir()
    with Beamtime(tmp_path / "a.db", index=path):
        until(lambda: path.exists() and len(Index(path)) == 5)


def test_index_that_is_another_file_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("keep me" * 100)
    with Beamtime(tmp_path / "a.db", index=other) as beamtime:
        record(beamtime, "first")
        until(lambda: "not an index" in caplog.text)
        assert beamtime[-1].uid == "first"
    assert other.read_text() == "keep me" * 100


def test_file_that_took_the_place_of_another(tmp_path: Path, path: Path) -> None:
    with Beamtime(tmp_path / "a.db", index=path) as beamtime:
        for number in range(3):
            record(beamtime, f"old{number}")
    (tmp_path / "a.db").unlink()
    with Beamtime(tmp_path / "a.db", index=path) as beamtime:
        record(beamtime, "new")
    assert "new" in {row.uid for row in Index(path).search()}


def test_forgotten_beamtime_is_collected(tmp_path: Path, path: Path) -> None:
    beamtime = Beamtime(tmp_path / "a.db", index=path)
    record(beamtime, "first")
    del beamtime
    gc.collect()
    until(lambda: all(t.name != "beamtime-index" for t in threading.enumerate()))
    assert len(Index(path)) == 1


def record(beamtime: Beamtime, uid: str, *, ended: bool = True) -> float:
    """Record a run; returns the seconds that it took."""
    began = time.perf_counter()
    beamtime("start", {"uid": uid, "time": time.time(), "plan_name": "count"})
    if ended:
        stop(beamtime, uid)
    return time.perf_counter() - began


def stop(beamtime: Beamtime, uid: str) -> None:
    beamtime(
        "stop",
        {
            "uid": f"{uid}-stop",
            "run_start": uid,
            "time": time.time(),
            "exit_status": "success",
        },
    )
