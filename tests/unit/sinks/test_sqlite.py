"""Rows in SQLite, D-45 to D-54."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import SinkSchemaError, SinkWriteError
from bluesky_beamtime.sinks import DaqBlock, DaqReading, SqliteSink, block_to_summary
from bluesky_beamtime.sinks.network import is_network_disk


def reading(number: int, **values: Any) -> DaqReading:
    return DaqReading(device="d", values={"n": number, **values}, t_mono_ns=number)


def block(number: int = 0) -> DaqBlock:
    return DaqBlock(
        device="d",
        channels=("a,b", "c"),
        data=np.arange(6).reshape(2, 3),
        block_index=number,
        t_mono_ns=1,
        block_period_ns=1,
    )


def ask(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


async def test_D_45_tables_come_with_the_first_write_of_their_kind(
    tmp_path: Path,
) -> None:
    """D-45: and the file is in the mode that was asked for."""
    async with SqliteSink(tmp_path / "x.db") as sink:
        assert ask(sink.path, "SELECT name FROM sqlite_master") == []
        await sink.write_many([reading(1)])
        assert ask(sink.path, "SELECT name FROM sqlite_master") == [("readings",)]
        assert ask(sink.path, "PRAGMA journal_mode") == [("wal",)]
        await sink.write(block())
        assert len(ask(sink.path, "SELECT name FROM sqlite_master")) == 2
        await sink.flush()
        connection = sink._connection
        assert connection is not None
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (5000,)
    async with SqliteSink(
        tmp_path / "y.db", table_readings="r", journal_mode="delete"
    ) as sink:
        await sink.write_many([reading(1)])
    assert ask(sink.path, "SELECT name FROM sqlite_master") == [("r",)]
    assert ask(sink.path, "PRAGMA journal_mode") == [("delete",)]


async def test_D_45_no_write_ahead_log_on_a_network_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-45: where it is not safe."""
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path}/a\\040b nfs4 rw 0 0\n"
        f"/dev/sdb1 {tmp_path}/a\\040b/local xfs rw 0 0\n"
    )
    assert is_network_disk(tmp_path / "a b" / "x.db", mounts)
    assert not is_network_disk(tmp_path / "a b" / "local" / "x.db", mounts)
    assert not is_network_disk(tmp_path / "x.db", mounts)
    assert not is_network_disk(tmp_path / "x.db", tmp_path / "absent")
    monkeypatch.setattr(
        "bluesky_beamtime.sinks.sqlite.is_network_disk", lambda path: True
    )
    async with SqliteSink(tmp_path / "x.db") as sink:
        await sink.write_many([reading(1)])
    assert ask(sink.path, "PRAGMA journal_mode") == [("delete",)]


