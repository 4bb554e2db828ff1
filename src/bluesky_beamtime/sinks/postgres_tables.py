"""The tables of a PostgreSQL sink: their columns, and how rows get into them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from bluesky_beamtime.errors import SinkSchemaError
from bluesky_beamtime.sinks.base import logger
from bluesky_beamtime.sinks.columns import Columns, SchemaPolicy
from bluesky_beamtime.sinks.layout import BLOCK_COLUMNS
from bluesky_beamtime.sinks.postgres_config import PostgresConfig, cleaned
from bluesky_beamtime.sinks.postgres_types import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    are_left_to_driver,
    column_type,
    conversion,
    converter,
    fits,
    is_left_to_driver,
    is_natural,
    needed,
    widened,
)
from bluesky_beamtime.sinks.rows import Batch
from bluesky_beamtime.sinks.sql import quote

# What information_schema.columns says, in a third of its time. A domain counts as the
# type it is made of. As text: the driver would ask the server first what a name is.
_COLUMNS = """
SELECT c.relname::text AS table_name, a.attname::text AS column_name,
    pg_catalog.format_type(
        CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END, NULL
    ) AS data_type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE n.nspname::text = $1 AND c.relname::text = ANY($2::text[])
    AND c.relkind IN ('r', 'v', 'f', 'p') AND a.attnum > 0 AND NOT a.attisdropped
    AND (pg_catalog.pg_has_role(c.relowner, 'USAGE')
        OR pg_catalog.has_column_privilege(
            c.oid, a.attnum, 'SELECT, INSERT, UPDATE, REFERENCES'))
ORDER BY a.attnum
"""


class Change:
    """A change of tables: a transaction from where one is needed."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._transaction: Any = None

    async def begin(self) -> Any:
        """Begin a transaction, if there is none yet, and return the connection."""
        if self._transaction is None:
            # Whatever the server's default is: what others committed has to be seen.
            transaction = self.connection.transaction(isolation="read_committed")
            self._transaction = transaction
            await transaction.start()
        return self.connection

    async def alone_with(self, table: str) -> Any:
        """Keep other sinks from changing a table until this change is committed.

        The lock belongs to the transaction, so that it holds behind a pooler as well.
        """
        connection = await self.begin()
        key = hashlib.sha256(table.encode()).digest()[:8]
        number = int.from_bytes(key, "big", signed=True)
        await connection.execute("SELECT pg_advisory_xact_lock($1)", number)
        return connection

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


