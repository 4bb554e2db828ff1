"""Documents from a RunEngine into the database, whatever their order or state."""

from __future__ import annotations

import enum
import errno
import logging
import math
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from bluesky_beamtime.database.accounting import try_to_store_accounts
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.kinds import is_mapping, is_number, shown
from bluesky_beamtime.database.liveness import WriterLock
from bluesky_beamtime.database.reserve import SpaceReserve
from bluesky_beamtime.database.rows import text_of
from bluesky_beamtime.database.run_recorder import RunRecorder
from bluesky_beamtime.database.samples import SampleMetadata, upsert_sample
from bluesky_beamtime.errors import (
    BeamtimeError,
    BeamtimeWarning,
    DatabaseError,
    DatabaseWriteError,
    DocumentError,
    IntegrityError,
)
from bluesky_beamtime.recording import pages
from bluesky_beamtime.recording.journal import Journal
from bluesky_beamtime.recording.packer import Packer
from bluesky_beamtime.recording.routing import RunRouter

logger = logging.getLogger(__name__)

OnError = Literal["journal", "raise"]
Document = Mapping[str, Any]

NAMES = frozenset(
    {
        "start",
        "descriptor",
        "event",
        "event_page",
        "stream_resource",
        "stream_datum",
        "resource",
        "datum",
        "datum_page",
        "bulk_events",
        "bulk_datum",
        "stop",
    }
)
# What a document that lacks something, or has it in another type, makes of our code.
_MALFORMED = (
    DocumentError,
    IntegrityError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    ArithmeticError,
    ValueError,
    RecursionError,
)


def is_malformed(error: Exception) -> bool:
    """Say whether a document is to blame that it could not be stored."""
    return isinstance(error, _MALFORMED)


