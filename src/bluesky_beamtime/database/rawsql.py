"""SQL of users: questions that no search knows, on a connection that only reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.failures import is_busy, primary_code, translate
from bluesky_beamtime.errors import QueryError

Parameters = Sequence[Any] | Mapping[str, Any]

_READING = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    }
)
# What only tells; the full-text index itself asks for data_version.
_PRAGMAS = frozenset(
    {
        *("data_version", "database_list", "foreign_key_list", "function_list"),
        *("index_info", "index_list", "index_xinfo", "table_info", "table_list"),
        *("table_xinfo", "user_version", "application_id"),
    }
)
# Of the file: damage, a lock, a disk. Anything else is wrong with the question.
_OF_THE_FILE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows, and the names of their columns."""

    columns: list[str]
    """Names of the columns, in order; several may be the same."""
    rows: list[tuple[Any, ...]]
    """The rows."""


@runtime_checkable
class AnswersItself(Protocol):
    """A database with an SQL of its own, that of a server."""

    def ask(
        self, query: str, parameters: Parameters = ()
    ) -> tuple[list[str], list[Any]]:
        """Return column names and rows."""
        ...


def ask(database: Database, query: str, parameters: Parameters = ()) -> Answer:
    """Return what one SQL statement answers; it can change nothing.

    Parameters
    ----------
    database
        The database.
    query
        One ``SELECT``, ``WITH … SELECT`` or ``EXPLAIN``.
    parameters
        Values for its ``?``, or by name for its ``:name``.

    Raises
    ------
    QueryError
        The statement is wrong, or it would change something; nothing was changed.
    DatabaseError
        The file cannot be read.
    """
    if isinstance(database, AnswersItself):
        return Answer(*database.ask(query, parameters))
    refused: list[str] = []

    def authorize(action: int, first: str | None, second: str | None, *_: Any) -> int:
        if action in _READING or _only_tells(action, first, second):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
            # What SQLite says of itself when it meets a virtual table, such as
            # json_each, for the first time. It refuses users by other means.
            return sqlite3.SQLITE_OK
        refused.append(first or "")
        return sqlite3.SQLITE_DENY

    with database.reading() as lent:
        connection: Any = lent.connection.driver_connection
        connection.set_authorizer(authorize)
        try:
            cursor = connection.execute(query, parameters)
            columns = [column[0] for column in cursor.description or ()]
            rows = cursor.fetchall()
        except (sqlite3.Error, sqlite3.Warning) as error:
            if refused:
                raise _refusal(query) from error
            if isinstance(error, sqlite3.Error) and _is_of_the_file(error):
                raise translate(error, database.path) from error
            raise QueryError(
                f"SQLite does not understand {query!r:.200}: {error}"
            ) from error
        except (TypeError, ValueError) as error:
            raise QueryError(f"these values cannot be bound: {error}") from error
        finally:
            connection.set_authorizer(None)
    if not columns:
        raise _refusal(query)
    return Answer(columns, rows)


def _only_tells(action: int, first: str | None, second: str | None) -> bool:
    if action != sqlite3.SQLITE_PRAGMA or first is None:
        return False
    name = first.lower()
    # PRAGMA user_version = 3 would write; table_info takes the name of a table.
    asks = second is None or name.endswith(("info", "list"))
    return name in _PRAGMAS and asks


def _is_of_the_file(error: sqlite3.Error) -> bool:
    return is_busy(error) or primary_code(error) in _OF_THE_FILE


def _refusal(query: str) -> QueryError:
    return QueryError(
        f"{query!r:.200} is no question: SQL can look here, not change. The methods of "
        "a Beamtime and of its runs do that: tag, star, note, sample"
    )
