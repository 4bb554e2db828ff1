"""What an index knows of one run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlalchemy import select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.errors import BeamtimeFileError, RunNotFoundError


@dataclass(frozen=True, slots=True)
class IndexedRun:
    """What an index says of a run, also when the disk with its file is absent."""

    uid: str
    """Its uid."""
    scan_id: int | None
    """Its scan number, within its beamtime."""
    plan_name: str | None
    """Name of its plan."""
    sample: str | None
    """Name of its sample."""
    time: float | None
    """When it began, in seconds since 1970."""
    time_stop: float | None
    """When it ended."""
    exit_status: str | None
    """How it ended; None while it goes on."""
    num_events: int | None
    """Events of all its streams, once it has ended."""
    tags: tuple[str, ...]
    """Its tags."""
    proposal: str | None
    """Its proposal."""
    starred: bool
    """Whether it has a star."""
    beamtime: str
    """Label of its beamtime."""
    researcher: str | None
    """Whose beamtime it is."""
    path: Path
    """File of its beamtime."""

    @classmethod
    def of_row(cls, row: Any) -> Self:
        """Return what a row of the index says."""
        return cls(
            uid=row.uid,
            scan_id=row.scan_id,
            plan_name=row.plan_name,
            sample=row.sample_name,
            time=row.time_start,
            time_stop=row.time_stop,
            exit_status=row.exit_status,
            num_events=row.num_events,
            tags=tuple(json.loads(row.tags)),
            proposal=row.proposal,
            starred=bool(row.starred),
            beamtime=row.beamtime,
            researcher=row.researcher,
            path=Path(row.db_path),
        )

    @property
    def available(self) -> bool:
        """Whether the file of its beamtime is there now."""
        try:
            return self.path.is_file()
        except OSError:
            return False

    def open(self) -> Run:
        """Return the run itself, with its data; its file is only read.

        Raises
        ------
        BeamtimeFileError
            The file is not there; the message says what to do.
        RunNotFoundError
            The file is there without this run.
        """
        if not self.available:
            raise BeamtimeFileError(
                f"run {self.uid} is in {str(self.path)!r}, which is not there: connect "
                f"the disk of the beamtime {self.beamtime!r}. If the file was moved, "
                "tell the index: index.refresh(NEW_FOLDER)"
            )
        database = Database(self.path, mode="r")
        query = select(schema.runs.c.id).where(schema.runs.c.uid == self.uid)
        with database.reading() as connection:
            found = connection.execute(query).scalar()
        if found is None:
            database.close()
            raise RunNotFoundError(
                f"{str(self.path)!r} has no run {self.uid} any more; index.refresh() "
                "of its new file says where it is"
            )
        return Run(database, self.uid, JournalIndex(database.journal))

    def summary(self) -> dict[str, Any]:
        """Return it as plain values, ready for JSON."""
        return {
            "uid": self.uid,
            "scan_id": self.scan_id,
            "plan_name": self.plan_name,
            "sample": self.sample,
            "time": self.time,
            "time_stop": self.time_stop,
            "exit_status": self.exit_status,
            "num_events": self.num_events,
            "tags": list(self.tags),
            "proposal": self.proposal,
            "starred": self.starred,
            "beamtime": self.beamtime,
            "researcher": self.researcher,
            "path": str(self.path),
            "available": self.available,
        }
