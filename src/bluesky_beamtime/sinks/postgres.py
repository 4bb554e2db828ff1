"""Rows in the tables of a PostgreSQL database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import TracebackType
from typing import Any, NoReturn, Self

from bluesky_beamtime.errors import (
    ErrorContext,
    SinkDependencyError,
    SinkError,
    SinkSchemaError,
    SinkStateError,
    SinkWriteError,
)
from bluesky_beamtime.sinks.base import logger
from bluesky_beamtime.sinks.block_rows import block_values, summary_values
from bluesky_beamtime.sinks.columns import SchemaPolicy
from bluesky_beamtime.sinks.layout import BLOCK_COLUMNS, SUMMARY_COLUMNS
from bluesky_beamtime.sinks.misuse import AsyncOnly, check_block, checked_readings
from bluesky_beamtime.sinks.postgres_calls import Batches, PostgresCalls
from bluesky_beamtime.sinks.postgres_config import (
    PostgresConfig,
    cleaned,
    connect,
    shown,
)
from bluesky_beamtime.sinks.postgres_types import sample_type
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading
from bluesky_beamtime.sinks.rows import Batch, reading_batches


class PostgresSink(AsyncOnly):
    """Writes readings as rows of a table, and one row about each block.

    Each call is one transaction: when :meth:`write_many` returns, its rows are
    committed. Calls from several tasks are carried out one after the other, in their
    order. Values are bound or sent by COPY in binary, names quoted; where the server
    refuses COPY, as for a table with row security, INSERT takes its place. Times are
    ``timestamptz``; whole numbers ``bigint``, floats ``double precision``. In text,
    half of a surrogate pair becomes its escape, and a zero ``␀``.

    With ``create_tables=True`` tables are made when they are first written to, and a
    column whose type changes gets one that holds every value. Without it the tables
    must be there: their columns decide, and the role needs no right but to insert. A
    reading with a column that is not there is then refused, or loses it with
    ``schema="drop"``.

    :meth:`write` stores what a block *was*. Its samples are stored with
    ``samples=True`` only, in a table of their own; without it a warning in the log says
    so once.

    It belongs to the event loop in which it was opened.

    Parameters
    ----------
    config
        Where to write to.
    schema
        What a row with a new column does: ``"evolve"`` adds it, ``"drop"`` leaves it
        out with one warning, ``"raise"`` refuses the batch.
    samples
        Store each sample of each block as well.
    """

    kind = "postgres"

    def __init__(
        self,
        config: PostgresConfig,
        *,
        schema: SchemaPolicy = "evolve",
        samples: bool = False,
    ) -> None:
        self._config = config
        self._samples = samples
        self._calls = PostgresCalls(config, schema)
        self._pool: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._was_open = False
        self._warned = False
        self._rows_written = 0

    @property
    def config(self) -> PostgresConfig:
        """Where it writes to."""
        return self._config

    @property
    def target(self) -> str:
        """The server, the database and the schema, without a password."""
        return self._config.target()

    @property
    def is_open(self) -> bool:
        """Whether it takes records."""
        return self._pool is not None

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns of readings so far; None before the first."""
        names = self._calls.tables["readings"].columns.names
        return None if names is None else tuple(names)

    # ----------------------------------------------------------------------- life

    async def open(self) -> None:
        """Connect; nothing if it is open.

        Raises
        ------
        SinkDependencyError
            `asyncpg` is not installed.
        SinkWriteError
            The server cannot be reached, or refuses.
        SinkSchemaError
            There are none of the tables, and ``create_tables`` is not set.
        """
        async with self._opening:
            if self._pool is None:
                await self._open()

    async def _open(self) -> None:
        try:
            driver: Any = import_module("asyncpg")
        except ImportError as error:
            context = ErrorContext("PostgresSink.open", self.target)
            raise SinkDependencyError(
                "PostgresSink", "asyncpg", "postgres", context=context
            ) from error
        # A lock belongs to the loop in which somebody first waited for it.
        self._turn = asyncio.Lock()
        tables = self._calls.tables.values()
        pool: Any = None
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                pool = await connect(driver, self._config)
            async with pool.acquire() as connection:
                await self._calls.look(connection)
            if not (self._config.create_tables or any(t.types for t in tables)):
                raise SinkSchemaError(
                    f"{self.target} has none of the tables "
                    f"{', '.join(table.name for table in tables)}; make them, or let "
                    "the sink do it with create_tables=True"
                )
        except BaseException as error:
            if pool is not None:
                pool.terminate()
            if isinstance(error, Exception):
                self._fail("open", error, [])
            raise
        self._pool, self._was_open = pool, True
        self._loop = asyncio.get_running_loop()
        logger.info("sinks.postgres.open", extra={"target": self.target})

    async def close(self) -> None:
        """Close the connections; nothing if it is not open.

        Waits for what is being written, but not longer than ``connect_timeout_s``.
        """
        pool, self._pool = self._pool, None
        if pool is None:
            return
        if self._loop is not asyncio.get_running_loop():
            # It may have ended; what was written is committed.
            with suppress(Exception):
                pool.terminate()
            return
        try:
            await asyncio.wait_for(pool.close(), self._config.connect_timeout_s)
        except Exception as error:
            pool.terminate()
            if not isinstance(error, TimeoutError):
                self._fail("close", error, [])
        extra = {"target": self.target, "rows_written": self._rows_written}
        logger.info("sinks.postgres.close", extra=extra)

    async def flush(self) -> None:
        """Do nothing: what was written is committed. Refused unless open."""
        self._check("flush", [])

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # -------------------------------------------------------------------- writing

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Write readings, one row each: all of them, or none and an error.

        Raises
        ------
        SinkStateError
            It is not open.
        SinkSchemaError
            They do not fit the table.
        SinkWriteError
            The server refused, or is away.
        """
        items = checked_readings(self, items)
        self._check("write_many", items)
        if items:
            batches = {"readings": reading_batches(items)}
            await self._write("write_many", batches, items)

    async def write(self, block: DaqBlock) -> None:
        """Write one row about a block; with ``samples=True`` its samples too.

        Raises
        ------
        SinkStateError
            It is not open.
        SinkSchemaError
            It does not fit the table.
        SinkWriteError
            The server refused, or is away.
        """
        check_block(self, "write", block)
        self._check("write", [block])
        batches = {"blocks": [Batch(SUMMARY_COLUMNS, [summary_values(block)])]}
        if self._samples:
            rows = list(block_values(block, text=False))
            kind = sample_type(block.data.dtype)
            batches["samples"] = [Batch(BLOCK_COLUMNS, rows, kind)]
        elif not self._warned:
            self._warned = True
            extra = {"target": self.target, "table": self._config.table_blocks}
            logger.warning("sinks.postgres.samples_not_stored", extra=extra)
        await self._write("write", batches, [block])

    def _check(self, operation: str, records: Sequence[Any]) -> None:
        if self._pool is None:
            when = "after close()" if self._was_open else "before open()"
            raise SinkStateError(
                f"PostgresSink: {operation} called {when}; nothing was written. Use it "
                "as 'async with PostgresSink(…) as sink', or call open()",
                context=ErrorContext(f"PostgresSink.{operation}", self.target),
                records=records,
            )
        if self._loop is not asyncio.get_running_loop():
            raise SinkStateError(
                f"PostgresSink: {operation} called in another event loop than open(), "
                "which its connections belong to; nothing was written. close() it, and "
                "open() it here",
                context=ErrorContext(f"PostgresSink.{operation}", self.target),
                records=records,
            )

    async def _write(
        self, operation: str, batches: Batches, records: list[Any]
    ) -> None:
        async with self._turn:
            self._check(operation, records)
            try:
                await self._calls.write(self._pool, batches)
            except Exception as error:
                self._fail(operation, error, records)
            rows = [batch.rows for each in batches.values() for batch in each]
            self._rows_written += sum(map(len, rows))

    # --------------------------------------------------------------------- errors

    def _fail(
        self, operation: str, error: Exception, records: Sequence[Any]
    ) -> NoReturn:
        """Raise an error of the tree, without a password in it or behind it."""
        context = ErrorContext(f"PostgresSink.{operation}", self.target)
        if isinstance(error, SinkError):
            error.context = context
            error.records = error.records or list(records)
            raise error
        text = cleaned(error, self._config)
        said = f"{type(error).__name__}: {text}" if text else type(error).__name__
        failure = SinkWriteError(
            f"{context.operation} failed for {self.target}: {said}. "
            + ("Nothing of this batch was written; " if records else "")
            + "mend the cause, then try again"
            + (" with error.records" if records else ""),
            context=context,
            records=records,
            errno=getattr(error, "errno", None),
        )
        # Whoever shows the cause would show what it says.
        try:
            raise failure from shown(error, self._config, frames=operation != "open")
        finally:
            failure.__context__ = failure.__cause__
            del error
