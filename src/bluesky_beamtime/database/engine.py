"""The connections to one beamtime: who writes, who reads, and when it is safe."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from bluesky_beamtime.database.connect import Durability, retry_busy
from bluesky_beamtime.database.connections import Connections, Mode
from bluesky_beamtime.database.failures import is_busy, translate
from bluesky_beamtime.database.opening import check_path, create_or_check
from bluesky_beamtime.database.readonly import Reader
from bluesky_beamtime.errors import DatabaseError

Row = Sequence[Any]

_databases: weakref.WeakSet[Database] = weakref.WeakSet()
# Connections that a forked child inherited. SQLite must not see them again there, not
# even to close them.
_inherited: list[Any] = []


class Database:
    """The file of a beamtime, for any number of threads.

    One connection of the process writes, guarded by a lock; every thread reads through
    a connection of its own, which sees what was committed. Readers and the writer do
    not wait for each other, nor do other processes that read; other writers wait for at
    most one commit.

    Parameters
    ----------
    path
        The file. With ``mode="a"`` it is made if it does not exist.
    mode
        ``"a"`` to record, ``"r"`` to read without changing a byte.
    durability
        ``"kill"``: what was committed survives the death of the process at once and a
        power cut 50 ms later; ``"power"``: it survives a power cut at once.

    Raises
    ------
    BeamtimeFileError, NewerVersionError
        The file is not a beamtime of this version; it was not changed.
    ReadOnlyError
        ``mode="a"`` where nothing can be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "a",
        durability: Durability = "kill",
    ) -> None:
        if mode not in ("a", "r"):
            raise ValueError(f"mode is 'a' to record or 'r' to read, not {mode!r}")
        if durability not in ("kill", "power"):
            raise ValueError(f"durability is 'kill' or 'power', not {durability!r}")
        # Without links, as the URIs of frames are: what lies in the folder is found.
        self.path = Path(path).expanduser().resolve()
        self.mode: Mode = mode
        self.durability: Durability = durability
        if mode == "a":
            create_or_check(self.path, durability)
        else:
            check_path(self.path, create=False)
        self.readable: Sequence[Path] | None = None
        self._reader = Reader(self.path)
        self._connections = self._connect()
        self._finalizer = weakref.finalize(self, self._connections.close)
        _databases.add(self)

    @property
    def folder(self) -> Path:
        """Folder of the file."""
        return self.path.parent

    @property
    def store(self) -> Path:
        """Zarr store beside the file: ``x.zarr`` for ``x.db``."""
        name = self.path.name
        return self.path.with_name(f"{name.removesuffix('.db')}.zarr")

    @property
    def files(self) -> Path:
        """Folder for files that detectors write themselves: ``x_files`` for ``x.db``.

        Beside the store: in a Zarr hierarchy there is nothing but Zarr.
        """
        name = self.path.name
        return self.path.with_name(f"{name.removesuffix('.db')}_files")

    @property
    def journal(self) -> Path:
        """File for the documents that could not be stored, beside the file."""
        name = self.path.name
        return self.path.with_name(f"{name.removesuffix('.db')}.journal.jsonl")

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return not self._finalizer.alive

    # ---------------------------------------------------------------------- reading

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Lend a connection that reads; each statement sees all that is committed.

        Raises
        ------
        DatabaseError
            The beamtime is closed, or the file is damaged.
        """
        try:
            with self._open().readers.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise _original(error, self.path) from error

    # ---------------------------------------------------------------------- writing

    def insert(self, sql: str, row: Row) -> bool:
        """Execute one compiled INSERT and commit; return whether a row was added.

        The fast way for documents that come a thousand times a second.

        Raises
        ------
        DatabaseError
            Nothing was stored; the subclass and the message say why.
        """
        connections = self._open()
        with connections.lock:
            cursor = connections.cursor()
            try:
                cursor.execute(sql, row)
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise self._failed(error) from error
                self._again(cursor, sql, row)
            added = cursor.rowcount > 0
            connections.committed(cursor)
        return added

    def _again(self, cursor: sqlite3.Cursor, sql: str, row: Row) -> None:
        try:
            retry_busy(lambda: cursor.execute(sql, row))
        except sqlite3.Error as error:
            raise self._failed(error) from error

    @contextmanager
    def inserting(self) -> Generator[sqlite3.Cursor]:
        """Lend the driver's cursor within one transaction, for compiled statements.

        Everything is committed at the end, or nothing if an exception leaves the block.
        May be nested: the outermost block commits.

        Raises
        ------
        DatabaseError
            Nothing was stored.
        """
        connections = self._open()
        with connections.lock:
            cursor = connections.cursor()
            if cursor.connection.in_transaction:
                yield cursor
                return
            try:
                retry_busy(lambda: cursor.execute("BEGIN IMMEDIATE"))
                try:
                    yield cursor
                    retry_busy(lambda: cursor.execute("COMMIT"))
                except BaseException:
                    # A full disk makes SQLite roll back by itself.
                    with suppress(sqlite3.Error):
                        if cursor.connection.in_transaction:
                            cursor.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._failed(error) from error
            connections.committed(cursor)

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Lend an SQLAlchemy connection within one transaction.

        Raises
        ------
        DatabaseError
            Nothing was stored.
        """
        connections = self._open()
        with self.inserting():
            try:
                with connections.writer_engine().connect() as connection:
                    yield connection
            except DBAPIError as error:
                raise _original(error, self.path) from error

    def also_sync(self, sync: Any) -> None:
        """Have ``sync()`` called, in a thread, whenever commits go to the disk."""
        syncer = self._open().syncer
        if syncer is not None:
            syncer.also(sync)

    def forget_sync(self, sync: Any) -> None:
        """Undo :meth:`also_sync`."""
        syncer = self._connections.syncer
        if syncer is not None:
            syncer.forget(sync)

    def _failed(self, error: sqlite3.Error) -> DatabaseError:
        return translate(error, self.path)

    # ------------------------------------------------------------------- life cycle

    def _connect(self) -> Connections:
        return Connections(self.path, self.mode, self.durability, self._reader)

    def _open(self) -> Connections:
        if not self._finalizer.alive:
            raise DatabaseError(f"{str(self.path)!r} is closed; open it again")
        return self._connections

    def close(self) -> None:
        """Bring everything to the disk, close all; may be called again."""
        self._finalizer()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"mode={self.mode!r}"
        return f"<Database {str(self.path)!r} {state}>"

    def after_fork_in_child(self) -> None:
        """Let go of what the parent uses; the child connects anew when it needs to."""
        if self._finalizer.alive:
            self._finalizer.detach()
            _inherited.append(self._connections)
            self._connections.abandon()
            self._connections = self._connect()
            self._finalizer = weakref.finalize(self, self._connections.close)


def _original(error: DBAPIError, path: Path) -> Exception:
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return translate(original, path)
    return error


def _after_fork_in_child() -> None:
    for database in tuple(_databases):
        database.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
