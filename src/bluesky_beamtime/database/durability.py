"""Bringing committed records to the disk itself, beside the thread that commits."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

logger = logging.getLogger(__name__)

# A power cut may take what was committed in the last 50 ms; fsync itself takes the
# rest.
_PERIOD = 0.035
# About 4000 pages of write-ahead log. Looking up a page takes longer the longer the log
# is: an insert takes 35 µs with a short one and 80 µs after 60 000 pages.
_COMMITS_PER_CHECKPOINT = 1000
_LONG_LOG = 8000
_IDLE_CHECKPOINT = 2.0


class LogSyncer:
    """Fsyncs the write-ahead log soon after each commit, and keeps it short.

    A daemon thread does both, so that the thread that records events never waits for
    the disk. The log is fsynced through a descriptor of its own; the database file
    itself is never opened here other than by SQLite, because closing any descriptor of
    it would drop SQLite's locks.

    Parameters
    ----------
    path
        The database file.
    connect
        Opens a connection to it.

    Attributes
    ----------
    unfinished : bool
        Whether the log has grown long because events came in while it was moved into
        the database; whoever writes next should move the rest, which is little.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], sqlite3.Connection],
    ) -> None:
        self._log = path.with_name(f"{path.name}-wal")
        self._connect = connect
        self._dirty = threading.Event()
        self._stopping = threading.Event()
        self._commits = 0
        self.unfinished = False
        self._also: list[Callable[[], None]] = []
        self._thread = threading.Thread(
            target=self._run, name=f"beamtime-sync-{path.name}", daemon=True
        )
        self._thread.start()

    def committed(self) -> None:
        """Say that something was committed; costs next to nothing."""
        self._commits += 1
        if not self._dirty.is_set():
            self._dirty.set()

    def also(self, sync: Callable[[], None]) -> None:
        """Have ``sync`` called whenever the log is fsynced, in the thread of this."""
        self._also.append(sync)

    def forget(self, sync: Callable[[], None]) -> None:
        """Undo :meth:`also`."""
        if sync in self._also:
            self._also.remove(sync)

    def stop(self) -> None:
        """Fsync what is there and end the thread; may be called again."""
        self._stopping.set()
        self._dirty.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=30)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        fd: int | None = None
        try:
            with closing(self._connect()) as connection:
                while True:
                    woken = self._dirty.wait(
                        _IDLE_CHECKPOINT if self._commits else None
                    )
                    self._dirty.clear()
                    if woken:
                        fd = self._sync(fd)
                    if not woken or self._commits >= _COMMITS_PER_CHECKPOINT:
                        self._checkpoint(connection)
                    if self._stopping.wait(_PERIOD):
                        break
                self._sync(fd)
        except Exception:
            logger.exception(
                "the write-ahead log %s is not fsynced any more", self._log
            )
        finally:
            if fd is not None:
                os.close(fd)

    def _sync(self, fd: int | None) -> int | None:
        for sync in tuple(self._also):
            try:
                sync()
            except Exception:
                logger.exception("frames of events could not be brought to the disk")
        try:
            # While a connection is open the log is never replaced by another file.
            fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC) if fd is None else fd
            os.fsync(fd)
        except FileNotFoundError:
            pass
        except OSError:
            logger.exception("%s could not be brought to the disk", self._log)
        return fd

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        """Move the log's pages into the database, so that the log starts anew."""
        try:
            self._commits = 0
            _, pages, _ = checkpoint(connection)
            # The log starts anew only when all of it has been moved at a moment when
            # nobody writes.
            self.unfinished = pages > _LONG_LOG
        except sqlite3.Error as error:
            # Nothing is lost: the log stays longer until the next time.
            logger.debug("no checkpoint of %s: %s", self._log, error)


def checkpoint(
    connection: sqlite3.Connection | sqlite3.Cursor,
) -> tuple[int, int, int]:
    """Move pages of the log into the database, waiting for nobody.

    Returns
    -------
    tuple of int
        Whether something was in the way, pages in the log, pages moved.
    """
    return connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
