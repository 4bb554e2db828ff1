"""What other rows refer to: samples, people, and runs that have begun."""

from __future__ import annotations

import zlib

from sqlalchemy import Connection, and_, exists, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.replica import tables
from bluesky_beamtime.database.replica.feed import Row
from bluesky_beamtime.database.replica.sending import RowSender, absent, clean, replaced
from bluesky_beamtime.storage import quote_name

# What becomes of a run only at its end.
_END = ("time_stop", "exit_status", "num_events", "stop", "stop_ordinal")


def put_samples(
    sender: RowSender, connection: Connection, rows: list[Row], history: list[Row]
) -> dict[int, int]:
    """Store samples by their names; return their numbers here by those there."""
    table, old = schema.samples, schema.sample_history
    names = [name for c in table.columns if (name := c.name) not in ("id", "name")]
    sender.put(connection, table, rows, replaced("name", names))
    ids = {
        name: number
        for number, name in connection.execute(
            select(table.c.id, table.c.name).where(
                table.c.name.in_([clean(row["name"]) for row in rows])
            )
        )
    }
    found = {
        row["id"]: ids[name] for row in rows if (name := clean(row["name"])) in ids
    }
    for row in history:
        if row["sample_id"] not in found:
            continue
        values = {
            "sample_id": found[row["sample_id"]],
            "time": row["time"],
            "sample": clean(row["sample"]),
        }
        same = and_(*(old.c[name] == value for name, value in values.items()))
        columns = [literal(v, old.c[n].type) for n, v in values.items()]
        connection.execute(
            insert(old).from_select(
                list(values), select(*columns).where(~exists().where(same))
            )
        )
    return found


def put_person(connection: Connection, row: Row) -> int:
    """Store a person, known by the ORCID, else by name and address."""
    table = schema.people
    values = {n: clean(row[n]) for n in ("name", "email", "orcid", "affiliation")}
    alike = and_(
        table.c.name == values["name"],
        table.c.email.is_not_distinct_from(values["email"]),
    )
    if values["orcid"] is not None:
        alike = or_(
            table.c.orcid == values["orcid"], and_(alike, table.c.orcid.is_(None))
        )
    found = connection.execute(
        select(table.c.id).where(alike).order_by(table.c.orcid.nulls_last()).limit(1)
    ).scalar()
    if found is None:
        statement = insert(table).values(**values).returning(table.c.id)
        return connection.execute(statement).scalar_one()
    known = {name: value for name, value in values.items() if value is not None}
    connection.execute(update(table).where(table.c.id == found).values(**known))
    return found


def begin_runs(
    sender: RowSender, connection: Connection, runs: list[Row], samples: dict[int, int]
) -> None:
    """Store runs that are not there, as if they were still going on."""
    table = schema.runs
    uids = [clean(row["uid"]) for row in runs]
    there = set(
        connection.execute(select(table.c.uid).where(table.c.uid.in_(uids))).scalars()
    )
    new = [row for row in runs if clean(row["uid"]) not in there]
    numbers = _free_numbers(connection, new)
    begun = [
        {
            **row,
            **dict.fromkeys(_END),
            "id": number,
            "sample_id": samples.get(row["sample_id"]),
            "writer": None,
        }
        for row, number in zip(new, numbers, strict=True)
    ]
    sender.put(connection, table, begun, absent("uid"), keep_id=True)
    mine = tables.source_runs
    if uids:
        connection.execute(
            insert(mine).on_conflict_do_nothing(index_elements=["run_uid"]),
            [
                {"run_uid": uid, "source": sender.source, "folder": quote_name(uid)}
                for uid in uids
            ],
        )


def _free_numbers(connection: Connection, runs: list[Row]) -> list[int]:
    """Return numbers for new runs that stand in the order of their times.

    Several files come together here, and one that was cut off comes late: the
    newest run is the one that began last.
    """
    wished = [run_number(row["time_start"], row["uid"]) for row in runs]
    table = schema.runs
    taken = (
        set(
            connection.execute(
                select(table.c.id).where(
                    or_(
                        *(table.c.id.between(number, number + 999) for number in wished)
                    )
                )
            ).scalars()
        )
        if wished
        else set[int]()
    )
    found: list[int] = []
    for number in wished:
        while number in taken:
            number += 1
        taken.add(number)
        found.append(number)
    return found


def run_number(time_start: float | None, uid: str) -> int:
    """Return the number of a run at the far end: the microsecond in which it began."""
    try:
        began = int((time_start or 0.0) * 1e6)
    except (OverflowError, ValueError):
        began = 0
    began = min(max(began, 0), 2**62 // 1000)
    return began * 1000 + zlib.crc32(uid.encode()) % 500
