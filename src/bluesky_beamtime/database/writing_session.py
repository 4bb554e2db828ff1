"""A file that runs are written into by hand: opened, held, closed."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.liveness import WriterLock
from bluesky_beamtime.database.run_by_hand import RunByHand
from bluesky_beamtime.database.samples import (
    SampleMetadata,
    read_sample,
    upsert_sample,
)
from bluesky_beamtime.errors import (
    DatabaseWriteError,
    IntegrityError,
    RunStateError,
)
from bluesky_beamtime.storage import create_group


class WritingSession:
    """The life of a :class:`RunWriter`: its file, what is in the beam, its run."""

    def __init__(
        self,
        db_path: str | os.PathLike[str],
        sample: str | Mapping[str, Any] | SampleMetadata | None = None,
        *,
        durability: Literal["kill", "power"] = "kill",
    ) -> None:
        self.db_path = Path(db_path)
        self._sample = None if sample is None else SampleMetadata.of(sample)
        self._durability: Literal["kill", "power"] = durability
        self._lock = threading.RLock()
        self._database: Database | None = None
        self._writer_lock: WriterLock | None = None
        self._run: RunByHand | None = None

    @property
    def is_open(self) -> bool:
        """Whether :meth:`open` was called, and :meth:`close` was not."""
        return self._database is not None

    @property
    def run_uid(self) -> str | None:
        """Uid of the run that is open, None if there is none."""
        return None if self._run is None else self._run.uid

    @property
    def sample(self) -> SampleMetadata | None:
        """What is in the beam; may be changed between runs."""
        return self._sample

    @sample.setter
    def sample(self, value: str | Mapping[str, Any] | SampleMetadata | None) -> None:
        sample = None if value is None else SampleMetadata.of(value)
        with self._lock:
            if self._database is not None and sample is not None:
                self._store_sample(self._database, sample)
            self._sample = sample

    def open(self) -> None:
        """Make the file and the store beside it, if need be, and store the sample.

        Raises
        ------
        RunStateError
            It is open already.
        BeamtimeFileError
            The file is damaged or no beamtime, or its folder is missing.
        IntegrityError
            The sample has an ``id`` that the file does not have.
        """
        with self._lock:
            if self._database is not None:
                raise RunStateError("RunWriter is already open")
            database = Database(self.db_path, durability=self._durability)
            lock: WriterLock | None = None
            try:
                create_group(database.store, sync=self._durability == "power")
                if self._sample is not None:
                    self._store_sample(database, self._sample)
                lock = _take_lock(database)
            except BaseException:
                database.close()
                raise
            self._database, self._writer_lock = database, lock

    @staticmethod
    def _store_sample(database: Database, sample: SampleMetadata) -> None:
        if sample.id is None:
            with database.writing() as connection:
                upsert_sample(connection, sample)
            return
        with database.reading() as connection:
            stored = read_sample(connection, sample.id)
        if stored is None:
            raise IntegrityError(
                f"{str(database.path)!r} has no sample with the id {sample.id}; leave "
                "the id out to store the sample by its name"
            )

    def close(self) -> None:
        """Bring everything to the disk and let go of the files; may be called again.

        A run that is still open ends as ``abort``.
        """
        with self._lock:
            if self._database is None:
                return
            try:
                if self._run is not None:
                    self.close_run(
                        exit_status="abort",
                        reason="the writer was closed during the run",
                    )
            finally:
                self._let_go()

    def _let_go(self) -> None:
        database, self._database = self._database, None
        lock, self._writer_lock = self._writer_lock, None
        run, self._run = self._run, None
        try:
            if run is not None:
                with suppress(Exception):
                    run.close()
            if database is not None:
                database.close()
        finally:
            if lock is not None:
                lock.release()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run that is open, and close.

        It ends as ``success``; after an exception as ``fail``, with its text as the
        reason; after Ctrl-C or an exit as ``abort``.
        """
        with self._lock:
            try:
                if self._run is not None:
                    if error is None:
                        self.close_run()
                    else:
                        self._end_for(error)
            finally:
                self._let_go()

    def _end_for(self, error: BaseException) -> None:
        status = "fail" if isinstance(error, Exception) else "abort"
        text = str(error)
        reason = type(error).__name__ + (f": {text}" if text else "")
        # The exception on its way out says more than one about the end of the run.
        try:
            self.close_run(exit_status=status, reason=reason)
        except Exception as failure:
            error.add_note(f"the run could not be ended either: {failure}")

    def close_run(self, *, exit_status: str = "success", reason: str = "") -> None:
        """End the run; it is committed.

        Parameters
        ----------
        exit_status
            ``success``, ``abort`` or ``fail``; also ``aborted`` and ``failed``, which
            are stored as those.
        reason
            Why, in words.

        Raises
        ------
        RunStateError
            The writer is not open, or there is no run.
        DocumentError
            Another exit status; the run goes on.
        """
        with self._lock:
            self._opened_run().end(exit_status, reason)
            self._run = None

    def _opened(self) -> Database:
        if self._database is None:
            raise RunStateError("RunWriter is not open")
        return self._database

    def _opened_run(self) -> RunByHand:
        self._opened()
        if self._run is None:
            raise RunStateError("No open run")
        return self._run

    def __repr__(self) -> str:
        state = "closed" if not self.is_open else self.run_uid or "open"
        return f"<RunWriter {str(self.db_path)!r} {state}>"


def _take_lock(database: Database) -> WriterLock:
    try:
        return WriterLock(database.path)
    except OSError as error:
        raise DatabaseWriteError(
            f"cannot make a lock file beside {str(database.path)!r}: {error}",
            errno=error.errno,
            filename=error.filename,
        ) from error
