"""What became of every frame of a run, read from the frames' own attributes."""

from __future__ import annotations

from typing import Any

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.external import stored_arrays
from bluesky_beamtime.database.kinds import is_mapping
from bluesky_beamtime.errors import StorageError

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
