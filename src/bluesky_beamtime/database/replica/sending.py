"""Rows on their way to a server, which puts aside those that it refuses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Table, bindparam, exists, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from bluesky_beamtime.database.replica import tables
from bluesky_beamtime.database.replica.feed import Row

logger = logging.getLogger(__name__)


class RowSender:
    """Executes statements for rows of one file; for one thread.

    Parameters
    ----------
    source
        What the file is called at the far end.
    path
        The file, for messages.
    """

    def __init__(self, source: str, path: Path) -> None:
        self.source = source
        self.refused = 0
        self._path = path

    def put(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Row],
        make: Callable[[Table], Any],
        *,
        keep_id: bool = False,
    ) -> None:
        """Execute a statement for rows, and put those aside that are refused."""
        names = [c.name for c in table.columns if keep_id or c.name != "id"]
        values = [{name: clean(row[name]) for name in names} for row in rows]
        self.attempt(connection, table, values, make(table))

    def attempt(
        self,
        connection: Connection,
        table: Table,
        values: list[Row],
        statement: Any,
    ) -> None:
        """Execute a statement for all values, or for those that are not refused."""
        if not values:
            return
        try:
            with connection.begin_nested():
                connection.execute(statement, values)
        except DBAPIError as error:
            if not _is_refusal(error):
                raise
            if len(values) > 1:
                half = len(values) // 2
                self.attempt(connection, table, values[:half], statement)
                self.attempt(connection, table, values[half:], statement)
                return
            self.refused += 1
            reason = str(error.orig).partition("\n")[0]
            logger.error(
                "%s: the server refuses a row of %s, which is kept in its table "
                "replica_refused: %s",
                self._path,
                table.name,
                reason,
            )
            connection.execute(
                insert(tables.refused).values(
                    source=self.source,
                    time=time.time(),
                    table_name=table.name,
                    row=orjson.dumps(
                        values[0], default=repr, option=orjson.OPT_NON_STR_KEYS
                    ).decode(),
                    reason=clean(reason),
                )
            )


def _is_refusal(error: DBAPIError) -> bool:
    """Say whether the server refuses a row, whenever it is asked."""
    # Values, references, limits such as that of an index.
    state = getattr(error.orig, "sqlstate", None) or ""
    return isinstance(error, (DataError, IntegrityError)) or state[:2] in (
        "22",
        "23",
        "54",
    )


def clean(value: Any) -> Any:
    """Return a value that PostgreSQL takes: its text has no NUL, which becomes ␀."""
    if isinstance(value, str) and "\0" in value:
        return value.replace("\0", "␀")
    return value


def absent(key: str) -> Callable[[Table], Any]:
    """Return what makes an INSERT of rows whose key is not there."""
    return lambda table: insert(table).on_conflict_do_nothing(index_elements=[key])


def replaced(key: str, names: list[str]) -> Callable[[Table], Any]:
    """Return what makes an INSERT that takes over columns of rows that are there."""

    def make(table: Table) -> Any:
        statement = insert(table)
        return statement.on_conflict_do_update(
            index_elements=[key],
            set_={name: statement.excluded[name] for name in names},
        )

    return make


def absent_image(table: Table) -> Any:
    """Return an INSERT of a reference that is not there; it has no key of its own."""
    names = [c.name for c in table.columns if c.name != "id"]
    key = ("event_uid", "field_name", "zarr_group", "index_in_stack")
    same = exists().where(*(table.c[name] == bindparam(name) for name in key))
    columns = [sql_cast(bindparam(name), table.c[name].type) for name in names]
    return insert(table).from_select(names, select(*columns).where(~same))
