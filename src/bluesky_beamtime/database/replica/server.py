"""Connections to a PostgreSQL server, each with an end."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.replica import tables
from bluesky_beamtime.database.replica.dialect import FUNCTIONS
from bluesky_beamtime.errors import (
    BeamtimeFileError,
    MissingExtraError,
    NewerVersionError,
    ServerError,
)

_SCHEME = re.compile(r"postgres(ql)?(\+psycopg)?://", re.IGNORECASE)
_VERSION = "schema_version"
# One for all who prepare a server's tables at the same time.
_LOCK = 0x62626D74


def is_server_url(path: object) -> bool:
    """Say whether a path is the URL of a PostgreSQL database."""
    return isinstance(path, str) and _SCHEME.match(path) is not None


@dataclass(frozen=True, slots=True)
class Server:
    """A database on a PostgreSQL server; says nothing of its password.

    Parameters
    ----------
    url
        Such as ``postgresql://user@host:5432/database``. A password is better kept in
        ``~/.pgpass`` or ``PGPASSWORD`` than in the URL.
    connect_timeout
        Seconds until a server that does not answer counts as away, 2 at least.
    statement_timeout
        Seconds until a statement is given up.
    """

    url: URL = field(repr=False)
    connect_timeout: float = 5.0
    statement_timeout: float = 30.0

    @classmethod
    def of(cls, url: str, **options: float) -> Server:
        """Read a URL.

        Raises
        ------
        ServerError
            It is none of a PostgreSQL database.
        MissingExtraError
            There is no driver.
        """
        try:
            parsed = make_url(re.sub(_SCHEME, "postgresql+psycopg://", url, count=1))
        except (ArgumentError, ValueError):
            parsed = None
        if parsed is None or not _SCHEME.match(url) or not parsed.database:
            raise ServerError(
                "this is no URL of a PostgreSQL database: write "
                "postgresql://user@host/database"
            )
        if find_spec("psycopg") is None:
            raise MissingExtraError("a PostgreSQL server", "psycopg", "postgres")
        return cls(parsed, **options)

    @property
    def name(self) -> str:
        """What people may see of it: user, host, port and database."""
        url = self.url
        user = f"{url.username}@" if url.username else ""
        port = f":{url.port}" if url.port else ""
        return f"postgresql://{user}{url.host or ''}{port}/{url.database}"

    def __str__(self) -> str:
        return self.name

    def engine(self, *, pooled: bool = False) -> Engine:
        """Return an engine; it connects when it is used."""
        seconds = self.connect_timeout
        limit = int(1000 * self.statement_timeout)
        given = self.url.query.get("options", "")
        options = f"{given if isinstance(given, str) else ' '.join(given)} "
        arguments: dict[str, Any] = {
            "connect_timeout": max(2, round(seconds)),
            "application_name": "bluesky-beamtime",
            # A server that is gone without a word is noticed.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": int(1000 * seconds),
            "options": f"{options}-c statement_timeout={limit} "
            f"-c idle_in_transaction_session_timeout={2 * limit}",
        }
        engine = create_engine(
            self.url.difference_update_query(["options"]),
            connect_args=arguments,
            # What is measured does not belong into messages.
            hide_parameters=True,
            **(
                {"poolclass": QueuePool, "pool_size": 4, "max_overflow": -1}
                if pooled
                else {"poolclass": NullPool}
            ),
        )
        _limit_connecting(engine, 2 * seconds + 2)
        return engine

    def error(self, error: SQLAlchemyError) -> ServerError:
        """Return the error of this package that a driver's error amounts to."""
        original = getattr(error, "orig", None) or error
        lines = [line.strip() for line in str(original).splitlines() if line.strip()]
        reason = lines[0] if lines else type(original).__name__
        password = self.url.password
        if password:
            reason = reason.replace(str(password), "…")
        return ServerError(f"{self.name}: {reason}")