@pytest.mark.parametrize(
    "options",
    [
        {"table_readings": "a;drop"},
        {"table_blocks": "1a"},
        {"table_samples": "x" * 64},
        {"table_readings": "same", "table_blocks": "SAME"},
        {"busy_timeout_ms": -1},
        {"journal_mode": "WAL; DROP TABLE readings"},
        {"synchronous": "maybe"},
        {"schema": "other"},
    ],
)
def test_D_46_D_47_what_would_become_sql_is_checked_when_it_is_given(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """D-46, D-47: with its name in the text."""
    with pytest.raises(ValueError, match=f"{next(iter(options))}|one name"):
        SqliteSink(tmp_path / "x.db", **options)


async def test_D_49_a_call_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    """D-49: rolled back with the columns it added, and the sink goes on."""
    async with SqliteSink(tmp_path / "x.db") as sink:
        await sink.write_many([reading(1)])
        refuse = (
            "BEFORE INSERT ON readings WHEN new.n = 3 BEGIN SELECT raise(ABORT, 'n')"
        )
        ask(sink.path, f"CREATE TRIGGER three {refuse}; END")
        with pytest.raises(SinkWriteError) as caught:
            await sink.write_many([reading(2, new=1), reading(3, bad="x")])
        assert len(caught.value.records) == 2
        assert ask(sink.path, "SELECT n FROM readings") == [(1,)]
        await sink.write_many([reading(4, new=5)])
        assert ask(sink.path, "SELECT n, new FROM readings") == [(1, None), (4, 5)]


async def test_D_49_concurrent_writes_take_turns(tmp_path: Path) -> None:
    """D-49: readings and blocks at once, through one connection."""
    async with SqliteSink(tmp_path / "x.db") as sink:
        await asyncio.gather(
            *(sink.write_many([reading(n)]) for n in range(30)),
            *(sink.write(block(n)) for n in range(30)),
        )
    assert ask(sink.path, "SELECT count(*) FROM readings") == [(30,)]
    assert ask(sink.path, "SELECT count(*) FROM blocks") == [(30,)]


async def test_D_49_another_writer_is_waited_for_then_named(tmp_path: Path) -> None:
    """D-47, D-49: the file is locked by somebody else."""
    async with SqliteSink(tmp_path / "x.db", busy_timeout_ms=10) as sink:
        await sink.write_many([reading(1)])
        with closing(sqlite3.connect(sink.path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(SinkWriteError, match="locked") as caught:
                await sink.write_many([reading(2)])
            other.rollback()
        await sink.write_many(caught.value.records)
    assert ask(sink.path, "SELECT n FROM readings") == [(1,), (2,)]


async def test_D_50_values_are_never_sql(tmp_path: Path) -> None:
    """D-50: stored to the letter; numbers beyond 64 bits with all their digits."""
    text = "'); DROP TABLE readings; --"
    async with SqliteSink(tmp_path / "x.db") as sink:
        await sink.write_many([reading(2**63, text=text), reading(-(2**63), text="")])
    found = ask(sink.path, "SELECT n, text FROM readings")
    assert found == [(str(2**63), text), (-(2**63), "")]


async def test_D_51_a_block_is_one_row_about_it_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D-51: who wants the samples is told how to get them, once."""
    async with SqliteSink(tmp_path / "x.db") as sink:
        await sink.write(block(0))
        await sink.write(block(1))
    with closing(sqlite3.connect(sink.path)) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM blocks")]
    wanted = block_to_summary(block(0))
    assert {**rows[0], "t_utc": None} == {**wanted, "t_utc": None}
    assert len(rows) == 2
    warned = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert warned == ["sinks.sqlite.samples_not_stored"]


async def test_D_13_samples_are_stored_when_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D-13, D-51: beside the row about the block, in one transaction."""
    async with SqliteSink(tmp_path / "x.db", samples=True) as sink:
        await sink.write(block())
    found = ask(sink.path, "SELECT channel, value, t_mono_ns FROM samples")
    assert found == [
        ("a,b", 0, 1),
        ("a,b", 1, 2),
        ("a,b", 2, 3),
        ("c", 3, 1),
        ("c", 4, 2),
        ("c", 5, 3),
    ]
    assert ask(sink.path, "SELECT count(*) FROM blocks") == [(1,)]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_D_53_a_table_that_is_there_keeps_its_columns(tmp_path: Path) -> None:
    """D-53: older columns stay, new ones are added, or refused with their name."""
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE readings (own INTEGER, device TEXT, n)")
        database.execute("INSERT INTO readings VALUES (7, 'old', 0)")
        database.execute("CREATE TABLE other (x)")
        database.commit()
    async with SqliteSink(path, append=True, schema="raise") as sink:
        with pytest.raises(SinkSchemaError, match="'task'"):
            await sink.write_many([reading(1)])
    async with SqliteSink(path, append=True) as sink:
        await sink.write_many([reading(1)])
    found = ask(path, "SELECT own, device, n, t_mono_ns FROM readings")
    assert found == [(7, "old", 0, None), (None, "d", 1, 1)]
    async with SqliteSink(path, overwrite=True) as sink:
        await sink.write_many([reading(2)])
    assert ask(path, "SELECT n FROM readings") == [(2,)]
    # Tables that are none of the sink's stay.
    assert ask(path, "SELECT count(*) FROM other") == [(0,)]


async def test_D_54_path_and_a_file_that_is_no_database(tmp_path: Path) -> None:
    """D-54: whatever the path was given as; other files are left alone."""
    sink = SqliteSink(str(tmp_path / "x.db"))
    assert sink.path == tmp_path / "x.db"
    await sink.close()
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(SinkWriteError, match="not a database"):
        await SqliteSink(tmp_path / "text", append=True).open()
    assert (tmp_path / "text").read_text() == "no database " * 100
