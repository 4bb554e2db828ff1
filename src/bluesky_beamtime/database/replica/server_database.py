"""A beamtime on a server, for the reading side."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.references import FarStore
from bluesky_beamtime.database.replica import tables
from bluesky_beamtime.database.replica.dialect import speak_postgresql
from bluesky_beamtime.database.replica.server import Server, check, limited
from bluesky_beamtime.errors import (
    BeamtimeFileError,
    DatabaseError,
    QueryError,
    ReadOnlyError,
    ServerError,
    StoreReadError,
)

_ARRAY = re.compile(r"runs/([^/]+)/.+")
# How old may be what is known of other machines' journals.
_JOURNALS_SECONDS = 2.0


class ServerDatabase(Database):
    """A beamtime in PostgreSQL, which was copied there; it can only be read.

    Runs of all machines that copy there come together; they are numbered in the order
    in which they began.

    Parameters
    ----------
    server
        The server.

    Raises
    ------
    ServerError
        It is away.
    BeamtimeFileError, NewerVersionError
        There is no beamtime of this version.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.path = Path(server.name)
        self.mode = "r"
        self.durability = "kill"
        self.readable = None
        self._engine = speak_postgresql(server.engine(pooled=True))
        self._closed = False
        self._store = FarStore(server.name)
        self._store.locate = self._locate
        try:
            with self.reading() as connection:
                there = check(connection, server)
        except BaseException:
            self.close()
            raise
        if not there:
            self.close()
            raise BeamtimeFileError(
                f"{server} is empty: nothing was copied there yet; record with "
                "mode='a', or copy a file with: beamtime replicate FILE URL"
            )

    @property
    def store(self) -> Path:
        """The stores of the runs, wherever they are; see :class:`FarStore`."""
        return self._store

    @property
    def journal(self) -> Path:
        """Nothing: the journals are where the runs were recorded."""
        return self.path / "journal.jsonl"

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Lend a connection that reads; each statement sees all that is committed.

        Raises
        ------
        ServerError
            The server is away, or the beamtime is closed.
        """
        if self._closed:
            raise DatabaseError(f"{self.server} is closed; open it again")
        try:
            with (
                self._working() as connection,
                limited(connection, 2 * self.server.statement_timeout),
            ):
                yield connection
        except SQLAlchemyError as error:
            raise self.server.error(error) from None

    def _working(self) -> Connection:
        """Return a connection that works; the server may have been away meanwhile."""
        connection = self._lent()
        try:
            with limited(connection, self.server.connect_timeout):
                connection.exec_driver_sql("SELECT 1")
        except DBAPIError:
            connection.invalidate()
            connection.close()
            return self._lent()
        return connection

    def _lent(self) -> Connection:
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def insert(self, sql: str, row: Any) -> bool:
        """Refuse to.

        Raises
        ------
        ReadOnlyError
            Always.
        """
        raise self._read_only()

    @contextmanager
    def inserting(self) -> Generator[Any]:
        """Refuse to.

        Raises
        ------
        ReadOnlyError
            Always.
        """
        raise self._read_only()
        yield

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Refuse to.

        Raises
        ------
        ReadOnlyError
            Always.
        """
        raise self._read_only()
        yield

    def _read_only(self) -> ReadOnlyError:
        return ReadOnlyError(
            f"{self.server} is read here, not changed; open it with mode='a', or "
            "change the file that was copied there"
        )

    def _locate(self, path: str) -> str:
        """Return the URL of an array that an event refers to."""
        found = _ARRAY.fullmatch(path)
        runs, sources = tables.source_runs, tables.sources
        query = (
            select(sources.c.store)
            .join(runs, runs.c.source == sources.c.source)
            .where(runs.c.folder == (found[1] if found else None))
        )
        with self.reading() as connection:
            store = connection.execute(query).scalars().first()
        if store is None:
            raise StoreReadError(
                f"{self.server} does not know where the array {path!r} is"
            )
        return f"{store}/{quote(path)}"

    def journaled(self) -> frozenset[str]:
        """Return the runs with documents in a journal, of all machines."""
        with self.reading() as connection:
            lists = connection.execute(select(tables.sources.c.journaled)).scalars()
            return frozenset(uid for each in lists for uid in orjson.loads(each))

    def ask(self, query: str, parameters: Any = ()) -> tuple[list[str], list[Any]]:
        """Return column names and rows of one SQL statement; it can change nothing.

        Parameters
        ----------
        query
            One statement in PostgreSQL's SQL.
        parameters
            Values for its ``?``, or by name for its ``:name``.

        Raises
        ------
        QueryError
            The statement is wrong, or it would change something.
        """
        values, sql = _bind(query, parameters)
        with self.reading() as lent:
            driver: Any = lent.connection.driver_connection
            try:
                with driver.cursor() as cursor:
                    cursor.execute("BEGIN READ ONLY")
                    try:
                        # What is prepared is one statement: none can end this one's
                        # transaction and go on.
                        cursor.execute(sql, values, prepare=True)
                        if cursor.description is None:
                            raise QueryError(f"{query!r:.200} is no question")
                        columns = [column.name for column in cursor.description]
                        return columns, cursor.fetchall()
                    finally:
                        cursor.execute("ROLLBACK")
            except _driver_error() as error:
                if driver.closed:
                    raise ServerError(f"{self.server}: the server is away") from None
                reason = str(error).partition("\n")[0]
                raise QueryError(
                    f"PostgreSQL does not answer {query!r:.200}: {reason}"
                ) from error

    def size(self) -> int:
        """Return the bytes that the database takes on the server; frames are not in it.

        Raises
        ------
        ServerError
            The server is away.
        """
        with self.reading() as connection:
            query = text("SELECT pg_database_size(current_database())")
            return connection.execute(query).scalar_one()

    def close(self) -> None:
        """Close all connections; may be called again."""
        self._closed = True
        self._engine.dispose()

    def after_fork_in_child(self) -> None:
        """Let go of what the parent uses; the child connects anew when it needs to."""
        self._engine.dispose(close=False)


def _driver_error() -> type[Exception]:
    from psycopg import Error

    return Error


_PLACES = re.compile(r"('(?:[^']|'')*')|(\?)|(?<![:\w]):([A-Za-z_]\w*)")


def _bind(query: str, parameters: Any) -> tuple[Any, str]:
    """Return values and the query with the driver's own marks for them."""
    given: Any = parameters
    named = isinstance(parameters, Mapping)

    def mark(found: re.Match[str]) -> str:
        if found[1] is not None:
            return found[1].replace("%", "%%")
        if found[2] is not None:
            return "?" if named else "%s"
        return f"%({found[3]})s" if named else found[0]

    parts: list[str] = []
    end = 0
    for found in _PLACES.finditer(query):
        parts += [query[end : found.start()].replace("%", "%%"), mark(found)]
        end = found.end()
    sql = "".join([*parts, query[end:].replace("%", "%%")])
    values: Any = given if named else tuple(given)
    # Without values the driver takes a percent sign for itself.
    return (values, sql) if values else (None, query)


class ServerJournals(JournalIndex):
    """Which runs have documents in the journals of the machines that recorded them."""

    def __init__(self, database: ServerDatabase) -> None:
        super().__init__(database.journal)
        self._database = database
        self._asked = 0.0
        self._known: frozenset[str] = frozenset()

    def runs(self) -> frozenset[str]:
        """Return their uids, as of the last seconds."""
        now = time.monotonic()
        if not self._asked or now - self._asked > _JOURNALS_SECONDS:
            self._known, self._asked = self._database.journaled(), now
        return self._known
