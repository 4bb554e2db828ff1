"""Reading a beamtime without changing a byte, also where nothing can be written."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from bluesky_beamtime.database.connect import connect_to_read, retry_busy
from bluesky_beamtime.database.failures import primary_code, translate
from bluesky_beamtime.database.opening import check_version, log_size
from bluesky_beamtime.database.schema import SCHEMA_VERSION
from bluesky_beamtime.database.shadows import Shadows


class Reader:
    """Opens connections that read a beamtime and change no byte of it.

    On a disk that cannot be written SQLite has no room for the small files that a
    reader shares with a writer. There is no writer there, so they are not needed; if a
    killed writer left records in the log, they are read from a temporary copy. What a
    file of an older version lacks stands beside it, see
    :mod:`~bluesky_beamtime.database.shadows`.

    Parameters
    ----------
    path
        The database file, which exists.

    Raises
    ------
    BeamtimeFileError, NewerVersionError
        Not a beamtime that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._flags = ""
        self._source = path
        self._shadows: Shadows | None = None
        try:
            self._choose_way()
        except BaseException:
            self.close()
            raise

    def _choose_way(self) -> None:
        if self._can_read():
            return
        if log_size(self.path) == 0:
            self._flags = "&immutable=1"
        else:
            self._copy = tempfile.TemporaryDirectory(prefix="beamtime-")
            self._source = Path(self._copy.name, self.path.name)
            shutil.copyfile(self.path, self._source)
            shutil.copyfile(f"{self.path}-wal", f"{self._source}-wal")
        with closing(self.connect()) as connection:
            self._look_at(connection)

    def _look_at(self, connection: sqlite3.Connection) -> None:
        if check_version(connection, self.path) < SCHEMA_VERSION:
            try:
                self._shadows = Shadows(connection)
            except sqlite3.Error as error:
                raise translate(error, self.path) from error

    def _can_read(self) -> bool:
        with closing(self.connect()) as connection:
            try:
                retry_busy(
                    lambda: connection.execute("SELECT count(*) FROM sqlite_master")
                )
            except sqlite3.OperationalError as error:
                # "unable to open", "attempt to write a readonly database"
                refused = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
                if primary_code(error) in refused:
                    return False
                raise translate(error, self.path) from error
            except sqlite3.DatabaseError:
                pass
            self._look_at(connection)
        return True

    def connect(self) -> sqlite3.Connection:
        """Open a connection in autocommit, for any thread but one at a time."""
        connection = connect_to_read(self._source, self._flags)
        if self._shadows is not None:
            try:
                self._shadows.cast(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def close(self) -> None:
        """Remove the temporary copy, if there is one."""
        if self._shadows is not None:
            self._shadows.close()
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None
