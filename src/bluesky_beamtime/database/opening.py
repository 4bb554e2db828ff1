"""Is this file a beamtime? Connecting to it, and making a new one.

Nothing here changes a file that is not a beamtime, or one from another version.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from bluesky_beamtime.database.connect import (
    Durability,
    connect_to_read,
    connect_to_write,
    retry_busy,
)
from bluesky_beamtime.database.failures import is_busy, primary_code, translate
from bluesky_beamtime.database.network import file_system_of, journal_mode_for
from bluesky_beamtime.database.schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    SQLITE_EXTRAS,
    metadata,
)
from bluesky_beamtime.errors import (
    BeamtimeFileError,
    DatabaseWriteError,
    NewerVersionError,
    OlderVersionError,
    ReadOnlyError,
)
from bluesky_beamtime.sqlite_locks import first_bytes

_MAGIC = b"SQLite format 3\0"
_USER_VERSION_AT = 60
_APPLICATION_ID_AT = 68


def check_path(path: Path, *, create: bool) -> bool:
    """Return whether there is a file at ``path``; refuse what cannot be a beamtime.

    Parameters
    ----------
    path
        The database file.
    create
        Whether a missing file will be created.

    Raises
    ------
    BeamtimeFileError
        The path cannot be one of a beamtime, or there is another kind of file.
    """
    name = str(path)
    if path.suffix == ".zarr":
        raise BeamtimeFileError(
            f"{name!r} is the name of a store of frames; give the database, such as "
            f"{path.with_suffix('.db').name!r}: its frames go to {path.name!r} by "
            "themselves"
        )
    if path.is_dir():
        raise BeamtimeFileError(
            f"{name!r} is a folder; a beamtime is a file, such as "
            f"{str(path / 'beamtime.db')!r}"
        )
    # Asked before the header is read: a log that goes leaves its content in the header.
    logged = log_size(path) > 0
    try:
        header = first_bytes(path, 100)
    except FileNotFoundError:
        if not create:
            raise BeamtimeFileError(
                f"there is no beamtime at {name!r}; check the path. In Python, "
                f"Beamtime({path.name!r}) starts one"
            ) from None
        if not path.parent.is_dir():
            raise BeamtimeFileError(
                f"there is no folder {str(path.parent)!r} for {path.name!r}; make it "
                "first, or check the path"
            ) from None
        return False
    except OSError as error:
        raise BeamtimeFileError(
            f"cannot read {name!r}: {os.strerror(error.errno or 0)}; check the path "
            "and its permissions"
        ) from error
    if not header:
        if create:
            return False
        raise BeamtimeFileError(f"{name!r} is empty, it is not a beamtime")
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise _no_beamtime(path, "it is not an SQLite database")
    (application,) = struct.unpack_from(">I", header, _APPLICATION_ID_AT)
    (version,) = struct.unpack_from(">I", header, _USER_VERSION_AT)
    # While somebody makes the file its numbers are zero, or in the write-ahead log
    # alone: then only SQLite can tell what it is.
    if (application or version) and not logged:
        _check_numbers(path, application, version)
    return True


def create_or_check(path: Path, durability: Durability) -> None:
    """Make the tables if ``path`` is new, else check that it can be recorded into.

    Two processes may do this at the same time.

    Raises
    ------
    BeamtimeFileError, NewerVersionError, OlderVersionError
        A file that is not a beamtime, or not one of this version.
    ReadOnlyError
        The file or its folder cannot be written.
    """
    exists = check_path(path, create=True)
    check_writable(path)
    version = 0
    if exists:
        # Look without changing anything, not even the journal mode.
        with closing(connect_to_read(path)) as connection:
            version = check_version(connection, path, may_be_new=True)
    if version:
        _refuse_older(path, version)
        _choose_journal(path)
        return
    try:
        with closing(connect_to_write(path, durability)) as connection:
            mode = journal_mode_for(path)
            retry_busy(lambda: connection.execute(f"PRAGMA journal_mode = {mode}"))
            retry_busy(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                if not check_version(connection, path, may_be_new=True):
                    _create_tables(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        raise translate(error, path) from error


def check_writable(path: Path) -> None:
    """Raise unless a file, which may not be there yet, can be written.

    Raises
    ------
    ReadOnlyError
        The file or its folder cannot be written.
    """
    places = [path.parent, path] if path.exists() else [path.parent]
    if not all(os.access(place, os.W_OK) for place in places):
        raise ReadOnlyError(
            f"{str(path)!r} cannot be written, nor recorded into; open it with mode='r'"
        )


def _choose_journal(path: Path) -> None:
    """Use the write-ahead log, unless the file has moved to a network disk.

    Copies are made without one: they are single files.

    Raises
    ------
    DatabaseWriteError
        Another program has the file open.
    """
    if journal_mode_for(path) == "wal":
        # Others may have it open as it is: then it stays so until the next time.
        with suppress(sqlite3.Error):
            _begin_log(path)
        return
    try:
        with closing(connect_to_write(path, "power")) as connection:
            if _journal_mode(connection) == "wal":
                connection.execute("PRAGMA journal_mode = truncate").fetchone()
            if _journal_mode(connection) == "wal":
                raise sqlite3.OperationalError("the write-ahead log is in use")
    except sqlite3.Error as error:
        raise DatabaseWriteError(
            f"{str(path)!r} is on a network disk ({file_system_of(path)}), where its "
            f"write-ahead log is not safe, and it cannot be changed: {error}; close it "
            "everywhere and open it again, or record to a local disk",
            errno=errno.EBUSY,
            filename=str(path),
        ) from error


def _begin_log(path: Path) -> None:
    with closing(connect_to_read(path)) as connection:
        if _journal_mode(connection) == "wal":
            return
    with closing(connect_to_write(path, "power")) as connection:
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA journal_mode = wal").fetchone()


def _journal_mode(connection: sqlite3.Connection) -> str:
    return connection.execute("PRAGMA journal_mode").fetchone()[0]


def _refuse_older(path: Path, version: int) -> None:
    if version < SCHEMA_VERSION:
        raise OlderVersionError(
            f"{str(path)!r} was written by an older version of bluesky-beamtime (its "
            f"tables have version {version}, this one writes {SCHEMA_VERSION}); "
            "nothing was changed. To record into it: beamtime migrate "
            f"{path.name}; to read it as it is, open it with mode='r'"
        )


def _create_tables(connection: sqlite3.Connection) -> None:
    dialect = sqlite.dialect()
    for table in metadata.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(str(CreateIndex(index).compile(dialect=dialect)))
    for extra in SQLITE_EXTRAS:
        connection.execute(extra.statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def check_version(
    connection: sqlite3.Connection, path: Path, *, may_be_new: bool = False
) -> int:
    """Return the schema version of an open file, 0 for an empty one.

    Raises
    ------
    BeamtimeFileError, NewerVersionError
        It is not a beamtime that this version knows.
    """
    # All three at one moment: somebody may just be making the file.
    alone = not connection.in_transaction
    try:
        if alone:
            connection.execute("BEGIN")
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if alone:
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        if is_busy(error) or primary_code(error) == sqlite3.SQLITE_CORRUPT:
            raise translate(error, path) from error
        raise _no_beamtime(path, f"SQLite says: {error}") from error
    except UnicodeDecodeError as error:
        # What SQLite says of a damaged schema quotes its bytes as they are.
        raise _no_beamtime(path, f"its schema is damaged: {error}") from error
    if may_be_new and application == version == tables == 0:
        return 0
    _check_numbers(path, application, version)
    return version


def _check_numbers(path: Path, application: int, version: int) -> None:
    if application != APPLICATION_ID:
        raise _no_beamtime(path, "it is the SQLite database of another program")
    if version > SCHEMA_VERSION:
        raise NewerVersionError(
            f"{str(path)!r} was written by a newer version of bluesky-beamtime (its "
            f"tables have version {version}, this one knows {SCHEMA_VERSION}); nothing "
            "was changed. Upgrade: pip install -U bluesky-beamtime"
        )


def _no_beamtime(path: Path, reason: str) -> BeamtimeFileError:
    return BeamtimeFileError(
        f"{str(path)!r} is not a beamtime: {reason}; nothing was changed. "
        "Give the .db file of a beamtime, or a new name to start one"
    )


def log_size(path: Path) -> int:
    """Return the bytes in the write-ahead log of a database."""
    try:
        return os.stat(path.with_name(f"{path.name}-wal")).st_size
    except OSError:
        return 0
