"""Which beamtimes an index knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import column, func, select, table

from bluesky_beamtime.database.index import Index
from bluesky_beamtime.database.index_tables import INDEX_APPLICATION_ID
from bluesky_beamtime.sqlite_locks import first_bytes

_beamtimes = table(
    "beamtimes", *map(column, ("id", "label", "db_path", "researcher_id"))
)
_researchers = table("researchers", *map(column, ("id", "name")))
_runs = table("runs_index", column("beamtime_id"))


@dataclass(frozen=True, slots=True)
class IndexedBeamtime:
    """What an index says of a beamtime, also when its disk is absent."""

    label: str
    """How it is called."""
    path: Path
    """Its file."""
    researcher: str | None
    """Whose it is."""
    runs: int
    """How many of its runs the index knows."""


def beamtimes_of(index: Index) -> list[IndexedBeamtime]:
    """Return the beamtimes that an index knows, in the order in which it met them.

    Raises
    ------
    BeamtimeFileError
        There is no index.
    """
    runs: Any = (
        select(func.count()).where(_runs.c.beamtime_id == _beamtimes.c.id)
    ).scalar_subquery()
    query = (
        select(
            _beamtimes.c.label, _beamtimes.c.db_path, _researchers.c.name, runs
        ).select_from(
            _beamtimes.outerjoin(
                _researchers, _researchers.c.id == _beamtimes.c.researcher_id
            )
        )
    ).order_by(_beamtimes.c.id)
    with index.reading() as connection:
        return [
            IndexedBeamtime(label, Path(path), researcher, number)
            for label, path, researcher, number in connection.execute(query)
        ]


def is_index(path: Path) -> bool:
    """Say whether a file is an index, rather than a beamtime."""
    try:
        header = first_bytes(path, 72)
    except OSError:
        return False
    return header[68:72] == INDEX_APPLICATION_ID.to_bytes(4, "big")
