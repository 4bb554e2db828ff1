"""What became of every frame of a run: the frames' own attributes say it.

When a run stops its counters are copied to the table ``frame_accounts``, so that a
listing of many runs need not open their arrays.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.external import stored_arrays
from bluesky_beamtime.database.kinds import is_mapping
from bluesky_beamtime.errors import StorageError

logger = logging.getLogger(__name__)

COUNTERS = ("expected", "received", "dropped", "late", "written")
"""Counters of each camera; None where nobody counted."""

Account = dict[str, int | None]


def frame_accounts(database: Database, run_uid: str) -> dict[str, Account]:
    """Return the counters of each data key of a run that holds frames.

    ``written`` is the length of the array, whatever the camera said. A key whose array
    is not there has None throughout. Keys with a number per frame (its time, its id)
    are no frames.
    """
    accounts: dict[str, Account] = {}
    seen: set[tuple[str, str]] = set()
    for stored in stored_arrays(database, run_uid):
        # One array may be announced anew for each descriptor.
        if (stored.data_key, stored.uri) in seen:
            continue
        seen.add((stored.data_key, stored.uri))
        try:
            array = stored.open()
        except StorageError:
            accounts.setdefault(stored.data_key, dict.fromkeys(COUNTERS))
            continue
        counted: Any = dict(array.attrs).get("accounting")
        if array.ndim == 1 and counted is None:
            continue
        account: Account = dict.fromkeys(COUNTERS)
        if is_mapping(counted):
            account |= {
                name: value
                for name in COUNTERS
                if isinstance(value := counted.get(name), int)
            }
        account["written"] = int(array.shape[0])
        accounts[stored.data_key] = _add(accounts.get(stored.data_key), account)
    return accounts


def _add(first: Account | None, second: Account) -> Account:
    if first is None:
        return second
    total: Account = {}
    for name in COUNTERS:
        one, other = first[name], second[name]
        total[name] = one if other is None else other if one is None else one + other
    return total


# ------------------------------------------------------------------------- the table


def store_accounts(database: Database, run_uid: str) -> None:
    """Copy the counters of a run from the attributes of its frames to the table.

    May be called again when more became known. Frames that are not on a disk of this
    machine are left to those who ask for them: no server is waited for here.

    Raises
    ------
    DatabaseError
        They could not be stored.
    """
    arrays = stored_arrays(database, run_uid)
    if not arrays or not all(array.uri.startswith("file:") for array in arrays):
        return
    accounts = frame_accounts(database, run_uid)
    if not accounts or any(one["written"] is None for one in accounts.values()):
        # Nothing to tell, or not yet: a listing will look for itself.
        return
    table = schema.frame_accounts
    with database.writing() as connection:
        if read_accounts(connection, [run_uid]).get(run_uid, {}) == accounts:
            return
        connection.execute(delete(table).where(table.c.run_uid == run_uid))
        connection.execute(
            insert(table),
            [
                {"run_uid": run_uid, "data_key": key, **account}
                for key, account in accounts.items()
            ],
        )


def try_to_store_accounts(database: Database, run_uid: str) -> None:
    """Call :func:`store_accounts`; log what goes wrong, for a run is good without."""
    try:
        store_accounts(database, run_uid)
    except Exception as error:
        logger.warning("the frames of run %s are not accounted for: %s", run_uid, error)


def read_accounts(
    connection: Connection, run_uids: Iterable[str]
) -> dict[str, dict[str, Account]]:
    """Return what the table has, by run and data key."""
    table = schema.frame_accounts
    query = select(table).where(table.c.run_uid.in_(list(run_uids)))
    found: dict[str, dict[str, Account]] = {}
    for row in connection.execute(query.order_by(table.c.run_uid, table.c.data_key)):
        account = {name: getattr(row, name) for name in COUNTERS}
        found.setdefault(row.run_uid, {})[row.data_key] = account
    return found
