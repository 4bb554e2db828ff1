"""Documents that arrive over a network, where some may be lost on their way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.kinds import is_mapping
from bluesky_beamtime.errors import DatabaseWriteError
from bluesky_beamtime.recording.gaps import remember_gaps, report_gaps
from bluesky_beamtime.recording.quarantine import Quarantine
from bluesky_beamtime.recording.recorder import DocumentRecorder

logger = logging.getLogger(__name__)

_POLL = 0.2
_RETRY = 1.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message: a document, or what could not be read as one."""

    name: Any = None
    """Kind of document."""
    doc: Any = None
    """The document; the bytes of the message if it could not be read."""
    problem: str | None = None
    """Why it could not be read."""


class DocumentSource(Protocol):
    """Where messages come from; called from one thread."""

    def poll(self, timeout: float) -> Iterable[Message]:
        """Return messages that have arrived, after at most ``timeout`` seconds."""
        ...

    def acknowledge(self) -> None:
        """Take note that every message so far is stored."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


@dataclass(frozen=True, slots=True)
class IngestedRun:
    """A run whose stop document has come."""

    uid: str
    """Its uid."""
    gaps: tuple[str, ...] = ()
    """What never came, one sentence each."""


@dataclass
class IngestReport:
    """What has arrived so far."""

    documents: int = 0
    """Messages with a document."""
    runs: list[IngestedRun] = field(default_factory=list[IngestedRun])
    """Runs that have ended, in the order of their stop documents."""
    problems: list[str] = field(default_factory=list[str])
    """Messages that are no documents; they are in the journal."""

    @property
    def ok(self) -> bool:
        """Whether nothing was missing and nothing malformed."""
        return not self.problems and not any(run.gaps for run in self.runs)


class Ingest:
    """Records what a source delivers, each document once, and notices what it lost.

    A document that comes twice is stored once. When a run stops, what its stop document
    promised is compared with what is there; a run that lacks something is not
    ``complete``, and importing it from where it is complete mends it. Documents of a
    run whose start never came go to the journal.

    Parameters
    ----------
    database
        The database, opened for recording.
    source
        Where the messages come from.
    on_run
        Called for each run that has ended.

    Attributes
    ----------
    report : IngestReport
        What has arrived so far.
    """

    def __init__(
        self,
        database: Database,
        source: DocumentSource,
        on_run: Callable[[IngestedRun], None] | None = None,
    ) -> None:
        self._database = database
        self._source = source
        self._on_run = on_run
        self._recorder = DocumentRecorder(database)
        self._quarantine = Quarantine(database.journal)
        self._strays: dict[str, int] = {}
        self._stray_streams: dict[str, str] = {}
        self.report = IngestReport()

    def run(
        self,
        *,
        until: Callable[[], bool] = lambda: False,
        idle: float | None = None,
        runs: int | None = None,
    ) -> IngestReport:
        """Record until something says to stop.

        Parameters
        ----------
        until
            Asked a few times a second.
        idle
            Stop after so many seconds without a message.
        runs
            Stop when so many runs have ended.

        Raises
        ------
        ServerError
            The server refused for good; what it had delivered is stored.
        """
        quiet_since = time.monotonic()
        while not until():
            came = False
            for message in self._source.poll(_POLL):
                came = True
                self._take(message, until)
            if came:
                self._source.acknowledge()
                quiet_since = time.monotonic()
            if runs is not None and len(self.report.runs) >= runs:
                break
            if idle is not None and time.monotonic() - quiet_since > idle:
                break
        return self.report

    def close(self) -> None:
        """Let go of the source; a run that has not ended is found interrupted later."""
        self._source.close()
        self._recorder.close()

    def _take(self, message: Message, until: Callable[[], bool]) -> None:
        if message.problem is not None:
            self.report.problems.append(message.problem)
            when = time.strftime("%Y-%m-%dT%H:%M:%S")
            number = len(self.report.problems)
            self._quarantine.add(
                message.name,
                message.doc,
                f"{message.problem} (message {number} that is no document, {when})",
            )
            return
        self.report.documents += 1
        name, doc = message.name, message.doc
        self._look_for_strays(name, doc)
        self._patiently(lambda: self._recorder(name, doc), until)
        if name == "stop" and is_mapping(doc):
            self._ended(str(doc.get("run_start")))

    def _patiently(self, store: Callable[[], None], until: Callable[[], bool]) -> None:
        """Store a document; while the disk is full, wait for room and do it again."""
        while True:
            try:
                store()
            except DatabaseWriteError as error:
                logger.error("waiting for room: %s", error)
                if until():
                    raise
                time.sleep(_RETRY)
            else:
                return

    # --------------------------------------------------------------------- what lacks

    def _look_for_strays(self, name: Any, doc: Any) -> None:
        """Count documents of runs whose start never came."""
        if not is_mapping(doc) or name == "start":
            return
        run = doc.get("run_start")
        if isinstance(run, str):
            if run not in self._strays and self._is_known(run):
                return
            if name in ("descriptor", "resource", "stream_resource"):
                self._stray_streams[str(doc.get("uid"))] = run
        else:
            keys = ("descriptor", "resource", "stream_resource")
            parents = [self._stray_streams.get(str(doc.get(key))) for key in keys]
            run = next((uid for uid in parents if uid is not None), None)
            if run is None:
                return
        self._strays[run] = self._strays.get(run, 0) + 1

    def _is_known(self, run_uid: str) -> bool:
        if any(run.uid == run_uid for run in self._recorder.open_runs):
            return True
        query = select(schema.runs.c.id).where(schema.runs.c.uid == run_uid)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def _ended(self, run_uid: str) -> None:
        strays = self._strays.pop(run_uid, 0)
        self._stray_streams = {
            uid: run for uid, run in self._stray_streams.items() if run != run_uid
        }
        if strays:
            gaps = [f"its start never came; {strays} documents are in the journal"]
        else:
            gaps = report_gaps(self._database, run_uid)
            remember_gaps(self._database, run_uid, gaps)
        run = IngestedRun(run_uid, tuple(gaps))
        for gap in gaps:
            logger.error("run %s: %s", run_uid, gap)
        self.report.runs.append(run)
        if self._on_run is not None:
            self._on_run(run)
