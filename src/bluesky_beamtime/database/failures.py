"""SQLite's errors as errors of this package, with the file and the next step."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from bluesky_beamtime.errors import (
    BeamtimeFileError,
    DatabaseError,
    DatabaseWriteError,
    DocumentError,
    IntegrityError,
)

_PRIMARY = 0xFF


def primary_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code of an error, None if it has none."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY


def is_busy(error: sqlite3.Error) -> bool:
    """Say whether another connection was in the way, so that trying again helps."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def translate(error: sqlite3.Error, path: Path) -> DatabaseError:
    """Return the error of this package that ``error`` amounts to."""
    code = primary_code(error)
    name = str(path)
    if code == sqlite3.SQLITE_FULL:
        return DatabaseWriteError(
            f"cannot write to {name!r}: no space left on the disk; free some space and "
            "go on: what was recorded is safe",
            errno=errno.ENOSPC,
            filename=name,
        )
    if is_busy(error):
        return DatabaseWriteError(
            f"cannot write to {name!r}: another program keeps it locked; close the "
            "program that has a transaction open in it",
            errno=errno.EBUSY,
            filename=name,
        )
    if code in (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    ):
        return DatabaseWriteError(
            f"cannot use {name!r}: {error}; check the disk, and the permissions of the "
            "file and its folder",
            errno=errno.EIO if code == sqlite3.SQLITE_IOERR else errno.EACCES,
            filename=name,
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return BeamtimeFileError(
            f"{name!r} is damaged: {error}; keep a copy, and see what "
            "'sqlite3 FILE .recover' brings back"
        )
    if isinstance(error, sqlite3.IntegrityError):
        return IntegrityError(f"{name!r} refused a record: {error}")
    if isinstance(error, (sqlite3.DataError, sqlite3.InterfaceError)):
        return DocumentError(f"{name!r} cannot hold a value: {error}")
    return DatabaseError(f"{name!r}: {error}")
