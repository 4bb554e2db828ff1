"""Rows in the tables of a SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bluesky_beamtime.sinks.append_file import check_choice, refuse_existing
from bluesky_beamtime.sinks.base import ThreadedSink, logger
from bluesky_beamtime.sinks.block_rows import block_values, summary_values
from bluesky_beamtime.sinks.columns import Columns, SchemaPolicy
from bluesky_beamtime.sinks.layout import BLOCK_COLUMNS, SUMMARY_COLUMNS
from bluesky_beamtime.sinks.misuse import check_block, checked_readings
from bluesky_beamtime.sinks.network import is_network_disk
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading
from bluesky_beamtime.sinks.rows import Batch, reading_batches
from bluesky_beamtime.sinks.sql import (
    check_identifier,
    check_word,
    define,
    mended,
    quote,
)
from bluesky_beamtime.sinks.texts import as_text
from bluesky_beamtime.sqlite_locks import LockingConnection

_JOURNAL_MODES = ("DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL", "OFF")
_SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


class SqliteSink(ThreadedSink):
    """Writes readings as rows of a table, and one row about each block.

    Each call is one transaction: all of it or nothing. When :meth:`write_many` returns,
    its rows survive ``kill -9``; after :meth:`flush` or :meth:`close` they survive a
    power cut, with ``synchronous="FULL"`` at once. Values are bound, names quoted.

    SQLite has no NaN: it becomes NULL. A number of more than 64 bits becomes text, with
    all its digits, and half of a surrogate pair its escape. Channels have columns
    without a type, so that integers and floats stay what they are.

    :meth:`write` stores what a block *was* (its channels, times and counts). Its
    samples are stored with ``samples=True`` only, in a table of their own; without it
    a warning in the log says so once.

    Parameters
    ----------
    path
        The file; its folder is made. One that is there is refused, unless ``append`` or
        ``overwrite`` is set.
    table_readings, table_blocks, table_samples
        Names of the tables, which are made when they are first written to.
    journal_mode
        SQLite's; ``"WAL"`` lets others read meanwhile. On a network disk, where it is
        not safe, ``"DELETE"`` takes its place.
    synchronous
        SQLite's; ``"NORMAL"`` is safe from anything but a power cut.
    busy_timeout_ms
        How long to wait for another writer.
    samples
        Store each sample of each block as well.
    schema
        What a row with a new column does: ``"evolve"`` adds it, ``"drop"`` leaves it
        out with one warning, ``"raise"`` refuses the batch.
    append
        Go on in a file that is there, in its tables if it has them.
    overwrite
        Begin these tables anew; others in the file stay.
    """

    kind = "sqlite"

    def __init__(
        self,
        path: str | Path,
        *,
        table_readings: str = "readings",
        table_blocks: str = "blocks",
        table_samples: str = "samples",
        journal_mode: str = "WAL",
        synchronous: str = "NORMAL",
        busy_timeout_ms: int = 5000,
        samples: bool = False,
        schema: SchemaPolicy = "evolve",
        append: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        check_choice(append, overwrite)
        self._path = Path(path)
        self._names = {
            "readings": check_identifier(table_readings, "table_readings"),
            "blocks": check_identifier(table_blocks, "table_blocks"),
            "samples": check_identifier(table_samples, "table_samples"),
        }
        if len({name.casefold() for name in self._names.values()}) < 3:
            raise ValueError(
                f"two of the tables {', '.join(self._names.values())} have one name"
            )
        self._journal_mode = check_word("journal_mode", journal_mode, _JOURNAL_MODES)
        self._synchronous = check_word("synchronous", synchronous, _SYNCHRONOUS)
        if busy_timeout_ms < 0:
            raise ValueError(f"busy_timeout_ms must be >= 0, got {busy_timeout_ms!r}")
        self._busy_timeout_ms = int(busy_timeout_ms)
        self._samples = samples
        self._append, self._overwrite = append, overwrite
        self._tables = {
            kind: Columns(schema, f"table {name!r} of {self._path}")
            for kind, name in self._names.items()
        }
        self._connection: sqlite3.Connection | None = None
        self._statements: dict[str, str] = {}
        self._schema_version: int | None = None
        self._rows_written = 0
        self._warned = False

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def target(self) -> str:
        """The file, as text."""
        return str(self._path)

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns of readings so far; None before the first."""
        names = self._tables["readings"].names
        return None if names is None else tuple(names)

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Write readings, one row each: all of them, or none and an error.

        Raises
        ------
        SinkStateError
            It is not open.
        SinkSchemaError
            They do not fit the table.
        SinkWriteError
            SQLite refused.
        """
        items = checked_readings(self, items)
        await self._work("write_many", self._write_readings, items, records=items)

    async def write(self, block: DaqBlock) -> None:
        """Write one row about a block; with ``samples=True`` its samples too.

        Raises
        ------
        SinkStateError
            It is not open.
        SinkSchemaError
            It does not fit the table.
        SinkWriteError
            SQLite refused.
        """
        check_block(self, "write", block)
        await self._work("write", self._write_block, block, records=[block])

    # ------------------------------------------------------------------------ work

    def _open(self, again: bool) -> None:
        keep = again or self._append
        refuse_existing(
            self._path, "SqliteSink", append=keep, overwrite=self._overwrite
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path,
            isolation_level=None,
            check_same_thread=False,
            factory=LockingConnection,
        )
        try:
            with suppress(FileNotFoundError):  # of one in memory
                connection.keep_locks(self._path)
            self._prepare(connection, keep)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _prepare(self, connection: sqlite3.Connection, keep: bool) -> None:
        connection.execute(f"PRAGMA busy_timeout = {self._busy_timeout_ms}")
        mode = self._journal_mode
        if mode == "WAL" and is_network_disk(self._path):
            mode = "DELETE"
            extra = {"path": str(self._path)}
            logger.warning("sinks.sqlite.network_disk_without_wal", extra=extra)
        connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        if not keep:
            connection.execute("BEGIN IMMEDIATE")
            for name in self._names.values():
                connection.execute(f"DROP TABLE IF EXISTS {quote(name)}")
            connection.execute("COMMIT")
        self._look(connection)

    def _look(self, connection: sqlite3.Connection) -> None:
        """Learn which tables and columns are there, if any have changed."""
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        if version == self._schema_version:
            return
        self._schema_version = version
        self._statements.clear()
        for kind, name in self._names.items():
            found = connection.execute(f"PRAGMA table_info({quote(name)})").fetchall()
            columns = self._tables[kind]
            columns.add(())
            columns.names = [row[1] for row in found] or None

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _flush(self) -> None:
        assert self._connection is not None
        busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        if busy:
            # Somebody reads what is older; what was written is in the log then.
            with open(f"{self._path}-wal", "rb") as log:
                os.fsync(log.fileno())

    def _counts(self) -> dict[str, Any]:
        return {"rows_written": self._rows_written}

    def _write_readings(self, readings: list[DaqReading]) -> None:
        if readings:
            self._insert({"readings": reading_batches(readings, text=True)})

    def _write_block(self, block: DaqBlock) -> None:
        summary = tuple(map(as_text, summary_values(block)))
        batches = {"blocks": [Batch(SUMMARY_COLUMNS, [summary])]}
        if self._samples:
            rows = list(block_values(block))
            batches["samples"] = [Batch(BLOCK_COLUMNS, rows)]
        elif not self._warned:
            self._warned = True
            extra = {"path": str(self._path), "table": self._names["blocks"]}
            logger.warning("sinks.sqlite.samples_not_stored", extra=extra)
        self._insert(batches)

    def _insert(self, batches: dict[str, list[Batch]]) -> None:
        connection = self._connection
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another sink may have added to the tables since.
            self._look(connection)
            for kind, each in batches.items():
                self._make_place(connection, kind, each)
                for batch in each:
                    self._insert_batch(connection, kind, batch)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            # What was added to them is not there.
            self._schema_version = None
            raise
        self._rows_written += sum(
            len(batch.rows) for each in batches.values() for batch in each
        )

    def _make_place(
        self, connection: sqlite3.Connection, kind: str, batches: list[Batch]
    ) -> None:
        """Add a table, or the columns that it lacks."""
        columns, table = self._tables[kind], quote(self._names[kind])
        first = columns.names is None
        new = columns.learn(batch.columns for batch in batches)
        if first:
            defined = ", ".join(define(name) for name in new)
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({defined})")
        else:
            for name in new:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {define(name)}")
        if new:
            self._statements.pop(kind, None)

    def _insert_batch(
        self, connection: sqlite3.Connection, kind: str, batch: Batch
    ) -> None:
        columns, table = self._tables[kind], quote(self._names[kind])
        rows = columns.fit(batch.columns, batch.rows)
        statement = self._statements.get(kind)
        if statement is None:
            names = columns.names or []
            listed = ", ".join(map(quote, names))
            marks = ", ".join("?" * len(names))
            statement = f"INSERT INTO {table} ({listed}) VALUES ({marks})"
            self._statements[kind] = statement
        connection.execute("SAVEPOINT batch")
        try:
            connection.executemany(statement, rows)
        except (OverflowError, UnicodeEncodeError):
            connection.execute("ROLLBACK TO batch")
            connection.executemany(statement, mended(rows))
        connection.execute("RELEASE batch")
