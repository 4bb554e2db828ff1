"""Threads, transactions, durability, forks."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from bluesky_beamtime.database import Database, durability, schema, statements
from bluesky_beamtime.errors import (
    DatabaseError,
    DatabaseWriteError,
    DocumentError,
    IntegrityError,
)


def run_row(uid: str) -> tuple[object, ...]:
    return (uid, None, 1, "count", 1.0, "{}", "{}", None)


def count(database: Database) -> int:
    with database.reading() as connection:
        query = select(func.count()).select_from(schema.runs)
        return connection.execute(query).scalar_one()


def test_an_insert_is_seen_by_everybody_at_once(
    database: Database, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as other:
        for number in range(5):
            assert database.insert(statements.INSERT_RUN, run_row(str(number)))
            assert other.execute("SELECT count(*) FROM runs").fetchone() == (
                number + 1,
            )
            assert count(database) == number + 1


def test_what_is_there_already_is_left_alone(database: Database) -> None:
    assert database.insert(statements.INSERT_RUN, run_row("a"))
    assert not database.insert(statements.INSERT_RUN, ("a", None, 2, *run_row("a")[3:]))
    with database.reading() as connection:
        assert connection.execute(select(schema.runs.c.scan_id)).scalars().all() == [1]


def test_a_transaction_is_all_or_nothing_and_nests(database: Database) -> None:
    with pytest.raises(KeyError), database.inserting() as outer:
        outer.execute(statements.INSERT_RUN, run_row("a"))
        with database.inserting() as inner:
            inner.execute(statements.INSERT_RUN, run_row("b"))
        with database.writing() as connection:
            connection.execute(
                schema.runs.insert().values(uid="c", metadata="", start="")
            )
        raise KeyError
    assert count(database) == 0
    with database.inserting() as outer:
        outer.execute(statements.INSERT_RUN, run_row("a"))
        with database.writing() as connection:
            connection.execute(
                schema.runs.insert().values(uid="c", metadata="", start="")
            )
    assert count(database) == 2


def test_a_reader_sees_nothing_of_a_transaction_that_is_open(
    database: Database,
) -> None:
    with database.inserting() as cursor:
        cursor.execute(statements.INSERT_RUN, run_row("a"))
        assert count(database) == 0
    assert count(database) == 1


def test_sqlite_errors_become_ours(database: Database) -> None:
    stream = ("s", "nobody", "primary", "{}", 1.0, "{}", 1)
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        database.insert(statements.INSERT_STREAM, stream)
    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.execute(schema.runs.insert().values(uid=None, metadata="", start=""))
    with pytest.raises(DatabaseError), database.reading() as connection:
        connection.exec_driver_sql("SELECT * FROM nothing")
    with pytest.raises(DatabaseError):
        database.insert(statements.INSERT_RUN, (object(), *run_row("a")[1:]))
    # It goes on working.
    assert database.insert(statements.INSERT_RUN, run_row("a"))
    assert issubclass(IntegrityError, sqlite3.IntegrityError)
    assert issubclass(DocumentError, ValueError)


def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseError), database.reading() as connection:
        connection.execute(schema.runs.insert().values(uid="a", metadata="", start=""))


def test_threads_share_it(database: Database) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(50):
                database.insert(statements.INSERT_RUN, run_row(f"{number}-{step}"))
                assert count(database) >= step + 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert count(database) == 300


def test_another_writer_is_waited_for(database: Database, tmp_path: Path) -> None:
    database.insert(statements.INSERT_RUN, run_row("a"))
    other = sqlite3.connect(
        tmp_path / "x.db", isolation_level=None, check_same_thread=False
    )
    other.execute("BEGIN IMMEDIATE")
    started = threading.Event()

    def insert() -> None:
        started.set()
        database.insert(statements.INSERT_RUN, run_row("b"))

    thread = threading.Thread(target=insert)
    thread.start()
    started.wait()
    other.execute("INSERT INTO runs (uid, metadata, start) VALUES ('c', '', '')")
    other.execute("COMMIT")
    thread.join()
    other.close()
    assert count(database) == 3


def test_a_lock_that_is_never_released_is_named(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.insert(statements.INSERT_RUN, run_row("a"))
    with database.inserting() as cursor:
        cursor.execute(statements.INSERT_RUN, run_row("x"))
    # Neither SQLite nor the loop around it waits long here.
    database._connections.cursor().execute("PRAGMA busy_timeout = 1")
    monkeypatch.setattr(
        "bluesky_beamtime.database.connect.time.monotonic", _fast_clock()
    )
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseWriteError, match=r"locked.*close the program"):
            database.insert(statements.INSERT_RUN, run_row("b"))
        other.execute("ROLLBACK")
    assert database.insert(statements.INSERT_RUN, run_row("b"))


def _fast_clock():
    ticks = iter(range(0, 10**9, 60))
    return lambda: next(ticks)


@pytest.mark.parametrize(("kind", "level"), [("kill", 1), ("power", 2)])
def test_durability_is_synchronous(tmp_path: Path, kind: str, level: int) -> None:
    database = Database(tmp_path / "x.db", durability=kind)
    with database.inserting() as cursor:
        assert cursor.execute("PRAGMA synchronous").fetchone() == (level,)
        assert cursor.execute("PRAGMA foreign_keys").fetchone() == (1,)
    database.close()


def test_the_log_is_fsynced_soon_after_each_commit(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[float, str]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append((time.monotonic(), os.readlink(f"/proc/self/fd/{fd}")))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    for number in range(3):
        before = time.monotonic()
        database.insert(statements.INSERT_RUN, run_row(str(number)))
        while not (synced and synced[-1][0] >= before):
            assert time.monotonic() < before + 10
            time.sleep(0.001)
    assert {path for _, path in synced} == {str(tmp_path / "x.db-wal")}


def test_others_may_be_synced_with_it(database: Database) -> None:
    done = threading.Event()
    database.insert(statements.INSERT_RUN, run_row("a"))
    database.also_sync(done.set)
    database.insert(statements.INSERT_RUN, run_row("b"))
    assert done.wait(10)
    database.forget_sync(done.set)


def test_the_log_begins_anew_while_somebody_records(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size depends on how slow the disk is; that it begins anew does not."""
    monkeypatch.setattr(durability, "_COMMITS_PER_CHECKPOINT", 100)
    monkeypatch.setattr(durability, "_LONG_LOG", 200)

    def times_begun() -> int:
        with (tmp_path / "x.db-wal").open("rb") as log:
            return int.from_bytes(log.read(16)[12:])

    database.insert(statements.INSERT_RUN, run_row("first"))
    with database.inserting() as cursor:
        # SQLite itself would step in at 16 000 pages.
        cursor.execute("PRAGMA wal_autocheckpoint = 0")
    before, inserted = times_begun(), 1
    deadline = time.monotonic() + 100
    while times_begun() < before + 3:
        assert time.monotonic() < deadline
        for _ in range(100):
            database.insert(statements.INSERT_RUN, run_row(str(inserted)))
            inserted += 1
    assert count(database) == inserted


