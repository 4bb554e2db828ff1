"""The thread that brings a server up to a file, and keeps it there."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Self

import orjson
from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import SQLAlchemyError

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.replica import tables
from bluesky_beamtime.database.replica.copying import Copier
from bluesky_beamtime.database.replica.feed import Feed, start_feed
from bluesky_beamtime.database.replica.locking import FollowerLock
from bluesky_beamtime.database.replica.places import Places
from bluesky_beamtime.database.replica.server import Server, cut, limited, prepare
from bluesky_beamtime.errors import BeamtimeError, BeamtimeFileError, ServerError

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 15.0
# A slow line may take its time for a large page.
_SLOWEST_BYTES_PER_SECOND = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaProgress:
    """How far a server is behind a file."""

    behind: int | None
    """Rows and changes that the server lacks; None before it was asked."""
    copied: int
    """Rows and changes that were copied since the start."""
    refused: int
    """Rows that the server refused, and that its table ``replica_refused`` keeps."""
    connected: bool
    """Whether the server took what it was sent last."""
    failure: BeamtimeError | None
    """Why not; None when it did."""

    @property
    def caught_up(self) -> bool:
        """Whether all that was committed is there."""
        return self.behind == 0 and self.connected

    def __str__(self) -> str:
        """Say it in a few words."""
        if self.caught_up:
            return "up to date"
        away = "" if self.failure is None else "the server is away, "
        if self.behind is None:
            return f"{away}nothing is known of the replica yet"
        return f"{away}{self.behind} rows behind"


class Replicator:
    """Copies what is committed to a file to a PostgreSQL server, in a thread.

    The file is never waited for, nor does it wait: it acknowledges, and this follows. A
    server that is away, slow or mute is tried again by itself; what was committed
    meanwhile is copied then, each row once.

    Parameters
    ----------
    database
        The file, opened for recording.
    server
        Where to.
    frames
        URL of the object store where readers of the server find the frames; None if
        they see the same disk.
    interval
        Seconds between two looks at the file.

    Notes
    -----
    Of several processes that record into one file one copies; when it ends another
    goes on.
    """

    def __init__(
        self,
        database: Database,
        server: Server,
        *,
        frames: str | None = None,
        interval: float = 0.25,
    ) -> None:
        self.server = server
        self.interval = interval
        self.source = start_feed(database)
        self.places = Places(database.path, database.store, self.source, frames)
        self._path = database.path
        self._journal = JournalIndex(database.journal)
        self._told: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._idle = threading.Condition()
        self._lock = FollowerLock(self._path.with_name(f".{self._path.name}.follower"))
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._connection: Connection | None = None
        self._behind: int | None = None
        self._copied = self._refused = 0
        self._passes = 0
        self._connected = False
        self._failure: BeamtimeError | None = None

    @property
    def progress(self) -> ReplicaProgress:
        """How far the server is, as of the last look; never waits for it."""
        return ReplicaProgress(
            behind=self._behind,
            copied=self._copied,
            refused=self._refused,
            connected=self._connected,
            failure=self._failure,
        )

    # ------------------------------------------------------------------------ life

    def start(self) -> Self:
        """Follow the file until :meth:`close`; may be called again."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(
                target=self._run,
                name=f"beamtime-replica-{self._path.name}",
                daemon=True,
            )
            self._thread.start()
        return self

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has all that is committed by now.

        Parameters
        ----------
        timeout
            Seconds; None for as long as it takes.

        Returns
        -------
        bool
            Whether it has.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._idle:
            # The pass that is under way may have begun before now.
            wanted = self._passes + 2
            while not (self._passes >= wanted and self.progress.caught_up):
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or not self._alive():
                    return False
                self._wake.set()
                self._idle.wait(0.1 if left is None else min(0.1, left))
        return True

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def close(self, timeout: float = 3.0) -> ReplicaProgress:
        """Copy the rest, as far as the server takes it in time, and stop.

        What is missing is copied when the file is opened the next time.

        Parameters
        ----------
        timeout
            Seconds.
        """
        thread = self._thread
        if thread is None or os.getpid() != self._pid:
            return self.progress
        if self._failure is None:
            self.wait(timeout)
        self._stop.set()
        self._wake.set()
        thread.join(1.0)
        if thread.is_alive() and self._connection is not None:
            with contextlib.suppress(Exception):
                cut(self._connection.connection.driver_connection)
            thread.join(self.server.connect_timeout + 2)
        self._thread = None
        return self.progress

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Replicator of {self._path.name!r} to {self.server}: {self.progress}>"

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        engine = self.server.engine()
        pause = self.interval
        try:
            while not self._stop.is_set():
                try:
                    if self._lock.acquire():
                        self._follow(engine)
                    else:
                        self._failure = None
                except Exception as error:
                    self._failed(error)
                    if isinstance(self._failure, BeamtimeFileError):
                        # Somebody has to do something about it first.
                        pause = _LONGEST_PAUSE
                    else:
                        pause = min(2 * pause, _LONGEST_PAUSE)
                else:
                    pause = self.interval
                with self._idle:
                    self._idle.notify_all()
                self._stop.wait(pause)
        finally:
            self._lock.release()
            engine.dispose()
            with self._idle:
                self._idle.notify_all()

    def _failed(self, error: Exception) -> None:
        if isinstance(error, SQLAlchemyError):
            failure: BeamtimeError = self.server.error(error)
        elif isinstance(error, BeamtimeError):
            failure = error
        else:
            logger.exception("the replica of %s stumbled", self._path)
            failure = ServerError(f"{self.server}: {type(error).__name__}: {error}")
        if self._failure is None:
            logger.warning(
                "%s is recorded here and not copied now: %s; it will be tried again",
                self._path,
                failure,
            )
        self._failure = failure
        self._connected = False

    def _follow(self, engine: Engine) -> None:
        """Connect, and copy until told to stop; the server's errors come out."""
        feed = Feed(self._path)
        try:
            with engine.connect() as connection:
                self._connection = connection
                with self._lend() as preparing:
                    prepare(preparing, self.server)
                copier = Copier(
                    feed, self.source, self.places, self._lend, self._goes_on
                )
                self._told = frozenset()
                version: int | None = None
                while not self._stop.is_set():
                    changed, version = feed.has_changed(version)
                    if changed or self._behind:
                        self._copy(copier)
                    self._connected, self._failure = True, None
                    with self._idle:
                        self._passes += 1
                        self._idle.notify_all()
                    # Few large pages take less of this process than many small ones.
                    self._wake.wait(self.interval)
                    self._wake.clear()
        finally:
            self._connection = None
            feed.close()

    def _copy(self, copier: Copier) -> None:
        copied, refused = copier.copied, copier.refused
        try:
            copier.run()
            self._tell_journal()
        finally:
            self._copied += copier.copied - copied
            self._refused += copier.refused - refused
            behind = copier.behind()
            self._behind = None if behind < 0 else behind

    def _tell_journal(self) -> None:
        """Tell readers which runs have documents in the journal here."""
        runs = self._journal.runs()
        if runs == self._told:
            return
        table = tables.sources
        with self._lend() as connection:
            connection.execute(
                update(table)
                .where(table.c.source == self.source)
                .values(journaled=orjson.dumps(sorted(runs)).decode())
            )
        self._told = runs

    def _goes_on(self) -> bool:
        return not self._stop.is_set()

    @contextlib.contextmanager
    def _lend(self, size: int = 0) -> Generator[Connection]:
        connection = self._connection
        assert connection is not None
        seconds = self.server.statement_timeout + size / _SLOWEST_BYTES_PER_SECOND
        with limited(connection, seconds), connection.begin():
            yield connection


def describe(progress: ReplicaProgress) -> dict[str, Any]:
    """Return progress as plain values, for JSON."""
    return {
        "behind": progress.behind,
        "copied": progress.copied,
        "refused": progress.refused,
        "connected": progress.connected,
        "failure": None if progress.failure is None else str(progress.failure),
    }
