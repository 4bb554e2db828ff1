"""After a crash or a full disk: everything that is safe back to where it belongs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.liveness import is_alive, live_writers
from bluesky_beamtime.errors import BeamtimeError, DatabaseWriteError, StoreStateError
from bluesky_beamtime.recording.interrupted import InterruptedRun, label_interrupted
from bluesky_beamtime.recording.journal import Entry, Journal
from bluesky_beamtime.recording.replaying import replay
from bluesky_beamtime.storage import repair_store
from bluesky_beamtime.storage.hierarchy import find_arrays

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


# Events that came after the end of their run were not counted then.
_COUNT_ANEW = """
UPDATE runs SET num_events = counted.number FROM (
    SELECT streams.run_uid, count(*) AS number
    FROM events JOIN streams ON streams.uid = events.stream_uid
    GROUP BY streams.run_uid) AS counted
WHERE counted.run_uid = runs.uid AND runs.num_events < counted.number"""


@dataclass
class RecoveryReport:
    """What :func:`recover` did."""

    interrupted: list[InterruptedRun] = field(default_factory=list[InterruptedRun])
    """Runs that were found cut off, and are called so now."""
    stored: int = 0
    """Documents that came from the journal into the tables."""
    runs: list[str] = field(default_factory=list[str])
    """Uids of the runs that they belong to."""
    kept: dict[str, int] = field(default_factory=dict[str, int])
    """Documents that stay in the journal: how many for each reason."""
    waiting: int = 0
    """Documents of runs that a live process records; they are left alone."""
    repaired: list[str] = field(default_factory=list[str])
    """What was mended in the stores of frames, one sentence each."""
    problems: list[str] = field(default_factory=list[str])
    """What could not be mended there, one sentence each."""

    @property
    def ok(self) -> bool:
        """Whether nothing is left to be done."""
        return not (self.kept or self.waiting or self.problems)


def recover(database: Database, progress: Progress | None = None) -> RecoveryReport:
    """Put the documents of the journal into the tables, and make the stores whole.

    Every document goes to the place at which it was emitted, so that
    ``run.documents()`` gives what the RunEngine gave. One that still cannot be stored,
    because it is malformed, stays in the journal. Runs that were cut off are called
    interrupted, and their frames are repaired. Runs that a live process records are
    left alone.

    A line leaves the journal when its document is committed. Whenever the process ends,
    nothing is lost, and doing it again goes on.

    Parameters
    ----------
    database
        Opened for recording.
    progress
        Told how it gets on.

    Raises
    ------
    DatabaseError
        The database cannot take the documents now; they are in the journal still.
    """
    report = RecoveryReport()
    report.interrupted = label_interrupted(database)
    _repair_stores(database, report, progress)
    _replay_journal(database, report, progress)
    with database.inserting() as cursor:
        cursor.execute(_COUNT_ANEW)
    return report


# ----------------------------------------------------------------------------- frames


def _repair_stores(
    database: Database, report: RecoveryReport, progress: Progress | None
) -> None:
    groups = list(dict.fromkeys(a.parent for a in find_arrays(database.store)))
    for number, group in enumerate(groups):
        if progress is not None:
            progress("repairing frames", number, len(groups))
        name = group.relative_to(database.folder)
        try:
            found = repair_store(group)
        except StoreStateError:
            # A live process writes there, and repairs what it opens.
            continue
        except (BeamtimeError, OSError) as error:
            report.problems.append(f"{name}: {error}")
            continue
        report.repaired += [f"{name}/{sentence}" for sentence in found.repaired]
        report.problems += [f"{name}/{sentence}" for sentence in found.problems]


# -------------------------------------------------------------------------- documents


def _replay_journal(
    database: Database, report: RecoveryReport, progress: Progress | None
) -> None:
    journal = Journal(database.journal)
    entries = list(journal.entries())
    by_run = _by_run(database, entries)
    safe: dict[int, int] = {}
    moved: dict[int, tuple[str, int]] = {}
    done = 0
    live = bool(live_writers(database.path))
    for run_uid, mine in by_run.items():
        if progress is not None:
            progress("storing documents", done, len(entries))
        done += len(mine)
        if run_uid is None:
            for entry in mine:
                _keep(report, "nobody knows its run: " + entry.reason)
            continue
        over, free = _is_over(database, run_uid, mine, live=live)
        if not free:
            report.waiting += len(mine)
            continue
        result = replay(database, run_uid, mine, journal.document, over=over)
        for entry in result.stored:
            safe[entry.start] = entry.size
        for entry, ordinal in result.moved.items():
            moved[entry.start] = (run_uid, ordinal)
        for reason in result.refused.values():
            _keep(report, reason)
        if result.stored:
            report.stored += len(result.stored)
            report.runs.append(run_uid)
    try:
        journal.remove(safe, moved)
    except OSError as error:
        raise DatabaseWriteError(
            f"{report.stored} documents are stored now, but stay in "
            f"{str(journal.path)!r} as well: {error}; free some space, and do it again",
            errno=error.errno,
            filename=str(journal.path),
        ) from error


def _keep(report: RecoveryReport, reason: str) -> None:
    report.kept[reason] = report.kept.get(reason, 0) + 1


def _by_run(
    database: Database, entries: Iterable[Entry]
) -> dict[str | None, list[Entry]]:
    """Return the entries of each run, also of those that came before their run."""
    entries = list(entries)
    # What the journal itself tells of who belongs to whom.
    owners = {
        entry.refers["uid"]: entry.refers["run_start"]
        for entry in entries
        if entry.name in ("descriptor", "resource", "stream_resource")
        and _is_text(entry.refers, "uid", "run_start")
    }
    by_run: dict[str | None, list[Entry]] = {}
    for entry in entries:
        run = entry.run
        if run is None:
            run = _run_of(database, entry, owners)
        by_run.setdefault(run, []).append(entry)
    return by_run


def _run_of(database: Database, entry: Entry, owners: Mapping[str, str]) -> str | None:
    refers = entry.refers
    if entry.name == "start":
        return refers["uid"] if _is_text(refers, "uid") else None
    if _is_text(refers, "run_start"):
        return refers["run_start"]
    for key, table in (
        ("descriptor", schema.streams),
        ("resource", schema.resources),
        ("stream_resource", schema.stream_resources),
    ):
        if not _is_text(refers, key):
            continue
        uid = refers[key]
        if uid in owners:
            return owners[uid]
        query = select(table.c.run_uid).where(table.c.uid == uid)
        with database.reading() as connection:
            found = connection.execute(query).scalar()
        if found is not None:
            return found
    return None


def _is_text(refers: Mapping[str, Any], *keys: str) -> bool:
    for key in keys:
        value = refers.get(key)
        if not isinstance(value, str) or not value.isprintable():
            return False
    return True


def _is_over(
    database: Database, run_uid: str, entries: Iterable[Entry], *, live: bool
) -> tuple[bool, bool]:
    """Return whether a run's process has ended, and whether nobody records the run."""
    stopped = any(e.name == "stop" and not e.quarantined for e in entries)
    runs = schema.runs
    query = select(runs.c.stop, runs.c.exit_status, runs.c.writer)
    with database.reading() as connection:
        row = connection.execute(query.where(runs.c.uid == run_uid)).one_or_none()
    if row is None:
        # Nobody can know which process it was.
        return not live, stopped or not live
    if row.stop is not None or row.exit_status is not None:
        return True, True
    alive = is_alive(database.folder, row.writer)
    return not alive, stopped or not alive