class DocumentRecorder:
    """Stores every document that it is called with; subscribe it to a RunEngine.

    One :class:`RunRecorder` per run is chosen by uids, so that runs and streams may be
    nested and interleaved. When a call returns, the document is committed, or on the
    disk in the journal.

    ==================  ===========================================================
    a document that…    goes
    ==================  ===========================================================
    is good             to the tables, one commit each
    came before         nowhere: it is there already (same uid)
    is malformed, or    alone to the journal (``quarantined``)
    belongs nowhere
    finds a full disk   to the tables, in space that was kept back; the plan stops
    cannot be stored    with the rest of its run to the journal (``unstored``)
    ==================  ===========================================================

    Parameters
    ----------
    database
        The database, opened for recording.
    on_error
        ``"journal"`` as above, with a warning and an error in the log; ``"raise"``
        raises instead, which stops the plan.

    Attributes
    ----------
    sample_id : int or None
        Row of the sample of runs that do not name one.

    Notes
    -----
    Thread-safe. With ``"journal"`` a call raises only
    :class:`~bluesky_beamtime.errors.DatabaseWriteError`, when the disk is full or the
    journal cannot be written either.
    """

    def __init__(self, database: Database, *, on_error: OnError = "journal") -> None:
        if on_error not in ("journal", "raise"):
            raise ValueError(f"on_error is 'journal' or 'raise', not {on_error!r}")
        self._database = database
        self.on_error: OnError = on_error
        self.sample_id: int | None = None
        self._journal = Journal(database.journal)
        self._reserve = SpaceReserve.beside(database.path)
        self._lock = threading.RLock()
        self._router = RunRouter(database, self._writer)
        self._packer = Packer(database, lambda: self._router.idle)
        self._writer_lock: WriterLock | None = None
        self._stopped: list[str] = []
        self._closed = False

    # -------------------------------------------------------------------- the call

    def __call__(self, name: str, doc: Document) -> None:
        """Store one document.

        Raises
        ------
        DatabaseWriteError
            Neither the database nor the journal could take it.
        BeamtimeError
            With ``on_error="raise"``: it could not be stored.
        """
        try:
            run = self._take(name, doc)
        except _NotStoredError as failure:
            error: Exception = failure.cause
            run = failure.run
            if _is_full_disk(error) and self._reserve.release():
                try:
                    self._take(name, doc)
                except _NotStoredError as again:
                    error, run = again.cause, again.run
                else:
                    self._stop_plan(name, error)
                    return
            self._failed(name, doc, run, error)

    def _take(self, name: Any, doc: Any) -> RunRecorder | None:
        """Store a document and return its run.

        Raises
        ------
        _NotStoredError
            With the cause.
        """
        run: RunRecorder | None = None
        try:
            with self._lock:
                # By far the most frequent first.
                if name == "event":
                    run = self._router.owners.get(doc["descriptor"])
                if run is None:
                    name, run = self._prepare(name, doc)
                if run is None:
                    self._start(doc)
                elif run.in_journal:
                    self._write_journal(name, doc, run, "unstored", "as before")
                    if name == "stop":
                        self._router.forget(run)
                else:
                    self._store(name, doc, run)
        except Exception as error:
            raise _NotStoredError(error, run) from error
        return run

    def _stop_plan(self, name: Any, error: Exception) -> None:
        """Stop the plan, now that its last documents are sure to find room.

        Raises
        ------
        DatabaseWriteError
            The disk is full. The end of a run has nothing left to stop: a warning.
        """
        message = (
            f"the disk with {str(self._database.path)!r} is full. The {name!r} "
            "document was stored in space that was kept back, where the end of the run "
            "fits too; free some space and go on"
        )
        if name == "stop":
            self.warn(message)
            return
        raise DatabaseWriteError(
            message, errno=errno.ENOSPC, filename=str(self._database.path)
        ) from error

    def _prepare(self, name: Any, doc: Any) -> tuple[str, RunRecorder | None]:
        """Return the document's name and its run, None for the start of one."""
        if self._closed:
            raise DatabaseError("the recorder is closed; open the beamtime again")
        if isinstance(name, enum.Enum):
            name = name.name
        if name not in NAMES:
            raise DocumentError(f"there is no kind of document called {shown(name)}")
        if not is_mapping(doc):
            raise DocumentError(f"a document is a mapping, not {shown(doc)}")
        if name == "start":
            return name, self._router.started(text_of(doc, "uid"))
        return name, self._router.route(name, doc)

    # --------------------------------------------------------------------- storing

    def _start(self, doc: Document) -> None:
        run = RunRecorder.insert(
            self._database,
            doc,
            sample_id=self._sample_of(doc),
            writer=self._writer(),
        )
        self._router.add(run)
        self._reserve.keep()
        self._report_lost(run)
        for remark in run.remarks:
            self.warn(f"run {run.uid}: {remark}")
        self._account()

    def _store(self, name: str, doc: Document, run: RunRecorder) -> None:
        if name == "start":
            run.check_same_start(doc)
            return
        pages.store(run, name, doc)
        self._router.own(name, doc, run)
        if name == "stop":
            self._router.forget(run)
            self._stopped.append(run.uid)
            self._packer.stopped(run.uid, run.num_events)
        if run.lost:
            self._report_lost(run)

    def _account(self) -> None:
        """Count the frames of the runs that stopped, now that cameras are at rest.

        What came after the stop document, while they were unstaged, counts too.
        """
        while self._stopped:
            try_to_store_accounts(self._database, self._stopped.pop())

    def _sample_of(self, start: Document) -> int | None:
        """Return the row of a run's sample: that which it names, or the current."""
        named = start.get("sample")
        if not named:
            return self.sample_id
        try:
            sample = SampleMetadata.of(named)
        except DocumentError as error:
            # The run itself is good, and its start document says what was meant.
            self.warn(f"run {start['uid']} is recorded without a sample: {error}")
            return None
        with self._database.writing() as connection:
            return upsert_sample(connection, sample, _finite(start.get("time")))

    def _writer(self) -> str | None:
        if self._writer_lock is None:
            try:
                self._writer_lock = WriterLock(self._database.path)
            except OSError as error:
                raise DatabaseWriteError(
                    f"cannot make a lock file beside {str(self._database.path)!r}: "
                    f"{error}",
                    errno=error.errno,
                    filename=error.filename,
                ) from error
        return self._writer_lock.name

    def _report_lost(self, run: RunRecorder) -> None:
        if run.lost:
            objects, run.lost = run.lost, []
            self.warn(
                f"run {run.uid}: {len(objects)} objects in a document have no JSON "
                f"form and are kept as text: {'; '.join(objects[:3])}"
            )

    # --------------------------------------------------------------------- failures

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
        if isinstance(error, _JournalError):
            raise error.cause
        reason = _reason(error)
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
            except _JournalError as failure:
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
            raise _JournalError(error) from error

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

    # ------------------------------------------------------------------ life cycle

    @property
    def open_runs(self) -> list[RunRecorder]:
        """Runs that have not stopped, the newest last."""
        with self._lock:
            return self._router.open_runs

    def pack(self) -> int:
        """Copy the numbers of long runs to columns; see :meth:`Beamtime.pack`."""
        return self._packer.pack_all()

    def close(self) -> None:
        """Close the arrays of open runs and let go of the lock; may be called again.

        A run that has not stopped is labelled as interrupted when the beamtime is
        opened the next time.
        """
        self._packer.close()
        with self._lock:
            if not self._database.closed:
                self._account()
            self._closed = True
            self._router.close()
            if self._writer_lock is not None:
                self._writer_lock.release()
                self._writer_lock = None
                self._reserve.release()


class _JournalError(Exception):
    """The journal could not be written: passes by everything that would journal it."""

    def __init__(self, cause: DatabaseWriteError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _NotStoredError(Exception):
    """A document that was not stored, with its run if that is known."""

    def __init__(self, cause: Exception, run: RunRecorder | None) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.run = run


def _finite(time: Any) -> float | None:
    return float(time) if is_number(time) and math.isfinite(time) else None


def _reason(error: Exception) -> str:
    """Return what is wrong in words for people."""
    if isinstance(error, BeamtimeError):
        return str(error)
    if type(error) is KeyError and error.args:
        return f"{error.args[0]!r} is missing"
    return f"{type(error).__name__}: {error}"


def _is_full_disk(error: Exception) -> bool:
    if isinstance(error, _JournalError):
        error = error.cause
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
