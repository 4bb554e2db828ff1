"""Which run a document belongs to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.rows import text_of
from bluesky_beamtime.database.run_recorder import RunRecorder
from bluesky_beamtime.errors import BeamtimeError, DocumentError
from bluesky_beamtime.recording.interrupted import claim_run

Document = Mapping[str, Any]

# Runs that ended, or that another process began, and that got another document: they
# are remembered so that a flood of such documents does not ask the database for each.
_MOST_LATE = 16


class RunRouter:
    """Chooses a run by uids, so that runs and streams may be nested and interleaved.

    Parameters
    ----------
    database
        Knows the runs that this process did not begin.
    writer
        Returns the lock file of this process, for the runs that it goes on with.

    Attributes
    ----------
    owners : dict
        The run of each descriptor and each resource, by its uid. Read for every event,
        without a detour.
    """

    def __init__(self, database: Database, writer: Callable[[], str | None]) -> None:
        self._database = database
        self._writer = writer
        self._runs: dict[str, RunRecorder] = {}
        self._late: OrderedDict[str, RunRecorder] = OrderedDict()
        self.owners: dict[str, RunRecorder] = {}

    @property
    def open_runs(self) -> list[RunRecorder]:
        """Runs that began here and have not stopped, the newest last."""
        return list(self._runs.values())

    @property
    def idle(self) -> bool:
        """Whether no run that began here is open; may be asked from any thread."""
        return not self._runs

    def add(self, run: RunRecorder) -> None:
        """Take up a run that begins."""
        self._runs[run.uid] = run

    def started(self, uid: str) -> RunRecorder | None:
        """Return the run of this uid if it is open here."""
        return self._runs.get(uid)

    def own(self, name: str, doc: Document, run: RunRecorder) -> None:
        """Remember the run of a document that others will refer to."""
        if name in ("descriptor", "stream_resource", "resource"):
            self.owners[text_of(doc, "uid")] = run

    def route(self, name: str, doc: Document) -> RunRecorder:
        """Return the run that a document belongs to.

        Raises
        ------
        DocumentError
            Nobody knows.
        """
        if name in ("descriptor", "stop"):
            return self._run(text_of(doc, "run_start"))
        if name in ("stream_resource", "resource"):
            if doc.get("run_start") is None:
                return self._newest_run(name)
            return self._run(text_of(doc, "run_start"))
        if name in ("datum", "datum_page", "bulk_datum"):
            return self._owner(text_of(doc, "resource"), schema.resources)
        if name == "bulk_events":
            events = next((events for events in doc.values() if events), None)
            if events is None:
                raise DocumentError("a bulk_events document without an event")
            return self._owner(text_of(events[0], "descriptor"), schema.streams)
        return self._owner(text_of(doc, "descriptor"), schema.streams)

    def _run(self, uid: str) -> RunRecorder:
        run = self._runs.get(uid) or self._late.get(uid)
        if run is None:
            run = RunRecorder.resume(self._database, uid)
            if run is None:
                raise DocumentError(f"there is no run {uid!r:.80}")
            claim_run(self._database, uid, self._writer())
            self._late[uid] = run
            while len(self._late) > _MOST_LATE:
                self.forget(next(iter(self._late.values())))
        return run

    def _owner(self, uid: str, table: Any) -> RunRecorder:
        run = self.owners.get(uid)
        if run is None:
            query = select(table.c.run_uid).where(table.c.uid == uid)
            with self._database.reading() as connection:
                run_uid = connection.execute(query).scalar()
            if run_uid is None:
                raise DocumentError(f"there is no {table.name[:-1]} {uid!r:.80}")
            run = self.owners[uid] = self._run(run_uid)
        return run

    def _newest_run(self, name: str) -> RunRecorder:
        """Return the newest open run: resources of old detectors do not name theirs."""
        if not self._runs:
            raise DocumentError(f"a {name} without a run")
        return next(reversed(self._runs.values()))

    def in_memory(self, name: Any, doc: Any) -> RunRecorder | None:
        """Return a document's run if that takes no database, None otherwise."""
        try:
            if name == "start":
                return self._runs.get(doc["uid"])
            for key in ("run_start", "descriptor", "resource", "stream_resource"):
                uid = doc.get(key)
                run = self._runs.get(uid) or self.owners.get(uid)
                if run is not None:
                    return run
        except Exception:
            pass
        return None

    def forget(self, run: RunRecorder) -> None:
        """Let go of a run that is over."""
        self._runs.pop(run.uid, None)
        self._late.pop(run.uid, None)
        self.owners = {
            uid: owner for uid, owner in self.owners.items() if owner is not run
        }
        with suppress(BeamtimeError):
            run.close()

    def close(self) -> None:
        """Let go of every run."""
        for run in (*self._runs.values(), *self._late.values()):
            with suppress(BeamtimeError):
                run.close()
        self._runs, self._late, self.owners = {}, OrderedDict(), {}
