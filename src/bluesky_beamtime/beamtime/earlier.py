"""What detectors took on the disk in earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.kinds import is_list, is_mapping
from bluesky_beamtime.storage import from_uri

if TYPE_CHECKING:
    from bluesky_beamtime.plans.expectation import Appetite

RUNS = 50
"""Newest runs that are looked through."""


def last_appetites(database: Database, device: str) -> list[Appetite]:
    """Return what a device took for each event in the last run that had it.

    Parameters
    ----------
    database
        The beamtime's.
    device
        Name of the device.
    """
    from bluesky_beamtime.plans.expectation import appetite_of

    for run, descriptor in _descriptors(database, device):
        objects, data_keys = descriptor.get("object_keys"), descriptor.get("data_keys")
        keys: Any = objects.get(device) if is_mapping(objects) else None
        if not is_list(keys) or not is_mapping(data_keys):
            continue
        folders = _folders(database, run)
        found: list[Appetite] = []
        for key in map(str, keys):
            data_key: Any = data_keys.get(key)
            if is_mapping(data_key):
                found.append(appetite_of(key, data_key, folders.get(key), earlier=True))
        return found
    return []


def _descriptors(database: Database, device: str) -> list[tuple[str, dict[str, Any]]]:
    """Return descriptors of the newest runs that name a device, with the run's uid."""
    newest = (
        select(schema.runs.c.uid, schema.runs.c.id)
        .order_by(schema.runs.c.id.desc())
        .limit(RUNS)
        .subquery()
    )
    table = schema.streams
    query = (
        select(table.c.run_uid, table.c.descriptor)
        .join(newest, newest.c.uid == table.c.run_uid)
        .where(table.c.descriptor.contains(device, autoescape=True))
        .order_by(newest.c.id.desc(), table.c.ordinal.desc())
    )
    with database.reading() as connection:
        rows = connection.execute(query).all()
    return [(row.run_uid, decode(row.descriptor)) for row in rows]


def _folders(database: Database, run: str) -> dict[str, str]:
    """Return where a run's external data went, by data key.

    Empty text for what is on no disk of this machine.
    """
    table = schema.stream_resources
    query = select(table.c.data_key, table.c.document).where(table.c.run_uid == run)
    with database.reading() as connection:
        rows = connection.execute(query).all()
    return {row.data_key: _folder(decode(row.document).get("uri")) for row in rows}


def _folder(uri: Any) -> str:
    try:
        parent = Path(from_uri(str(uri))).parent
    except ValueError:
        return ""
    return str(parent) if parent.is_dir() else ""
