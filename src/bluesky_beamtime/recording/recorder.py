"""Documents from a RunEngine into the database, whatever their order or state."""

from __future__ import annotations

import enum
import errno
import math
from typing import Any

from bluesky_beamtime.database.accounting import try_to_store_accounts
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.kinds import is_mapping, is_number, shown
from bluesky_beamtime.database.liveness import WriterLock
from bluesky_beamtime.database.reserve import SpaceReserve
from bluesky_beamtime.database.rows import text_of
from bluesky_beamtime.database.run_recorder import RunRecorder
from bluesky_beamtime.database.samples import SampleMetadata, upsert_sample
from bluesky_beamtime.errors import DatabaseError, DatabaseWriteError, DocumentError
from bluesky_beamtime.recording import pages
from bluesky_beamtime.recording.failures import NotStoredError, is_full_disk
from bluesky_beamtime.recording.packer import Packer
from bluesky_beamtime.recording.putting_aside import (
    Document,
    JournalingRecorder,
    OnError,
)
from bluesky_beamtime.recording.routing import RunRouter

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


class DocumentRecorder(JournalingRecorder):
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
        router = RunRouter(database, self._writer)
        super().__init__(database, router, on_error=on_error)
        self.sample_id: int | None = None
        self._reserve = SpaceReserve.beside(database.path)
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
        except NotStoredError as failure:
            error: Exception = failure.cause
            run = failure.run
            if is_full_disk(error) and self._reserve.release():
                try:
                    self._take(name, doc)
                except NotStoredError as again:
                    error, run = again.cause, again.run
                else:
                    self._stop_plan(name, error)
                    return
            self._failed(name, doc, run, error)

    def _take(self, name: Any, doc: Any) -> RunRecorder | None:
        """Store a document and return its run.

        Raises
        ------
        NotStoredError
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
            raise NotStoredError(error, run) from error
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
                "form and are kept as text, or as NaN or None where they are masked: "
                f"{'; '.join(objects[:3])}"
            )

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


def _finite(time: Any) -> float | None:
    return float(time) if is_number(time) and math.isfinite(time) else None
