"""Documents that ought to be there and are not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sqlalchemy import select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.external import frame_rows
from bluesky_beamtime.database.kinds import is_integer, is_mapping
from bluesky_beamtime.recording.journal import Journal
from bluesky_beamtime.recording.quarantine import Quarantine

GAP = "gap"
"""Name of the entry in the journal that says what is missing."""


def report_gaps(database: Database, run_uid: str) -> list[str]:
    """Return what a run that has stopped lacks, one sentence for each stream and field.

    Sequence numbers count from one, and the stop document says how many there were.

    Parameters
    ----------
    database
        The database.
    run_uid
        The run; unknown, or without a stop document, it lacks what stands between what
        there is.
    """
    streams, runs = schema.streams, schema.runs
    query = select(streams.c.uid, streams.c.name, streams.c.data_keys)
    with database.reading() as connection:
        stop = connection.execute(
            select(runs.c.stop).where(runs.c.uid == run_uid)
        ).scalar()
        described = connection.execute(query.where(streams.c.run_uid == run_uid)).all()
    promised: Any = {} if stop is None else decode(stop).get("num_events")
    promised = promised if is_mapping(promised) else {}
    by_name: dict[str, list[str]] = {}
    in_events: set[str] = set()
    for row in described:
        by_name.setdefault(row.name, []).append(row.uid)
        keys = decode(row.data_keys).values()
        if any(is_mapping(k) and k.get("external") != "STREAM:" for k in keys):
            in_events.add(row.name)
    gaps: list[str] = []
    for name in dict.fromkeys([*by_name, *map(str, promised)]):
        uids = by_name.get(name, [])
        number = promised.get(name)
        last = int(number) if is_integer(number) else None
        if not uids:
            if last:
                gaps.append(f"the stream {name!r} with its {last} events never came")
            continue
        found = {"events": _events(database, uids)}
        if name not in in_events and not len(found["events"]):
            del found["events"]
        for key, rows in frame_rows(database, run_uid, uids).items():
            found[f"frames of {key!r}"] = rows.seq_nums
        if not found and last:
            gaps.append(f"the {last} events of the stream {name!r} never came")
        for what, numbers in found.items():
            missing = _missing(numbers, last)
            if missing:
                gaps.append(f"{what} {missing} of the stream {name!r} never came")
    return gaps


def _events(database: Database, stream_uids: list[str]) -> Any:
    events = schema.events
    query = select(events.c.seq_num).where(events.c.stream_uid.in_(stream_uids))
    with database.reading() as connection:
        return np.unique(np.array(list(connection.execute(query).scalars()), np.int64))


def _missing(numbers: Any, last: int | None) -> str:
    """Return the numbers from one on that are not there, such as ``"3 to 6, 9"``."""
    if last is None:
        last = int(numbers[-1]) if len(numbers) else 0
    inside = numbers[(numbers >= 1) & (numbers <= last)]
    edges = np.concatenate([[0], inside, [last + 1]])
    holes = np.flatnonzero(np.diff(edges) > 1)
    spans = [(int(edges[hole]) + 1, int(edges[hole + 1]) - 1) for hole in holes]
    words = [str(a) if a == b else f"{a} to {b}" for a, b in spans[:5]]
    return ", ".join(words) + (f" and {len(spans) - 5} more" if spans[5:] else "")


def remember_gaps(database: Database, run_uid: str, gaps: Iterable[str]) -> None:
    """Say in the journal what a run lacks, so that nobody takes it for complete.

    Raises
    ------
    DatabaseWriteError
        The disk refused.
    """
    quarantine = Quarantine(database.journal)
    for gap in gaps:
        reason = f"run {run_uid}: {gap}; import it from where it is complete"
        quarantine.add(GAP, {"run_start": run_uid, "gap": gap}, reason, run_uid)


def forget_gaps(database: Database, run_uid: str) -> None:
    """Take those gaps of a run out of the journal that have been filled."""
    if not database.journal.exists():
        return
    journal = Journal(database.journal)
    still = set(report_gaps(database, run_uid))
    filled = {
        entry.start: entry.size
        for entry in journal.entries()
        if entry.run == run_uid
        and entry.name == GAP
        and journal.document(entry).get("gap") not in still
    }
    journal.remove(filled, {})
