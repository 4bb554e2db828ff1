"""What became of every frame of a run: the frames' own attributes say it.

When a run stops its counters are copied to the table ``frame_accounts``, so that a
listing of many runs need not open their arrays.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

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

_TIMES = ("live_time", "span", "storage_time")

Timing = dict[str, float | None]


def frame_accounts(database: Database, run_uid: str) -> dict[str, Account]:
    """Return the counters of each data key of a run that holds frames.

    ``written`` is the length of the array, whatever the camera said. A key whose array
    is not there has None throughout. Keys with a number per frame (its time, its id)
    are no frames.

    Runs of one staging share arrays; of those that cameras divide among their runs,
    each run has its own part. Of a camera that was killed, what it received is at least
    what it has written; its other counters are those of a moment before.
    """
    accounts: dict[str, Account] = {}
    for key, counted, written, _ in _counted_arrays(database, run_uid):
        account: Account = dict.fromkeys(COUNTERS)
        account |= {
            name: value
            for name in COUNTERS
            if isinstance(value := counted.get(name), int)
        }
        account["written"] = written
        if account["received"] is not None and written is not None:
            account["received"] = max(account["received"], written)
        accounts[key] = _add(accounts.get(key), account)
    return accounts


def frame_timing(database: Database, run_uid: str) -> dict[str, Timing]:
    """Return how each camera of a run has spent its time, of those that know.

    See :attr:`Run.frame_timing`.
    """
    sums: dict[str, dict[str, float]] = {}
    for key, counted, _, _ in _counted_arrays(database, run_uid):
        times = {name: counted.get(name) for name in _TIMES}
        if any(not isinstance(value, (int, float)) for value in times.values()):
            continue
        total = sums.setdefault(key, dict.fromkeys(_TIMES, 0.0))
        for name, value in times.items():
            total[name] += cast("float", value)
    return {key: {**total, "dead_time": _dead(total)} for key, total in sums.items()}


def frame_bytes(database: Database, run_uid: str) -> int:
    """Return the bytes of all frames that a run has written, before compression."""
    arrays = _counted_arrays(database, run_uid)
    return sum((written or 0) * size for _, _, written, size in arrays)


def _dead(times: Mapping[str, float]) -> float | None:
    live, span = times["live_time"], times["span"]
    return round(max(0.0, 1 - live / span), 6) if live > 0 and span > 0 else None


def _counted_arrays(
    database: Database, run_uid: str
) -> Iterator[tuple[str, Mapping[str, Any], int | None, int]]:
    """Yield what there is of each array, or part of one, that holds frames of a run.

    Key, what was counted, frames written, bytes of a frame.
    """
    seen: set[tuple[str, str]] = set()
    for stored in stored_arrays(database, run_uid):
        try:
            array = stored.open()
        except StorageError:
            if (stored.data_key, stored.uri) not in seen:
                seen.add((stored.data_key, stored.uri))
                yield stored.data_key, {}, None, 0
            continue
        counted: Any = dict(array.attrs).get("accounting")
        if array.ndim == 1 and counted is None:
            continue
        counted = counted if is_mapping(counted) else {}
        length = int(array.shape[0])
        size = array.dtype.itemsize * math.prod(array.shape[1:])
        part = _part_of(counted, stored.uid)
        if part is not None:
            yield stored.data_key, part, _written(part, length), size
        # One array may be announced anew for each descriptor.
        elif (stored.data_key, stored.uri) not in seen:
            yield stored.data_key, counted, length, size
        seen.add((stored.data_key, stored.uri))


def _part_of(counted: Mapping[str, Any], uid: str) -> Mapping[str, Any] | None:
    """Return what was counted for one StreamResource, None if it was not divided."""
    runs = counted.get("runs")
    part = runs.get(uid) if is_mapping(runs) else None
    if not is_mapping(part) or not isinstance(part.get("first_row"), int):
        return None
    return part


def _written(part: Mapping[str, Any], length: int) -> int:
    """Return the frames of one part: to where it ends, or to where the array does."""
    stop = part.get("stop_row")
    return max(
        0, min(length, stop if isinstance(stop, int) else length) - part["first_row"]
    )


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
