"""Rows in the tables of a PostgreSQL database."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
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
from bluesky_beamtime.sinks.columns import Columns, SchemaPolicy
from bluesky_beamtime.sinks.layout import BLOCK_COLUMNS, SUMMARY_COLUMNS
from bluesky_beamtime.sinks.postgres_config import PostgresConfig
from bluesky_beamtime.sinks.postgres_types import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    column_type,
    conversion,
    converter,
    fits,
    is_natural,
    needed,
    widened,
)
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading
from bluesky_beamtime.sinks.rows import Batch, reading_batches
from bluesky_beamtime.sinks.sqlite import quote

_COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position
"""


@dataclass(slots=True)
class _Table:
    """One table: its columns, and the types they have."""

    name: str
    columns: Columns
    types: dict[str, str] = field(default_factory=dict[str, str])
    copies: bool = True
    has_copied: bool = False

    def holds_samples(self, value_type: type) -> bool:
        """Return whether samples of a type need no look at each, nor a change."""
        wanted = {name: column_type(name, ()) for name in BLOCK_COLUMNS}
        wanted["value"] = {float: DOUBLE, int: BIGINT, bool: BOOLEAN}.get(
            value_type, "none"
        )
        return self.types == wanted


class _Change:
    """A change of tables: a transaction from where one is needed."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._transaction: Any = None

    async def begin(self) -> Any:
        """Begin a transaction, if there is none yet, and return the connection."""
        if self._transaction is None:
            self._transaction = self.connection.transaction()
            await self._transaction.start()
        return self.connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._transaction is not None:
            if error is None:
                await self._transaction.commit()
            else:
                await self._transaction.rollback()


async def _keep(connection: Any) -> None:
    """Leave a connection as it is: the sink changes no settings of it."""


class PostgresSink:
    """Writes readings as rows of a table, and one row about each block.

    Each call is one transaction: when :meth:`write_many` returns, its rows are
    committed. Calls from several tasks are carried out one after the other, in their
    order. Values are bound or sent by COPY in binary, names quoted; where the server
    refuses COPY, as for a table with row security, INSERT takes its place. Times are
    ``timestamptz``; whole numbers ``bigint``, floats ``double precision``.

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
        self._tables = {
            kind: _Table(name, Columns(schema, f"table {name!r} of {config.target()}"))
            for kind, name in (
                ("readings", config.table_readings),
                ("blocks", config.table_blocks),
                ("samples", config.table_samples),
            )
        }
        self._driver: Any = None
        self._pool: Any = None
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
        names = self._tables["readings"].columns.names
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
        if self._pool is not None:
            return
        context = ErrorContext("PostgresSink.open", self.target)
        try:
            self._driver = import_module("asyncpg")
        except ImportError as error:
            raise SinkDependencyError(
                "PostgresSink", "asyncpg", "postgres", context=context
            ) from error
        # A lock belongs to the loop in which somebody first waited for it.
        self._turn = asyncio.Lock()
        config = self._config
        pool: Any = None
        try:
            async with asyncio.timeout(config.connect_timeout_s):
                pool = await self._driver.create_pool(
                    **config.arguments(),
                    min_size=config.pool_min_size,
                    max_size=config.pool_max_size,
                    command_timeout=config.command_timeout_s,
                    reset=_keep,
                    server_settings={
                        "application_name": "bluesky-beamtime",
                        "statement_timeout": str(int(config.statement_timeout_ms)),
                    },
                )
            async with pool.acquire() as connection:
                for table in self._tables.values():
                    await self._look(connection, table)
        except Exception as error:
            if pool is not None:
                pool.terminate()
            self._fail("open", error, [])
        if not config.create_tables and not any(
            table.types for table in self._tables.values()
        ):
            pool.terminate()
            raise SinkSchemaError(
                f"{self.target} has none of the tables "
                f"{', '.join(table.name for table in self._tables.values())}; make "
                "them, or let the sink do it with create_tables=True",
                context=context,
            )
        self._pool, self._was_open = pool, True
        logger.info("sinks.postgres.open", extra={"target": self.target})

    async def _look(self, connection: Any, table: _Table) -> None:
        found = await connection.fetch(_COLUMNS, self._config.schema, table.name)
        table.columns.names = None
        table.types = {row["column_name"]: row["data_type"] for row in found}
        table.copies, table.has_copied = self._config.use_copy, False
        if found:
            table.columns.add(table.types)

    async def close(self) -> None:
        """Close the connections; nothing if it is not open.

        Waits for what is being written, but not longer than ``connect_timeout_s``.
        """
        pool, self._pool = self._pool, None
        if pool is None:
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
        items = list(items)
        self._check("write_many", items)
        if items:
            batches = [("readings", batch) for batch in reading_batches(items)]
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
        self._check("write", [block])
        batches = [("blocks", Batch(SUMMARY_COLUMNS, [summary_values(block)]))]
        if self._samples:
            rows = list(block_values(block, text=False))
            sample_type = _sample_type(block)
            batches.append(("samples", Batch(BLOCK_COLUMNS, rows, sample_type)))
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

    async def _write(
        self, operation: str, batches: list[tuple[str, Batch]], records: list[Any]
    ) -> None:
        async with self._turn:
            self._check(operation, records)
            before = {
                kind: (table.columns.names, dict(table.types))
                for kind, table in self._tables.items()
            }
            try:
                async with self._pool.acquire() as connection:
                    change = _Change(connection)
                    # A single COPY is whole in itself, and spares two round trips.
                    if len(batches) > 1:
                        await change.begin()
                    async with change:
                        for kind, batch in batches:
                            await self._insert(change, self._tables[kind], batch)
            except BaseException as error:
                for kind, (names, types) in before.items():
                    table = self._tables[kind]
                    table.columns.add(())
                    table.columns.names, table.types = names, types
                if isinstance(error, Exception):
                    self._fail(operation, error, records)
                raise
            self._rows_written += sum(len(batch.rows) for _, batch in batches)

    async def _insert(self, change: _Change, table: _Table, batch: Batch) -> None:
        if any(len(name) > 15 for name in batch.columns):
            short = tuple(map(_short, batch.columns))
            batch = Batch(short, batch.rows, batch.value_type)
        await self._make_place(change, table, batch)
        rows = table.columns.fit(batch.columns, batch.rows)
        names = table.columns.names or []
        if batch.value_type is not None and table.holds_samples(batch.value_type):
            await self._send(change, table, names, rows)
            return
        columns = list(zip(*rows, strict=True))
        changed = False
        for number, (name, values) in enumerate(zip(names, columns, strict=True)):
            kind = table.types[name]
            if is_natural(kind, values):
                continue
            changed = True
            if not fits(kind, values):
                kind = await self._widen(change, table, name, values)
            convert = converter(kind)
            if convert is not None:
                columns[number] = tuple(
                    [None if value is None else convert(value) for value in values]
                )
        if changed:
            rows = list(zip(*columns, strict=True))
        await self._send(change, table, names, rows)

    async def _make_place(self, change: _Change, table: _Table, batch: Batch) -> None:
        """Add a table, or the columns that it lacks."""
        first = table.columns.names is None
        may = self._config.create_tables
        if first and not may:
            raise SinkSchemaError(
                f"{self.target} has no table {table.name!r}; make it, or let the sink "
                "do it with create_tables=True"
            )
        new = table.columns.missing(batch.columns)
        if not new:
            return
        if not may:
            raise SinkSchemaError(
                f"table {table.name!r} of {self.target} has no column "
                f"{', '.join(map(repr, new))}; schema='drop' leaves it out, "
                "create_tables=True lets the sink add it"
            )
        names = list(table.columns.names or ()) + new
        table.columns.add(new)
        # What does not fit the types that these suggest widens them.
        rows = table.columns.fit(batch.columns, batch.rows[:100])
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        table.types.update({name: column_type(name, columns[name]) for name in new})
        defined = [f"{quote(name)} {table.types[name]}" for name in new]
        connection = await change.begin()
        if first:
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._sql(table)} ({', '.join(defined)})"
            )
        else:
            added = ", ".join(f"ADD COLUMN {each}" for each in defined)
            await connection.execute(f"ALTER TABLE {self._sql(table)} {added}")

    async def _widen(
        self, change: _Change, table: _Table, name: str, values: Sequence[Any]
    ) -> str:
        """Give a column a type that holds new values too, and return it."""
        there, wanted = table.types[name], needed(values) or "text"
        if not self._config.create_tables or table.columns.policy != "evolve":
            raise SinkSchemaError(
                f"column {name!r} of table {table.name!r} of {self.target} is {there} "
                f"and cannot hold values that need {wanted}; change its type, or let "
                "the sink do it with create_tables=True and schema='evolve'"
            )
        kind = widened(there, wanted)
        expression = conversion(quote(name), there, kind)
        connection = await change.begin()
        await connection.execute(
            f"ALTER TABLE {self._sql(table)} ALTER COLUMN {quote(name)} "
            f"TYPE {kind} USING {expression}"
        )
        # The driver remembers types by the text of a statement.
        await connection.reload_schema_state()
        table.types[name] = kind
        return kind

    async def _send(
        self, change: _Change, table: _Table, names: list[str], rows: list[Any]
    ) -> None:
        connection = change.connection
        if not (table.copies and table.has_copied):
            await change.begin()
        if table.copies:
            # A savepoint to go back to, until it is known that COPY is not refused.
            guard = nullcontext() if table.has_copied else connection.transaction()
            try:
                async with guard:
                    await connection.copy_records_to_table(
                        table.name,
                        schema_name=self._config.schema,
                        columns=names,
                        records=rows,
                    )
                table.has_copied = True
                return
            except self._driver.FeatureNotSupportedError as error:
                if table.has_copied:
                    raise
                extra = {"target": self.target, "table": table.name}
                logger.warning(
                    "sinks.postgres.copy_refused",
                    extra={**extra, "reason": self._clean(error)},
                )
                table.copies = False
        listed = ", ".join(map(quote, names))
        marks = ", ".join(f"${number}" for number in range(1, len(names) + 1))
        await connection.executemany(
            f"INSERT INTO {self._sql(table)} ({listed}) VALUES ({marks})", rows
        )

    def _sql(self, table: _Table) -> str:
        return f"{quote(self._config.schema)}.{quote(table.name)}"

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
        text = self._clean(error)
        said = f"{type(error).__name__}: {text}" if text else type(error).__name__
        # Whoever shows the cause would show what it says.
        raise SinkWriteError(
            f"{context.operation} failed for {self.target}: {said}. "
            + ("Nothing of this batch was written; " if records else "")
            + "mend the cause, then try again"
            + (" with error.records" if records else ""),
            context=context,
            records=records,
            errno=getattr(error, "errno", None),
        ) from (error if text == str(error) else None)

    def _clean(self, error: Exception) -> str:
        text = str(error)
        for secret in self._config.secrets():
            text = text.replace(secret, "***")
        return text


def _sample_type(block: DaqBlock) -> type | None:
    """Return the Python type of all samples; None if each must be looked at."""
    dtype = block.data.dtype
    if (dtype.kind == "u" and dtype.itemsize == 8) or dtype.itemsize > 8:
        return None
    kinds: dict[str, type] = {"f": float, "i": int, "u": int, "b": bool}
    return kinds.get(dtype.kind)


def _short(name: str) -> str:
    """Return a name that PostgreSQL does not cut off, the same for the same name."""
    data = name.encode("utf-8", "replace")
    if len(data) <= 63:
        return name
    mark = hashlib.sha256(data).hexdigest()[:8]
    return f"{data[:54].decode('utf-8', 'ignore')}_{mark}"
