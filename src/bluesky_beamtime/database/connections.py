"""Every connection of one process to one file, to be closed together."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import QueuePool, StaticPool

from bluesky_beamtime.database.connect import Durability, connect_to_write
from bluesky_beamtime.database.durability import LogSyncer, checkpoint
from bluesky_beamtime.database.failures import translate
from bluesky_beamtime.database.readonly import Reader
from bluesky_beamtime.errors import ReadOnlyError

Mode = Literal["a", "r"]


class Connections:
    """What must be closed. Does not refer to the Database, which can be collected."""

    def __init__(
        self, path: Path, mode: Mode, durability: Durability, reader: Reader
    ) -> None:
        self._path = path
        self._mode = mode
        self._durability: Durability = durability
        self._reader = reader
        self.lock = threading.RLock()
        self.syncer: LogSyncer | None = None
        self._writer: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None
        self._writer_engine: Engine | None = None
        self.readers = create_engine(
            "sqlite://",
            creator=self._reader.connect,
            poolclass=QueuePool,
            pool_size=4,
            max_overflow=-1,
            isolation_level="AUTOCOMMIT",
        )

    def cursor(self) -> sqlite3.Cursor:
        """Return the cursor that writes; the lock is held."""
        cursor = self._cursor
        return self._connect() if cursor is None else cursor

    def _connect(self) -> sqlite3.Cursor:
        if self._mode == "r":
            raise ReadOnlyError(
                f"{str(self._path)!r} was opened with mode='r'; open it with mode='a' "
                "to change it"
            )
        try:
            writer = connect_to_write(self._path, self._durability)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        self._writer, self._cursor = writer, writer.cursor()
        self.syncer = LogSyncer(
            self._path,
            lambda: connect_to_write(self._path, self._durability),
        )
        return self._cursor

    def committed(self, cursor: sqlite3.Cursor) -> None:
        """Tell the syncer that there is something to sync; the lock is held."""
        syncer = self.syncer
        if syncer is not None:
            syncer.committed()
            if syncer.unfinished:
                syncer.unfinished = False
                with suppress(sqlite3.Error):
                    checkpoint(cursor)

    def writer_engine(self) -> Engine:
        """Return SQLAlchemy's view of the connection that writes; the lock is held."""
        if self._writer_engine is None:
            writer = cast("sqlite3.Connection", self._writer)
            self._writer_engine = create_engine(
                "sqlite://", creator=lambda: _Borrowed(writer), poolclass=StaticPool
            )
        return self._writer_engine

    def close(self) -> None:
        """Bring everything to the disk and close all connections."""
        syncer = self.syncer
        if syncer is not None:
            syncer.stop()
        with self.lock:
            self.readers.dispose()
            if self._writer is not None:
                # SQLite moves the log into the file and removes it, if nobody else has
                # the file open.
                self._writer.close()
            self._writer = self._cursor = self._writer_engine = None
        self._reader.close()

    def abandon(self) -> None:
        """Let go of everything without touching it, in a forked child."""
        self.readers.dispose(close=False)


class _Borrowed:
    """The writing connection as SQLAlchemy sees it: transactions are not its business.

    :meth:`Database.writing` begins and ends them, with the driver's own cursor.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def commit(self) -> None:
        """Do nothing."""

    def rollback(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
