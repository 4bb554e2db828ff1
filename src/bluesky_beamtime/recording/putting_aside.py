"""Documents that the database does not take: put aside in the journal, loudly."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.run_recorder import RunRecorder
from bluesky_beamtime.errors import (
    BeamtimeError,
    BeamtimeWarning,
    DatabaseError,
    DatabaseWriteError,
    DocumentError,
)
from bluesky_beamtime.recording.failures import JournalError, in_words, is_malformed
from bluesky_beamtime.recording.journal import Journal
from bluesky_beamtime.recording.routing import RunRouter

logger = logging.getLogger(__name__)

OnError = Literal["journal", "raise"]
Document = Mapping[str, Any]


class JournalingRecorder:
    """What a :class:`DocumentRecorder` does with what could not be stored."""

    def __init__(
        self, database: Database, router: RunRouter, *, on_error: OnError
    ) -> None:
        if on_error not in ("journal", "raise"):
            raise ValueError(f"on_error is 'journal' or 'raise', not {on_error!r}")
        self._database = database
        self._router = router
        self.on_error: OnError = on_error
        self._journal = Journal(database.journal)
        self._lock = threading.RLock()

    def _failed(
        self, name: Any, doc: Any, run: RunRecorder | None, error: Exception
    ) -> None:
        malformed = is_malformed(error)
        if self.on_error == "raise":
            if isinstance(error, BeamtimeError):
                raise error
            if malformed:
                raise DocumentError(
                    f"a malformed {name} document cannot be stored: "
                    f"{type(error).__name__}: {error}"
                ) from error
            raise DatabaseError(
                f"a {name} document could not be stored: {error}"
            ) from error
        if isinstance(error, JournalError):
            raise error.cause
        reason = in_words(error)
        kind = name if isinstance(name, str) else type(name).__name__
        with self._lock:
            if run is None:
                run = self._router.in_memory(name, doc)
            if run is None and kind == "start" and not malformed:
                # The run goes on without the database, and keeps its name for frames;
                # unless it has none.
                with suppress(Exception):
                    run = RunRecorder(self._database, doc)
                    self._router.add(run)
            if not malformed and run is not None:
                run.in_journal = True
            state = "quarantined" if malformed else "unstored"
            try:
                self._write_journal(name, doc, run, state, reason)
            except JournalError as failure:
                raise failure.cause from error
            if kind == "stop" and run is not None and run.in_journal:
                self._router.forget(run)
        what = f"a {kind} document" + (f" of run {run.uid}" if run else "")
        if malformed:
            message = f"{what} is malformed and was put aside: {reason}"
        else:
            message = (
                f"{what} could not be stored, nor will the rest of its run: {reason}"
            )
        self.warn(
            f"{message}. It is kept in {str(self._journal.path)!r}",
            exc_info=None if malformed or isinstance(error, BeamtimeError) else error,
        )

    def _write_journal(
        self, name: Any, doc: Any, run: RunRecorder | None, kind: str, reason: str
    ) -> None:
        ordinal = None
        if run is not None and name != "start":
            # What was put aside came before the document that takes this place.
            ordinal = run.ordinal
            run.ordinal += kind == "unstored"
        # A descriptor in the journal still says which run its events belong to.
        if run is not None:
            with suppress(Exception):
                self._router.own(name, doc, run)
        try:
            self._journal.write(
                name,
                doc,
                run=None if run is None else run.uid,
                ordinal=ordinal,
                kind=kind,
                reason=reason,
                places=self._places() if run is None else None,
            )
        except DatabaseWriteError as error:
            raise JournalError(error) from error

    def _places(self) -> dict[str, int]:
        """Return where the next document of each open run stands."""
        return {run.uid: run.ordinal for run in self._router.open_runs}

    @staticmethod
    def warn(message: str, *, exc_info: BaseException | None = None) -> None:
        """Say loudly that something is not as it was meant to be; never raises."""
        logger.error(message, exc_info=exc_info)
        # A filter that turns warnings into errors must not reach the RunEngine.
        with suppress(Warning):
            warnings.warn(message, BeamtimeWarning, stacklevel=4)
