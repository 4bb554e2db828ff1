"""The lines of a listing: a page of runs in a few queries, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.accounting import (
    Account,
    frame_accounts,
    read_accounts,
)
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.liveness import is_alive

_runs = schema.runs


def summarize(
    database: Database, journal: JournalIndex, ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return what a listing tells of some runs: plain values, ready for JSON.

    Parameters
    ----------
    database, journal
        Where the runs are, and which of them have documents in the journal.
    ids
        Numbers of their rows; a few hundred at most.
    """
    query = (
        select(
            *(_runs.c.id, _runs.c.uid, _runs.c.scan_id, _runs.c.plan_name),
            *(_runs.c.time_start, _runs.c.exit_status, _runs.c.num_events),
            *(_runs.c.writer, _runs.c.starred),
            schema.samples.c.name.label("sample"),
        )
        .select_from(_runs.outerjoin(schema.samples))
        .where(_runs.c.id.in_(ids))
    )
    with database.reading() as connection:
        rows: dict[int, Any] = {row.id: row for row in connection.execute(query)}
        # A run may have been removed meanwhile.
        found = [rows[number] for number in ids if number in rows]
        uids = [row.uid for row in found]
        tags = _tags(connection, uids)
        events = _count_events(connection, [r.uid for r in found if not _is_over(r)])
        accounts = read_accounts(connection, uids)
        framed = _runs_with_frames(connection, uids)
    writers = {row.writer for row in found}
    alive = {writer: is_alive(database.folder, writer) for writer in writers}
    for row in _still_counting(found, framed, alive, accounts):
        accounts[row.uid] = frame_accounts(database, row.uid)
    journaled = journal.runs()
    summaries: list[dict[str, Any]] = []
    for row in found:
        status = row.exit_status
        if status is None and not alive[row.writer]:
            status = "interrupted"
        counted = row.num_events
        summaries.append(
            {
                "uid": row.uid,
                "scan_id": row.scan_id,
                "plan_name": row.plan_name,
                "sample": row.sample,
                "time": row.time_start,
                "exit_status": status,
                "num_events": events.get(row.uid, 0) if counted is None else counted,
                "complete": status != "interrupted" and row.uid not in journaled,
                "frames": accounts.get(row.uid, {}),
                "tags": tags.get(row.uid, []),
                "starred": bool(row.starred),
            }
        )
    return summaries


def _is_over(row: Any) -> bool:
    return row.num_events is not None


def _tags(connection: Connection, uids: Sequence[str]) -> dict[str, list[str]]:
    table = schema.run_tags
    query = select(table).where(table.c.run_uid.in_(uids)).order_by(table.c.tag)
    found: dict[str, list[str]] = {}
    for row in connection.execute(query):
        found.setdefault(row.run_uid, []).append(row.tag)
    return found


def _count_events(connection: Connection, uids: Sequence[str]) -> dict[str, int]:
    """Return the events so far of runs that have not stopped."""
    if not uids:
        return {}
    streams, events = schema.streams, schema.events
    query = (
        select(streams.c.run_uid, func.count())
        .join(events, events.c.stream_uid == streams.c.uid)
        .where(streams.c.run_uid.in_(uids))
        .group_by(streams.c.run_uid)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _runs_with_frames(connection: Connection, uids: Sequence[str]) -> set[str]:
    column = schema.stream_resources.c.run_uid
    query = select(column).where(column.in_(uids)).distinct()
    return set(connection.execute(query).scalars())


def _still_counting(
    found: Sequence[Any],
    framed: set[str],
    alive: dict[str | None, bool],
    accounts: dict[str, dict[str, Account]],
) -> list[Any]:
    """Return the runs whose arrays know more than the table.

    Those that have not stopped, those of before the table, and of each writer that
    lives the newest: its cameras may still be counting after the stop document. (The
    table is brought up to date when the next run starts.)
    """
    newest = set[str | None]()
    counting: list[Any] = []
    for row in sorted(found, key=lambda row: -row.id):
        if row.uid not in framed:
            continue
        live = alive[row.writer] and row.writer not in newest
        if live:
            newest.add(row.writer)
        if live or not _is_over(row) or row.uid not in accounts:
            counting.append(row)
    return counting
