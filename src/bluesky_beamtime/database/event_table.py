"""The events of one stream as columns, each sequence number once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.columns import MISSING
from bluesky_beamtime.database.event_values import (
    SEQ_NUM,
    TIME,
    Part,
    Values,
    gather_rows,
    joined,
)
from bluesky_beamtime.database.kinds import is_array
from bluesky_beamtime.database.packed import load_packed

if TYPE_CHECKING:
    from bluesky_beamtime.database.engine import Database

Ints = NDArray[np.int64]


class EventTable:
    """Some fields of the events of a stream, as they are now.

    Parameters
    ----------
    database
        The database.
    stream_uids
        Uids of the stream's descriptors, oldest first.
    parts
        What to read, such as ``("data", "motor")``.

    Attributes
    ----------
    seq_nums : numpy.ndarray
        Sequence numbers, ascending; of an event that was repeated after a pause the
        last counts.
    times : numpy.ndarray
        Time of each, seconds since 1970, NaN where it is no finite number.
    """

    def __init__(
        self, database: Database, stream_uids: Sequence[str], parts: Iterable[Part]
    ) -> None:
        wanted = list(parts)
        tables = [_read(database, uid, wanted) for uid in stream_uids]
        seq_nums = np.asarray(_along(tables, SEQ_NUM), np.int64)
        times = np.asarray(_along(tables, TIME), np.float64)
        self._columns = {part: _along(tables, part) for part in wanted}
        self._order = _last_of_each(seq_nums)
        self.seq_nums: Ints = _taken(seq_nums, self._order)
        self.times: NDArray[np.float64] = _taken(times, self._order)

    def __len__(self) -> int:
        return len(self.seq_nums)

    def has(self, part: Part) -> bool:
        """Say whether any event has this field."""
        values = self._columns[part]
        return isinstance(values, np.ndarray) or any(v is not MISSING for v in values)

    def values(self, part: Part, seq_nums: Ints) -> Values:
        """Return a field of some events, :data:`MISSING` where an event lacks it.

        Parameters
        ----------
        part
            One of those that were read.
        seq_nums
            Ascending sequence numbers, all among those of this object.
        """
        places: Ints | None = self._order
        if len(seq_nums) != len(self.seq_nums):
            chosen = np.searchsorted(self.seq_nums, seq_nums)
            places = chosen if places is None else places[chosen]
        return _taken(self._columns[part], places)

    def times_of(self, seq_nums: Ints) -> NDArray[np.float64]:
        """Return the times of some events."""
        if len(seq_nums) == len(self.seq_nums):
            return self.times
        return self.times[np.searchsorted(self.seq_nums, seq_nums)]


def _read(
    database: Database, stream_uid: str, wanted: list[Part]
) -> dict[Part, Values]:
    """Return fields of one descriptor's events, from their copy where there is one."""
    table: dict[Part, Values] = dict(load_packed(database, stream_uid, wanted))
    rest = [part for part in wanted if part not in table]
    if table and not rest:
        return table
    rows = gather_rows(database, stream_uid, rest) or {}
    if table and len(rows[SEQ_NUM]) == len(table[SEQ_NUM]):
        return table | rows
    if table:
        # An event came in between.
        rows = gather_rows(database, stream_uid, wanted) or {}
    return rows


def _along(tables: list[dict[Part, Values]], part: Part) -> Values:
    """Return a field of all descriptors, one after the other."""
    filled = [table for table in tables if len(table[SEQ_NUM])]
    return joined([table[part] for table in filled])


def _last_of_each(seq_nums: Ints) -> Ints | None:
    """Return where the last event of each number is; None if all are in their order."""
    if bool(np.all(np.diff(seq_nums) > 0)):
        return None
    # unique() finds the first: look from the end to keep the last.
    _, last = np.unique(seq_nums[::-1], return_index=True)
    return (len(seq_nums) - 1 - last).astype(np.int64)


def _taken(values: Any, places: Ints | None) -> Any:
    if places is None:
        return values
    if is_array(values):
        return values[places]
    return [values[place] for place in places.tolist()]