def _limit_connecting(engine: Engine, seconds: float) -> None:
    """Cut a connection whose first questions, which SQLAlchemy asks, hang."""

    def connect(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
        driver = dialect.connect(*arguments, **options)
        timer = threading.Timer(seconds, cut, [driver])
        timer.daemon = True
        timer.start()
        record.info["timer"] = timer
        return driver

    def checked_out(driver: Any, record: Any, proxy: Any) -> None:
        timer = record.info.pop("timer", None)
        if timer is not None:
            timer.cancel()

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "checkout", checked_out)


@contextmanager
def limited(connection: Connection, seconds: float) -> Generator[None]:
    """Cut a connection that has not answered after ``seconds``.

    The driver waits for an answer for ever, as long as the far end's machine, or what
    is in between, keeps the connection up.
    """
    driver: Any = connection.connection.driver_connection
    timer = threading.Timer(seconds, cut, [driver])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def cut(driver: Any) -> None:
    """Make whoever waits for this connection stop waiting, from another thread."""
    with suppress(Exception):
        duplicate = socket.socket(fileno=os.dup(driver.fileno()))
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        finally:
            duplicate.close()


# ----------------------------------------------------------------------------- tables


def prepare(connection: Connection, server: Server) -> None:
    """Make the tables in an empty database, or check those that are there.

    Parameters
    ----------
    connection
        Inside a transaction.
    server
        For messages.

    Raises
    ------
    BeamtimeFileError, NewerVersionError
        What is there is not a beamtime of this version; nothing was changed.
    """
    if check(connection, server):
        return
    connection.execute(select(_call("pg_advisory_xact_lock", _LOCK)))
    # Somebody else may have made them meanwhile.
    if check(connection, server):
        return
    schema.metadata.create_all(connection)
    tables.metadata.create_all(connection)
    for function in FUNCTIONS:
        connection.execute(function)
    _index_text(connection)
    connection.execute(
        insert(schema.meta).values(
            key=_VERSION, value=json.dumps(schema.SCHEMA_VERSION)
        )
    )


def _call(name: str, *arguments: Any) -> Any:
    from sqlalchemy import func

    return getattr(func, name)(*arguments)


def check(connection: Connection, server: Server) -> bool:
    """Say whether the tables are there, and ours.

    Raises
    ------
    BeamtimeFileError, NewerVersionError
        There are others, or those of another version.
    """
    there = set(inspect(connection).get_table_names())
    ours = set(schema.metadata.tables) | set(tables.metadata.tables)
    if not there & ours:
        return False
    value = None
    if "meta" in there and "replica_sources" in there:
        query = select(schema.meta.c.value).where(schema.meta.c.key == _VERSION)
        value = connection.execute(query).scalar()
    if value is None:
        raise BeamtimeFileError(
            f"{server} has tables of another program ({', '.join(sorted(there))}); "
            "nothing was changed. Give a database of its own: createdb NAME"
        )
    version = int(json.loads(value))
    if version > schema.SCHEMA_VERSION:
        raise NewerVersionError(
            f"{server} was made by a newer version of bluesky-beamtime (its tables "
            f"have version {version}, this one knows {schema.SCHEMA_VERSION}); nothing "
            "was changed. Upgrade: pip install -U bluesky-beamtime"
        )
    if version < schema.SCHEMA_VERSION:
        raise BeamtimeFileError(
            f"{server} has tables of version {version}, and this version knows "
            f"{schema.SCHEMA_VERSION}; nothing was changed. Make another database and "
            "replicate into it: beamtime replicate FILE URL"
        )
    return True


def _index_text(connection: Connection) -> None:
    """Make full text quick, where the server has what that takes."""
    try:
        with connection.begin_nested():
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
            connection.execute(
                text(
                    "CREATE INDEX run_texts_words ON run_texts "
                    'USING gin ((text COLLATE "default") gin_trgm_ops)'
                )
            )
    except DBAPIError:
        # Not installed there, or not ours to install: searches look at every run.
        return
