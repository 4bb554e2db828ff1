"""Connections of the driver, for those that write and those that only read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from bluesky_beamtime.database.failures import is_busy
from bluesky_beamtime.database.network import is_on_network

Durability = Literal["kill", "power"]

_BUSY_TIMEOUT = 30.0


def connect_to_write(path: Path, durability: Durability) -> sqlite3.Connection:
    """Open a connection that writes, in autocommit, for one thread at a time.

    Raises
    ------
    sqlite3.Error
        The file cannot be opened.
    """
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
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
    uri = f"file:{quote(str(path.absolute()))}?mode=ro{flags}"
    return sqlite3.connect(
        uri,
        uri=True,
        timeout=_BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
    )


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
