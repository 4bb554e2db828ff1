"""The whole of a database as one file, as it was at one moment."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from bluesky_beamtime.database.failures import translate
from bluesky_beamtime.database.opening import check_path
from bluesky_beamtime.database.readonly import Reader
from bluesky_beamtime.errors import BeamtimeError, DatabaseWriteError


def take_snapshot(path: Path, target: Path) -> None:
    """Copy a beamtime's database while others may record into it.

    What was committed when this began is in the copy, and nothing that came later. It
    is one file without side files, byte for byte the same if nothing has changed
    meanwhile. Whoever records goes on; on a network disk, where there is no write-ahead
    log, they wait for the copy.

    Parameters
    ----------
    path
        The database file, of any version that can be read; not changed.
    target
        The copy, which does not exist yet.

    Raises
    ------
    BeamtimeFileError, NewerVersionError
        It is not a beamtime that can be read.
    DatabaseWriteError
        The disk of the copy refused; nothing is left there.
    """
    check_path(path, create=False)
    reader = Reader(path)
    try:
        with blaming(path, target), closing(reader.connect()) as source:
            copy_database(source, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        reader.close()


def copy_database(source: sqlite3.Connection, target: Path) -> None:
    """Copy what a connection sees into a file of its own, through SQLite.

    Raises
    ------
    sqlite3.Error
        The source cannot be read, or the disk refused.
    """
    with closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        # One file, without side files: it may be carried away as it is.
        copy.execute("PRAGMA journal_mode = DELETE")


@contextmanager
def blaming(path: Path, target: Path) -> Generator[None]:
    """Translate what SQLite refuses of a copy, which nobody knows by its own name.

    Parameters
    ----------
    path
        The file that was copied: what is damaged in the copy is damaged there.
    target
        The copy.

    Raises
    ------
    BeamtimeFileError
        The file is damaged.
    DatabaseWriteError
        The disk of the copy refused.
    """
    try:
        yield
    except BeamtimeError:
        # Some of these are errors of SQLite too, and say already what it is.
        raise
    except sqlite3.Error as error:
        raise _refused(path, target, error) from error


def _refused(path: Path, target: Path, error: sqlite3.Error) -> Exception:
    found = translate(error, path)
    if not isinstance(found, DatabaseWriteError):
        return found
    # SQLite names no file, and it is not the source that is full.
    why = os.strerror(found.errno) if found.errno else str(error)
    return DatabaseWriteError(
        f"cannot copy {str(path)!r} to {str(target)!r}: {why}; free some space there, "
        "or set TMPDIR to a folder on another disk",
        errno=found.errno,
        filename=str(target),
    )