class PostgresTable:
    """One table: its columns, and the types they have.

    Parameters
    ----------
    name
        Its name.
    config
        Where it is, and what may be done to it.
    policy
        What a row with a new column does.
    """

    def __init__(self, name: str, config: PostgresConfig, policy: SchemaPolicy) -> None:
        self.name = name
        self._config = config
        self._target = config.target()
        self.columns = Columns(policy, f"table {name!r} of {self._target}")
        self.types: dict[str, str] = {}
        self.copies = config.use_copy
        self.has_copied = False

    def has(self, types: dict[str, str]) -> None:
        """Note which columns the table has, with their types; none if it is absent."""
        self.columns.names = None
        self.types = types
        self.copies, self.has_copied = self._config.use_copy, False
        if types:
            self.columns.add(types)

    def state(self) -> tuple[list[str] | None, dict[str, str]]:
        """Return what :meth:`restore` takes, if a change is not committed."""
        return self.columns.names, dict(self.types)

    def restore(self, state: tuple[list[str] | None, dict[str, str]]) -> None:
        """Forget a change that was not committed."""
        self.columns.add(())
        self.columns.names, self.types = state

    async def insert(
        self, change: Change, batches: list[Batch], *, careful: bool
    ) -> None:
        """Insert the rows of one call; make the table, columns and types they need.

        Unless careful, values are not looked at that the driver refuses if they are
        not of their column's type. It raises then, and nothing was committed.
        """
        batches = list(map(_with_short_names, batches))
        await self._make_place(change, batches)
        for names, rows in await self._ready(change, batches, careful):
            await self._send(change, names, rows)

    async def _ready(
        self, change: Change, batches: list[Batch], careful: bool
    ) -> list[tuple[list[str], list[Any]]]:
        """Return names and rows, when every column has a type that holds them.

        Before the first are sent: of two sinks that have sent rows to a table, neither
        can change it until the other is through.
        """
        while True:
            before = dict(self.types)
            ready: list[tuple[list[str], list[Any]]] = []
            for batch in batches:
                rows = self.columns.fit(batch.columns, batch.rows)
                names = self.columns.names or []
                if not (batch.value_type and self._holds_samples(batch.value_type)):
                    rows = await self._fitted(change, names, rows, careful)
                ready.append((names, rows))
            if self.types == before:
                return ready

    def _holds_samples(self, value_type: type) -> bool:
        """Return whether samples of a type need no look at each, nor a change."""
        wanted = {name: column_type(name, ()) for name in BLOCK_COLUMNS}
        wanted["value"] = {float: DOUBLE, int: BIGINT, bool: BOOLEAN}.get(
            value_type, "none"
        )
        return self.types == wanted

    async def _fitted(
        self, change: Change, names: list[str], rows: list[Any], careful: bool
    ) -> list[Any]:
        """Return rows with values of the types of their columns."""
        # Where COPY may be refused, what INSERT takes is not known yet.
        trusting = self.has_copied and not careful
        if trusting and are_left_to_driver([self.types[name] for name in names], rows):
            return rows
        columns = list(zip(*rows, strict=True))
        changed = False
        for number, (name, values) in enumerate(zip(names, columns, strict=True)):
            kind = self.types[name]
            if trusting and is_left_to_driver(kind, values):
                continue
            if is_natural(kind, values):
                continue
            changed = True
            if not fits(kind, values):
                kind = await self._widen(change, name, values)
            convert = converter(kind)
            if convert is not None:
                columns[number] = tuple(
                    [None if value is None else convert(value) for value in values]
                )
        return list(zip(*columns, strict=True)) if changed else rows

    async def _make_place(self, change: Change, batches: list[Batch]) -> None:
        """Add a table, or the columns that it lacks."""
        first = self.columns.names is None
        may = self._config.create_tables
        if first and not may:
            raise SinkSchemaError(
                f"{self._target} has no table {self.name!r}; make it, or let the sink "
                "do it with create_tables=True"
            )
        columns = [batch.columns for batch in batches]
        if not any(map(self.columns.missing, columns)):
            return
        # Another sink may have made what is missing, or do so now.
        await self._look(change, alone=may)
        first = self.columns.names is None
        new = self.columns.learn(columns)
        if not new:
            return
        if not may:
            raise SinkSchemaError(
                f"table {self.name!r} of {self._target} has no column "
                f"{', '.join(map(repr, new))}; schema='drop' leaves it out, "
                "create_tables=True lets the sink add it"
            )
        # What does not fit the types that a few suggest widens them, if it may.
        few = 100 if self.columns.policy == "evolve" else None
        rows = [
            row
            for batch in batches
            for row in self.columns.fit(batch.columns, batch.rows[:few])
        ]
        values = dict(
            zip(self.columns.names or (), zip(*rows, strict=True), strict=True)
        )
        self.types.update({name: column_type(name, values[name]) for name in new})
        defined = [f"{quote(name)} {self.types[name]}" for name in new]
        if first:
            sql = f"CREATE TABLE IF NOT EXISTS {self._sql()} ({', '.join(defined)})"
        else:
            added = ", ".join(f"ADD COLUMN {each}" for each in defined)
            sql = f"ALTER TABLE {self._sql()} {added}"
        await change.connection.execute(sql)

    async def _look(self, change: Change, *, alone: bool) -> None:
        """Learn what the table has now; alone, nothing of that changes any more."""
        if alone:
            await change.alone_with(self._sql())
        await look(change.connection, self._config.schema, [self])
        # The driver remembers types by the text of a statement.
        await change.connection.reload_schema_state()

    async def _widen(self, change: Change, name: str, values: Sequence[Any]) -> str:
        """Give a column a type that holds new values too, and return it.

        What another sink has made of it meanwhile is never narrowed again.
        """
        there, wanted = self.types[name], needed(values) or "text"
        if not self._config.create_tables or self.columns.policy != "evolve":
            raise SinkSchemaError(
                f"column {name!r} of table {self.name!r} of {self._target} is {there} "
                f"and cannot hold values that need {wanted}; change its type, or let "
                "the sink do it with create_tables=True and schema='evolve'"
            )
        await self._look(change, alone=True)
        there = self.types.get(name, there)
        if fits(there, values):
            return there
        kind = widened(there, wanted)
        expression = conversion(quote(name), there, kind)
        await change.connection.execute(
            f"ALTER TABLE {self._sql()} ALTER COLUMN {quote(name)} "
            f"TYPE {kind} USING {expression}"
        )
        self.types[name] = kind
        return kind

    async def _send(self, change: Change, names: list[str], rows: list[Any]) -> None:
        asyncpg: Any = import_module("asyncpg")
        connection = change.connection
        if not (self.copies and self.has_copied):
            await change.begin()
        if self.copies:
            # A savepoint to go back to, until it is known that COPY is not refused.
            guard = nullcontext() if self.has_copied else connection.transaction()
            try:
                async with guard:
                    await connection.copy_records_to_table(
                        self.name,
                        schema_name=self._config.schema,
                        columns=names,
                        records=rows,
                    )
                self.has_copied = True
                return
            except asyncpg.FeatureNotSupportedError as error:
                if self.has_copied:
                    raise
                extra = {"target": self._target, "table": self.name}
                logger.warning(
                    "sinks.postgres.copy_refused",
                    extra={**extra, "reason": cleaned(error, self._config)},
                )
                self.copies = False
        listed = ", ".join(map(quote, names))
        marks = ", ".join(f"${number}" for number in range(1, len(names) + 1))
        await connection.executemany(
            f"INSERT INTO {self._sql()} ({listed}) VALUES ({marks})", rows
        )

    def _sql(self) -> str:
        return f"{quote(self._config.schema)}.{quote(self.name)}"


async def look(connection: Any, schema: str, tables: Sequence[PostgresTable]) -> None:
    """Let tables know which columns they have on the server."""
    found: dict[str, dict[str, str]] = {table.name: {} for table in tables}
    for row in await connection.fetch(_COLUMNS, schema, list(found)):
        found[row["table_name"]][row["column_name"]] = row["data_type"]
    for table in tables:
        table.has(found[table.name])


def _with_short_names(batch: Batch) -> Batch:
    if not any(len(name) > 15 for name in batch.columns):
        return batch
    return Batch(tuple(map(_short, batch.columns)), batch.rows, batch.value_type)


def _short(name: str) -> str:
    """Return a name that PostgreSQL does not cut off, the same for the same name."""
    data = name.encode("utf-8", "replace")
    if len(data) <= 63:
        return name
    mark = hashlib.sha256(data).hexdigest()[:8]
    return f"{data[:54].decode('utf-8', 'ignore')}_{mark}"
