"""Bringing a file of an older version up to date, all of it or nothing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bluesky_beamtime.database.connect import (
    connect_to_read,
    connect_to_write,
    retry_busy,
)
from bluesky_beamtime.database.failures import translate
from bluesky_beamtime.database.liveness import live_writers
from bluesky_beamtime.database.migrations import STEPS
from bluesky_beamtime.database.opening import check_path, check_version, check_writable
from bluesky_beamtime.database.schema import SCHEMA_VERSION
from bluesky_beamtime.database.snapshot import copy_database
from bluesky_beamtime.errors import (
    BeamtimeError,
    BeamtimeFileError,
    DatabaseWriteError,
    RunStateError,
)


@dataclass(frozen=True, slots=True)
class Migration:
    """What :func:`migrate` did."""

    path: Path
    """The file."""
    before: int
    """Version of its tables as it was found."""
    after: int
    """Version that it has now."""
    backup: Path | None
    """Copy of the file as it was; None if none was made."""

    def __str__(self) -> str:
        """Say it in one line."""
        if self.before == self.after:
            return f"{self.path}: has version {self.after} already; nothing was changed"
        kept = "" if self.backup is None else f"; as it was: {self.backup.name}"
        return f"{self.path}: version {self.before} → {self.after}{kept}"


def migrate(path: str | os.PathLike[str], *, backup: bool = True) -> Migration:
    """Bring the tables of a beamtime up to the version that this package writes.

    Everything happens in one transaction: whenever the process ends, the file is of the
    old version or of the new one, and whole. Doing it again changes nothing. Frames are
    not touched.

    Parameters
    ----------
    path
        The database file.
    backup
        Keep a copy as it was, ``x.db.v1-backup`` for a file ``x.db`` of version 1. To
        go back, let it take the place of the file.

    Returns
    -------
    Migration
        From which version to which, and where the copy is.

    Raises
    ------
    BeamtimeFileError, NewerVersionError
        It is not a beamtime that can be brought up to date; nothing was changed.
    RunStateError
        A live process records into it; nothing was changed.
    ReadOnlyError
        It cannot be written.
    DatabaseWriteError
        The disk refused; the file is as it was.
    """
    file = Path(path).expanduser().resolve()
    check_path(file, create=False)
    with closing(connect_to_read(file)) as connection:
        before = check_version(connection, file)
    if before == SCHEMA_VERSION:
        return Migration(file, before, before, None)
    check_writable(file)
    copy: Path | None = None
    try:
        # "power": the new version is on the disk itself before anybody relies on it.
        with closing(connect_to_write(file, "power")) as connection:
            # Statements that change a table would carry its references along.
            connection.execute("PRAGMA foreign_keys = OFF")
            retry_busy(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                # Nobody can begin to write from here on.
                before = check_version(connection, file)
                if before < SCHEMA_VERSION:
                    _refuse_live(file)
                    copy = _back_up(file, before) if backup else None
                    _take_steps(connection, file, before)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except BeamtimeError:
        # Some are errors of SQLite as well.
        raise
    except sqlite3.Error as error:
        raise translate(error, file) from error
    return Migration(file, before, SCHEMA_VERSION, copy)


def _refuse_live(file: Path) -> None:
    if live_writers(file):
        raise RunStateError(
            f"{str(file)!r} is being recorded into by a live process; close it there, "
            "and migrate the file then. Nothing was changed"
        )


def _take_steps(connection: sqlite3.Connection, file: Path, before: int) -> None:
    for version in range(before, SCHEMA_VERSION):
        if version not in STEPS:
            raise BeamtimeFileError(
                f"{str(file)!r} has tables of version {version}, from which no step "
                "leads on; nothing was changed. Report this, with the output of "
                "'beamtime --version'"
            )
        for statement in STEPS[version]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version + 1}")
    broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise BeamtimeFileError(
            f"{str(file)!r}: {len(broken)} rows refer to what is not there, the first "
            f"in the table {broken[0][0]!r}; nothing was changed. See 'beamtime verify'"
        )


def _back_up(file: Path, version: int) -> Path:
    """Copy the database, through SQLite, so that its log is part of the copy."""
    partial = file.with_name(f".{file.name}.backup-partial")
    try:
        partial.unlink(missing_ok=True)
        with closing(connect_to_read(file)) as source:
            copy_database(source, partial)
        _sync(partial)
        backup = _link(partial, file, version)
        _sync(file.parent)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise DatabaseWriteError(
            f"cannot keep a copy of {str(file)!r}: {why}; free some space, or migrate "
            "without one (--no-backup). Nothing was changed",
            errno=error.errno,
            filename=str(partial),
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return backup


def _link(partial: Path, file: Path, version: int) -> Path:
    """Give the copy its name; an older copy keeps its own, it may be all there is."""
    for number in count(1):
        suffix = f".v{version}-backup" + (f"-{number}" if number > 1 else "")
        backup = file.with_name(file.name + suffix)
        try:
            os.link(partial, backup)
        except FileExistsError:
            continue
        except OSError:
            # A file system without links.
            if backup.exists():
                continue
            partial.rename(backup)
        return backup
    raise AssertionError


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
