"""A page of runs out of the database, in as many queries for a hundred as for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.conditions import Condition as AnyCondition
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.fulltext import matching, number_among
from bluesky_beamtime.serving.searching import searching

# Values bound to one statement, of which SQLite takes 32 766.
_MOST_AT_ONCE = 500


@dataclass(slots=True)
class RunRow:
    """What a listing shows of a run."""

    id: int
    uid: str
    start: str
    """The RunStart document, JSON."""
    stop: str | None
    """The RunStop document, JSON; None while there is none."""
    time_start: float | None
    exit_status: str | None
    writer: str | None
    sample: str | None
    starred: bool
    tags: list[str] = field(default_factory=list[str])
    notes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    streams: list[str] = field(default_factory=list[str])
    """Names, in the order in which they began."""
    frames: dict[str, dict[str, int | None]] = field(
        default_factory=dict[str, dict[str, "int | None"]]
    )
    """Counters of each camera, once the run has stopped."""


def as_int64(number: int) -> int:
    """Return the nearest integer that SQLite takes; no row is beyond them."""
    return max(-(2**63), min(number, 2**63 - 1))


def fetch_runs(
    database: Database,
    conditions: Sequence[AnyCondition],
    order: Sequence[ColumnElement[Any]],
    *,
    limit: int | None = None,
    offset: int | None = None,
) -> list[RunRow]:
    """Return runs with what belongs to each.

    Parameters
    ----------
    database
        The beamtime.
    conditions, order, limit, offset
        As in SQL.
    """
    numbers = matching(conditions, number_among(conditions))
    numbers = numbers.order_by(*order).limit(limit).offset(offset)
    found: list[RunRow] = []
    with searching(database) as connection:
        ids = list(connection.execute(numbers).scalars())
        for start in range(0, len(ids), _MOST_AT_ONCE):
            found += _rows(connection, ids[start : start + _MOST_AT_ONCE])
    return found


def _rows(connection: Any, ids: Sequence[int]) -> list[RunRow]:
    runs, samples = schema.runs, schema.samples
    query = (
        select(
            runs.c.id,
            runs.c.uid,
            runs.c.start,
            runs.c.stop,
            runs.c.time_start,
            runs.c.exit_status,
            runs.c.writer,
            runs.c.starred,
            samples.c.name,
        )
        .select_from(runs.outerjoin(samples, samples.c.id == runs.c.sample_id))
        .where(runs.c.id.in_(ids))
    )
    found = {
        row.id: RunRow(
            id=row.id,
            uid=row.uid,
            start=row.start,
            stop=row.stop,
            time_start=row.time_start,
            exit_status=row.exit_status,
            writer=row.writer,
            sample=row.name,
            starred=bool(row.starred),
        )
        for row in connection.execute(query)
    }
    _add_parts(connection, {row.uid: row for row in found.values()})
    # A run may have been deleted since its number was found.
    return [found[number] for number in ids if number in found]


def _add_parts(connection: Any, found: dict[str, RunRow]) -> None:
    uids = list(found)
    tags, notes = schema.run_tags, schema.notes
    streams, accounts = schema.streams, schema.frame_accounts
    for row in connection.execute(
        select(tags.c.run_uid, tags.c.tag)
        .where(tags.c.run_uid.in_(uids))
        .order_by(tags.c.tag)
    ):
        found[row.run_uid].tags.append(row.tag)
    for row in connection.execute(
        select(notes).where(notes.c.run_uid.in_(uids)).order_by(notes.c.id)
    ):
        note = {"time": row.time, "author": row.author, "text": row.text}
        found[row.run_uid].notes.append(note)
    for row in connection.execute(
        select(streams.c.run_uid, streams.c.name)
        .where(streams.c.run_uid.in_(uids))
        .order_by(streams.c.ordinal)
    ):
        names = found[row.run_uid].streams
        if row.name not in names:
            names.append(row.name)
    for row in connection.execute(select(accounts).where(accounts.c.run_uid.in_(uids))):
        # SQLAlchemy's names are a kind of text that not every encoder takes.
        counters = {str(name): value for name, value in row._mapping.items()}
        key = counters.pop("data_key")
        del counters["run_uid"]
        found[row.run_uid].frames[key] = counters
