"""What becomes of runs: their end, what is said of them, and that they go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from sqlalchemy import Connection, Table, and_, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.replica import tables
from bluesky_beamtime.database.replica.feed import Row
from bluesky_beamtime.database.replica.sending import RowSender, clean


def remove_runs(sender: RowSender, connection: Connection, uids: list[str]) -> None:
    """Remove runs that are gone from the file they came from."""
    if not uids:
        return
    mine, runs = tables.source_runs, schema.runs
    ours = select(mine.c.run_uid).where(
        mine.c.run_uid.in_([clean(uid) for uid in uids]),
        mine.c.source == sender.source,
    )
    removed = connection.execute(ours).scalars().all()
    connection.execute(delete(runs).where(runs.c.uid.in_(removed)))
    connection.execute(delete(mine).where(mine.c.run_uid.in_(removed)))


def end_runs(
    sender: RowSender, connection: Connection, runs: list[Row], samples: dict[int, int]
) -> None:
    """Bring runs that are there up to what they are now."""
    table = schema.runs
    names = [c.name for c in table.columns if c.name not in ("id", "uid", "writer")]
    rows = [
        {**row, "sample_id": samples.get(row["sample_id"]), "writer": None}
        for row in runs
    ]
    values = [{n: clean(row[n]) for n in ["uid", *names]} for row in rows]
    statement = update(table).where(table.c.uid == bindparam("key"))
    sender.attempt(
        connection,
        table,
        [{"key": row["uid"], **{f"set_{n}": row[n] for n in names}} for row in values],
        statement.values({n: bindparam(f"set_{n}") for n in names}),
    )


def renew(
    sender: RowSender,
    connection: Connection,
    table: Table,
    column: str,
    keys: list[str],
    rows: list[Row],
) -> None:
    """Put the rows of some runs in the place of those that were there."""
    if keys:
        old = table.c[column].in_([clean(key) for key in keys])
        connection.execute(delete(table).where(old))
    sender.put(connection, table, rows, insert)


def put_texts(
    sender: RowSender, connection: Connection, uids: dict[int, str], rows: list[Row]
) -> None:
    """Renew the texts of runs, which know them by their numbers over there."""
    runs, table = schema.runs, schema.run_texts
    query = select(runs.c.uid, runs.c.id).where(
        runs.c.uid.in_([clean(uid) for uid in uids.values()])
    )
    ids: dict[str, int] = dict(
        cast("Iterable[tuple[str, int]]", map(tuple, connection.execute(query)))
    )
    renewed = [
        {**row, "run_id": ids[uid]}
        for row in rows
        if (uid := clean(uids[row["run_id"]])) in ids
    ]
    if ids:
        old = table.c.run_id.in_(list(ids.values()))
        connection.execute(delete(table).where(old))
    sender.put(connection, table, renewed, insert)


def put_notes(
    sender: RowSender, connection: Connection, keys: list[str], rows: list[Row]
) -> None:
    """Renew the notes of some numbers, and remove those that are gone."""
    table, mine = schema.notes, tables.source_notes
    present = {row["id"]: row for row in rows}
    for key in map(int, keys):
        where = and_(mine.c.source == sender.source, mine.c.local_id == key)
        note = connection.execute(select(mine.c.note_id).where(where)).scalar()
        if note is not None:
            connection.execute(delete(table).where(table.c.id == note))
            connection.execute(delete(mine).where(where))
        if key not in present:
            continue
        names = [c.name for c in table.columns if c.name != "id"]
        values = {name: clean(present[key][name]) for name in names}
        if note is not None:
            values["id"] = note
        added = insert(table).values(**values).returning(table.c.id)
        number = connection.execute(added).scalar_one()
        connection.execute(
            insert(mine).values(source=sender.source, local_id=key, note_id=number)
        )
