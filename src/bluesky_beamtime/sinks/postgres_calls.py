"""The rows of one call: into all tables of a PostgreSQL sink, or into none."""

from __future__ import annotations

from typing import Any

from bluesky_beamtime.errors import SinkError
from bluesky_beamtime.sinks.columns import SchemaPolicy
from bluesky_beamtime.sinks.postgres_config import PostgresConfig
from bluesky_beamtime.sinks.postgres_tables import Change, PostgresTable, look
from bluesky_beamtime.sinks.postgres_types import as_server_text
from bluesky_beamtime.sinks.rows import Batch

Batches = dict[str, list[Batch]]
"""What a call has for each table."""


class PostgresCalls:
    """Writes what each call brings, one call at a time.

    Parameters
    ----------
    config
        Where the tables are, and what may be done to them.
    policy
        What a row with a new column does.
    """

    def __init__(self, config: PostgresConfig, policy: SchemaPolicy) -> None:
        self._schema = config.schema
        self.tables = {
            kind: PostgresTable(name, config, policy)
            for kind, name in (
                ("readings", config.table_readings),
                ("blocks", config.table_blocks),
                ("samples", config.table_samples),
            )
        }
        self._known = False
        self._careful = False

    async def look(self, connection: Any) -> None:
        """Learn which tables and columns there are."""
        await look(connection, self._schema, list(self.tables.values()))
        self._known = True

    async def write(self, pool: Any, batches: Batches) -> None:
        """Write the rows of one call, or raise what refused them, with none written.

        What the driver or the server refuses in a value is mended if it can be, and
        the call repeated: most have nothing of the kind, and are not searched for it.
        """
        while True:
            before = {kind: table.state() for kind, table in self.tables.items()}
            try:
                return await self._insert(pool, batches)
            except BaseException as error:
                for kind, state in before.items():
                    self.tables[kind].restore(state)
                mended = _with_server_texts(batches) if _is_of_text(error) else batches
                if mended != batches:
                    batches = mended
                elif _is_unfit(error) and not self._careful:
                    # The driver found a value that its column does not hold: again,
                    # with a look at each from now on.
                    self._careful = True
                else:
                    # Perhaps others have changed the tables.
                    self._known = False
                    raise

    async def _insert(self, pool: Any, batches: Batches) -> None:
        async with pool.acquire() as connection:
            if not self._known:
                await self.look(connection)
            change = Change(connection)
            # A single COPY is whole in itself, and spares two round trips.
            if sum(map(len, batches.values())) > 1:
                await change.begin()
            async with change:
                for kind, each in batches.items():
                    table = self.tables[kind]
                    await table.insert(change, each, careful=self._careful)


def _is_unfit(error: BaseException) -> bool:
    """Return whether the driver refused a value."""
    refused = (TypeError, ValueError, ArithmeticError, AttributeError)
    return isinstance(error, refused) and not isinstance(error, SinkError)


def _is_of_text(error: BaseException) -> bool:
    """Return whether a value was refused that may be a text."""
    state = str(getattr(error, "sqlstate", ""))
    # The class of data exceptions; INSERT says so of what is no UTF-8, too.
    return isinstance(error, UnicodeEncodeError) or state.startswith("22")


def _with_server_texts(batches: Batches) -> Batches:
    return {
        kind: [
            Batch(
                batch.columns,
                [tuple(map(as_server_text, row)) for row in batch.rows],
                batch.value_type,
            )
            for batch in each
        ]
        for kind, each in batches.items()
    }
