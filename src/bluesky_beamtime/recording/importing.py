"""Documents from elsewhere into a beamtime: once each, whatever is wrong with some."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.kinds import is_mapping
from bluesky_beamtime.errors import BeamtimeError, DatabaseWriteError
from bluesky_beamtime.recording.catalogs import documents_of, find_runs, open_catalog
from bluesky_beamtime.recording.document_files import (
    FileDocument,
    find_files,
    read_file,
)
from bluesky_beamtime.recording.gaps import forget_gaps, report_gaps
from bluesky_beamtime.recording.quarantine import Quarantine
from bluesky_beamtime.recording.recorder import DocumentRecorder

Progress = Callable[[str, int, int], None]
"""Called with what is being read, how much is read, and how much there is."""

_BATCH = 500


@dataclass
class ImportReport:
    """What became of the documents of a source."""

    documents: int = 0
    """Documents that were read."""
    stored: int = 0
    """Documents that are new; those of a page count each."""
    runs: list[str] = field(default_factory=list[str])
    """Uids of the runs that were read, in their order."""
    new_runs: list[str] = field(default_factory=list[str])
    """Those among them that were not there before."""
    skipped: list[str] = field(default_factory=list[str])
    """Runs of a catalogue that were there completely and were not read."""
    problems: list[str] = field(default_factory=list[str])
    """What could not be stored, and where it stands; it is in the journal now."""

    @property
    def ok(self) -> bool:
        """Whether everything was stored."""
        return not self.problems


def import_documents(
    database: Database,
    source: Any,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Store the documents of a source; see :meth:`Beamtime.import_documents`."""
    report = ImportReport()
    if not dry_run:
        _Import(database, database, report, progress).everything(source)
        return report
    # The same, into a file that nobody keeps: what is wrong is found, nothing changes.
    with tempfile.TemporaryDirectory(prefix="beamtime-") as folder:
        scratch = Database(Path(folder, "dry-run.db"))
        try:
            _Import(scratch, database, report, progress).everything(source)
        finally:
            scratch.close()
    return report


class _Import:
    """One call: where documents go, and what is known of them."""

    def __init__(
        self,
        target: Database,
        known: Database,
        report: ImportReport,
        progress: Progress | None,
    ) -> None:
        self._target, self._known = target, known
        self._report = report
        self._progress = progress
        self._quarantine = Quarantine(target.journal)
        self._before: dict[str, int] = {}
        self._batch: list[tuple[str, Mapping[str, Any]]] = []
        self._recorder = DocumentRecorder(target, on_error="raise")

    def everything(self, source: Any) -> None:
        try:
            if isinstance(source, str) and source.startswith(("http://", "https://")):
                self._catalog(open_catalog(source))
            elif isinstance(source, (str, Path)):
                self._files(Path(source).expanduser())
            elif _is_pairs(source):
                for number, (name, doc) in enumerate(source, 1):
                    self._take(FileDocument(f"document {number}", 0, name, doc))
                self._flush()
            else:
                self._catalog(source)
        finally:
            self._recorder.close()
        self._finish()

    def _files(self, path: Path) -> None:
        files = find_files(path)
        total = sum(file.stat().st_size for file in files)
        before = 0
        for file in files:
            for document in read_file(file):
                self._take(document)
                self._tell(file.name, before + document.position, total)
            self._flush()
            before += file.stat().st_size

    def _catalog(self, catalog: Any) -> None:
        runs = find_runs(catalog)
        for number, (uid, run) in enumerate(runs):
            self._tell(uid, number, len(runs))
            if self._is_here(uid):
                self._report.runs.append(uid)
                self._report.skipped.append(uid)
                continue
            for count, (name, doc) in enumerate(documents_of(run), 1):
                where = f"run {uid}, document {count}"
                self._take(FileDocument(where, 0, name, doc))
            self._flush()
            self._tell(uid, number + 1, len(runs))

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(what, done, total)

    def _is_here(self, uid: str) -> bool:
        """Say whether a run is here from its start to its end."""
        runs = schema.runs
        query = select(runs.c.stop).where(runs.c.uid == uid)
        with self._known.reading() as connection:
            if connection.execute(query).scalar() is None:
                return False
        return not report_gaps(self._known, uid)

    # -------------------------------------------------------------------- documents

    def _take(self, document: FileDocument) -> None:
        self._report.documents += 1
        if document.problem is not None:
            self._refuse(document.where, None, document.doc, document.problem)
            return
        name, doc = document.name, document.doc
        if name == "event" and is_mapping(doc):
            # A transaction for many: their order and their keys stay as they are.
            self._batch.append((document.where, doc))
            if len(self._batch) >= _BATCH:
                self._flush()
            return
        self._flush()
        if name == "start" and is_mapping(doc) and isinstance(doc.get("uid"), str):
            self._begin(doc["uid"])
        self._store(document.where, name, doc)

    def _begin(self, uid: str) -> None:
        if uid not in self._before:
            self._report.runs.append(uid)
            self._before[uid] = _count_documents(self._known, uid)
            if not self._before[uid]:
                self._report.new_runs.append(uid)

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if len(batch) > 1:
            try:
                self._recorder("bulk_events", {"": [doc for _, doc in batch]})
                return
            except DatabaseWriteError:
                raise
            except BeamtimeError:
                # One of them, or one of another run: each by itself.
                pass
        for where, doc in batch:
            self._store(where, "event", doc)

    def _store(self, where: str, name: Any, doc: Any) -> None:
        try:
            self._recorder(name, doc)
        except DatabaseWriteError:
            raise
        except BeamtimeError as error:
            self._refuse(where, name, doc, str(error))

    def _refuse(self, where: str, name: Any, doc: Any, why: str) -> None:
        sentence = f"{where}: {why}"
        self._report.problems.append(sentence)
        self._quarantine.add(name, doc, sentence)

    def _finish(self) -> None:
        for uid, before in self._before.items():
            after = _count_documents(self._target, uid)
            same = self._target is self._known
            self._report.stored += after - before if same else max(0, after - before)
            if same:
                forget_gaps(self._target, uid)


def _is_pairs(source: Any) -> bool:
    """Say whether a source yields documents, not runs."""
    return isinstance(source, (list, tuple, Iterator)) or not (
        hasattr(source, "documents") or hasattr(source, "values")
    )


def _count_documents(database: Database, run_uid: str) -> int:
    """Return how many documents of a run are stored, each event and datum by itself."""
    s = schema
    mine = select(s.streams.c.uid).where(s.streams.c.run_uid == run_uid)
    resources = select(s.resources.c.uid).where(s.resources.c.run_uid == run_uid)
    counts: Iterable[Any] = (
        select(func.count()).where(s.runs.c.uid == run_uid),
        select(func.count()).where(s.runs.c.uid == run_uid, s.runs.c.stop.is_not(None)),
        *(
            select(func.count()).where(table.c.run_uid == run_uid)
            for table in (s.streams, s.stream_resources, s.resources)
        ),
        *(
            select(func.count()).where(table.c.stream_uid.in_(mine))
            for table in (s.events, s.stream_datums)
        ),
        select(func.count()).where(s.datums.c.resource.in_(resources)),
    )
    with database.reading() as connection:
        return sum(connection.execute(count).scalar_one() for count in counts)
