"""The runs of a beamtime into an index: all of them, or those that it lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.index_writer import (
    IndexEntry,
    IndexWriter,
    store_entry,
)
from bluesky_beamtime.database.people import people_of_run

_PAGE = 200
_runs = schema.runs


def bring_up_to_date(
    writer: IndexWriter, database: Database, beamtime_id: int, *, anew: bool = False
) -> int:
    """Tell an index what it does not know of a beamtime; return how many runs.

    These are the runs that began after the last one it was told of, and those that had
    not ended then. How far it got is kept in the index itself, so that nothing is lost
    when it was away, nor when it is replaced by an older copy.

    Parameters
    ----------
    writer
        The index.
    database
        The beamtime, which is only read.
    beamtime_id
        Its number in the index.
    anew
        Tell everything, also labels that were added to old runs.
    """
    last, researcher_id, unfinished = _known(writer, database, beamtime_id)
    count = 0
    for ids in _pages(database, 0 if anew else last, [] if anew else unfinished):
        entries = _read_entries(database, ids)
        newest = max(ids)
        with writer.writing() as connection:
            for number, entry in entries.items():
                store_entry(connection, beamtime_id, researcher_id, entry)
                if number == newest:
                    connection.execute(
                        "UPDATE beamtimes SET last_row = ?, last_uid = ? "
                        "WHERE id = ? AND last_row < ?",
                        (number, entry.uid, beamtime_id, number),
                    )
            connection.execute(
                "UPDATE beamtimes SET "
                "time_start = (SELECT min(time_start) FROM runs_index "
                "WHERE beamtime_id = beamtimes.id), "
                "time_stop = (SELECT max(coalesce(time_stop, time_start)) "
                "FROM runs_index WHERE beamtime_id = beamtimes.id) WHERE id = ?",
                (beamtime_id,),
            )
        count += len(entries)
    return count


def _known(
    writer: IndexWriter, database: Database, beamtime_id: int
) -> tuple[int, int | None, list[str]]:
    """Return the last row, the researcher, and the runs that had not ended."""
    with writer.writing() as connection:
        last, uid, researcher_id = connection.execute(
            "SELECT last_row, last_uid, researcher_id FROM beamtimes WHERE id = ?",
            (beamtime_id,),
        ).fetchone()
        found = connection.execute(
            "SELECT uid FROM runs_index WHERE beamtime_id = ? AND exit_status IS NULL",
            (beamtime_id,),
        ).fetchall()
        if last and _uid_of(database, last) != uid:
            # Another file has taken its place.
            last = 0
            connection.execute(
                "UPDATE beamtimes SET last_row = 0, last_uid = NULL WHERE id = ?",
                (beamtime_id,),
            )
    return last, researcher_id, [uid for (uid,) in found]


def _uid_of(database: Database, number: int) -> str | None:
    with database.reading() as connection:
        return connection.execute(
            select(_runs.c.uid).where(_runs.c.id == number)
        ).scalar()


def _pages(
    database: Database, last: int, unfinished: Sequence[str]
) -> Iterator[list[int]]:
    """Yield numbers of rows: first of the runs that had not ended, then of new ones."""
    for start in range(0, len(unfinished), _PAGE):
        part = unfinished[start : start + _PAGE]
        query = select(_runs.c.id).where(
            _runs.c.uid.in_(part), _runs.c.exit_status.is_not(None)
        )
        ids = _numbers(database, query)
        if ids:
            yield ids
    while True:
        query = select(_runs.c.id).where(_runs.c.id > last)
        ids = _numbers(database, query.order_by(_runs.c.id).limit(_PAGE))
        if not ids:
            return
        yield ids
        last = ids[-1]


def _numbers(database: Database, query: Any) -> list[int]:
    with database.reading() as connection:
        return list(connection.execute(query).scalars())


def _read_entries(database: Database, ids: Sequence[int]) -> dict[int, IndexEntry]:
    query = (
        select(_runs, schema.samples.c.name.label("sample"), schema.run_texts.c.text)
        .select_from(
            _runs.outerjoin(
                schema.samples, schema.samples.c.id == _runs.c.sample_id
            ).outerjoin(schema.run_texts, schema.run_texts.c.run_id == _runs.c.id)
        )
        .where(_runs.c.id.in_(list(ids)))
        .order_by(_runs.c.id)
    )
    with database.reading() as connection:
        rows = connection.execute(query).all()
        uids = [row.uid for row in rows]
        tags = _tags(connection, uids)
        named = _with_people(connection, uids)
        return {
            row.id: IndexEntry(
                uid=row.uid,
                plan_name=row.plan_name,
                sample_name=row.sample,
                scan_id=row.scan_id,
                time_start=row.time_start,
                time_stop=row.time_stop,
                exit_status=row.exit_status,
                num_events=row.num_events,
                tags=tags.get(row.uid, []),
                proposal=row.proposal,
                starred=bool(row.starred),
                start=row.start,
                text=row.text,
                people=people_of_run(connection, row.uid) if row.uid in named else (),
            )
            for row in rows
        }


def _tags(connection: Connection, uids: Sequence[str]) -> dict[str, list[str]]:
    table = schema.run_tags
    query = select(table).where(table.c.run_uid.in_(uids)).order_by(table.c.tag)
    found: dict[str, list[str]] = {}
    for row in connection.execute(query):
        found.setdefault(row.run_uid, []).append(row.tag)
    return found


def _with_people(connection: Connection, uids: Sequence[str]) -> set[str]:
    column = schema.run_people.c.run_uid
    query = select(func.distinct(column)).where(column.in_(uids))
    return set(connection.execute(query).scalars())
