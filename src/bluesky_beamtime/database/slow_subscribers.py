"""Which callbacks kept a RunEngine waiting, in the last run that was watched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.engine import Database

_KEY = "subscribers"


@dataclass(frozen=True, slots=True)
class SubscriberTime:
    """The time that one callback took during a run."""

    name: str
    """What it is: a class, or a function."""
    seconds: float
    """How long the plan waited for it."""
    share: float
    """That part of the run."""
    run: str
    """Uid of the run."""


def store_subscribers(database: Database, times: Sequence[SubscriberTime]) -> None:
    """Keep what was seen in a run, instead of what was seen before.

    Raises
    ------
    DatabaseError
        It could not be stored.
    """
    value = encode([asdict(one) for one in times])
    statement = sqlite.insert(schema.meta).values(key=_KEY, value=value)
    with database.writing() as connection:
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["key"], set_={"value": statement.excluded.value}
            )
        )


def read_subscribers(database: Database) -> list[SubscriberTime]:
    """Return what was seen in the last run that was watched, the slowest first."""
    query = select(schema.meta.c.value).where(schema.meta.c.key == _KEY)
    with database.reading() as connection:
        stored = connection.execute(query).scalar()
    found: list[Any] = [] if stored is None else decode(stored)
    times = [SubscriberTime(**one) for one in found]
    return sorted(times, key=lambda one: -one.seconds)
