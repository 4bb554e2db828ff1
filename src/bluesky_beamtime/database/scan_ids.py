"""Scan numbers that go on and are never used twice."""

from __future__ import annotations

import json

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.schema import meta, runs

_KEY = "last_scan_id"
# Numbers beyond this came from a user's mistake; going on from them would overflow.
_LARGEST = 2**53


def reserve_scan_id(database: Database, at_least: int = 0) -> int:
    """Return the next scan number of a beamtime.

    It is larger than every number that was reserved or recorded before, by any process,
    and committed before this returns.

    Parameters
    ----------
    database
        Opened for recording.
    at_least
        The number will be larger than this one too.

    Raises
    ------
    DatabaseError
        The number could not be reserved.
    """
    with database.writing() as connection:
        known = [largest_scan_id(connection)]
        if at_least < _LARGEST:
            known.append(at_least)
        number = max(known) + 1
        statement = insert(meta).values(key=_KEY, value=json.dumps(number))
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["key"], set_={"value": statement.excluded.value}
            )
        )
    return number


def largest_scan_id(connection: Connection) -> int:
    """Return the largest scan number that was reserved or recorded, 0 for none."""
    stored = connection.execute(select(meta.c.value).where(meta.c.key == _KEY)).scalar()
    recorded = connection.execute(
        select(func.max(runs.c.scan_id)).where(runs.c.scan_id < _LARGEST)
    ).scalar()
    return max(json.loads(stored) if stored else 0, recorded or 0)


def last_scan_id(database: Database) -> int | None:
    """Return the last number that was reserved or recorded, None if there is none."""
    with database.reading() as connection:
        return largest_scan_id(connection) or None


def raise_scan_id(database: Database, number: int) -> None:
    """Let the next scan number be larger than ``number``; it never becomes smaller.

    Raises
    ------
    DatabaseError
        It could not be stored.
    """
    with database.writing() as connection:
        stored = connection.execute(
            select(meta.c.value).where(meta.c.key == _KEY)
        ).scalar()
        if number >= _LARGEST or (stored and json.loads(stored) >= number):
            return
        statement = insert(meta).values(key=_KEY, value=json.dumps(number))
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["key"], set_={"value": statement.excluded.value}
            )
        )
