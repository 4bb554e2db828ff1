"""Connections of the driver, for those that write and those that only read."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from bluesky_beamtime.database.failures import is_busy
from bluesky_beamtime.database.network import is_on_network
from bluesky_beamtime.sqlite_locks import LockingConnection

Durability = Literal["kill", "power"]

_BUSY_TIMEOUT = 30.0


def connect_to_write(path: Path, durability: Durability) -> sqlite3.Connection:
    """Open a connection that writes, in autocommit, for one thread at a time.

    Raises
    ------
    sqlite3.Error
        The file cannot be opened.
    """
    connection = open_keeping_locks(path)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        # Without a write-ahead log a power cut could damage the file otherwise.
        full = durability == "power" or is_on_network(path)
        level = "FULL" if full else "NORMAL"
        connection.execute(f"PRAGMA synchronous = {level}")
        # The log is kept short by LogSyncer; this is for when that cannot.
        connection.execute("PRAGMA wal_autocheckpoint = 16000")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path, flags: str = "") -> sqlite3.Connection:
    """Open a connection that cannot write, in autocommit, for one thread at a time.

    Parameters
    ----------
    path
        The database file.
    flags
        More parameters of SQLite's URI.

    Raises
    ------
    sqlite3.Error
        The file cannot be opened.
    """
    return open_keeping_locks(path, f"?mode=ro{flags}")


def open_keeping_locks(
    path: Path, parameters: str = "", *, timeout: float = _BUSY_TIMEOUT
) -> sqlite3.Connection:
    """Open a connection in autocommit whose file may be read byte by byte meanwhile.

    Parameters
    ----------
    path
        The database file.
    parameters
        Of SQLite's URI, from the question mark on.
    timeout
        Seconds to wait for others who write.

    Raises
    ------
    sqlite3.Error
        The file cannot be opened.
    """
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path.absolute()))}{parameters}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        factory=LockingConnection,
    )
    try:
        connection.keep_locks(path)
    except OSError as error:
        connection.close()
        # It has just gone: as SQLite says it of a file that went a moment earlier.
        raise sqlite3.OperationalError("unable to open database file") from error
    return connection


def retry_busy(action: Callable[[], object], timeout: float = _BUSY_TIMEOUT) -> None:
    """Do ``action`` again while another connection is in the way.

    SQLite waits by itself for another writer; but not while a connection closes as the
    last one, or recovers the log after a crash.
    """
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        try:
            action()
            return
        except UnicodeDecodeError as error:
            # See check_version().
            raise sqlite3.DatabaseError(f"the schema is damaged: {error}") from error
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