def test_closing_leaves_the_file_alone(database: Database, tmp_path: Path) -> None:
    database.insert(statements.INSERT_RUN, run_row("a"))
    count(database)
    threads = {thread.name for thread in threading.enumerate()}
    assert "beamtime-sync-x.db" in threads
    database.close()
    assert os.listdir(tmp_path) == ["x.db"]
    assert "beamtime-sync-x.db" not in {t.name for t in threading.enumerate()}


def test_a_database_that_is_dropped_closes_itself(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    database.insert(statements.INSERT_RUN, run_row("a"))
    del database
    gc.collect()
    assert os.listdir(tmp_path) == ["x.db"]


def _in_child(database: Database, results: multiprocessing.Queue[object]) -> None:
    try:
        database.insert(statements.INSERT_RUN, run_row("child"))
        results.put(count(database))
        database.close()
    except BaseException as error:
        results.put(repr(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(database: Database) -> None:
    database.insert(statements.INSERT_RUN, run_row("a"))
    count(database)
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[object] = context.Queue()
    child = context.Process(target=_in_child, args=(database, results))
    child.start()
    assert results.get(timeout=60) == 2
    child.join()
    assert child.exitcode == 0
    results.close()
    results.join_thread()
    for _ in range(20):
        database.insert(statements.INSERT_RUN, run_row(str(uuid.uuid4())))
    assert count(database) == 22
