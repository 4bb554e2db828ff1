"""What the events of a stream hold, field by field, gathered from rows of JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Select, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.columns import MISSING
from bluesky_beamtime.database.decoding import decode, untag

if TYPE_CHECKING:
    from bluesky_beamtime.database.engine import Database

Values = NDArray[Any] | list[Any]
Part = tuple[str, str]
"""``("data" or "timestamps", field)``, or ``("seq_num" or "time", "")``."""

SEQ_NUM: Part = ("seq_num", "")
TIME: Part = ("time", "")

_PAGE = 10_000
_DTYPES: dict[frozenset[type], type[np.generic]] = {
    frozenset({float}): np.float64,
    frozenset({int}): np.int64,
    frozenset({bool}): np.bool_,
}


@dataclass(slots=True)
class Gathered:
    """The values of one field, page by page; numbers of one type as arrays."""

    pages: list[Values] = field(default_factory=list[Values])

    def add(self, values: list[Any]) -> None:
        """Append the values of one page of events."""
        dtype = _DTYPES.get(frozenset(map(type, values)))
        page: Values = values
        if dtype is not None:
            # An integer of more than 64 bits stays what it is.
            with suppress(OverflowError):
                page = np.array(values, dtype)
        self.pages.append(page)

    def values(self) -> Values:
        """Return all values: an array if they are of one type, else a list."""
        return joined(self.pages)


def joined(pages: Sequence[Values]) -> Values:
    """Return pages as one array if all of them are arrays of one dtype, else a list."""
    arrays = [page for page in pages if isinstance(page, np.ndarray)]
    if len(arrays) == len(pages) and len({array.dtype for array in arrays}) == 1:
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    together: list[Any] = []
    for page in pages:
        # tolist() gives the very numbers that the array was made of.
        together += page.tolist() if isinstance(page, np.ndarray) else page
    return together


def gather_rows(
    database: Database,
    stream_uid: str,
    parts: Iterable[Part],
    *,
    page_size: int = _PAGE,
    go_on: Callable[[], bool] = lambda: True,
) -> dict[Part, Values] | None:
    """Return fields of a stream's events in the order in which they were emitted.

    Rows are read page by page and no transaction stays open in between.

    Parameters
    ----------
    database
        The database.
    stream_uid
        Uid of the descriptor.
    parts
        What is wanted; ``seq_num`` and ``time`` (float64, NaN for none) always come.
    page_size
        Events that are read at once.
    go_on
        Asked before each page; if it says no, the result is None.
    """
    by_table: dict[str, list[str]] = {}
    for table, key in parts:
        if (table, key) not in (SEQ_NUM, TIME):
            by_table.setdefault(table, []).append(key)
    events = schema.events
    tables = [events.c[name] for name in by_table]
    query: Select[Any] = (
        select(events.c.ordinal, events.c.seq_num, events.c.time, *tables)
        .where(events.c.stream_uid == stream_uid)
        .order_by(events.c.ordinal)
        .limit(page_size)
    )
    wanted = [(name, key) for name, keys in by_table.items() for key in keys]
    gathered = {part: Gathered() for part in (SEQ_NUM, TIME, *wanted)}
    after = -1
    while go_on():
        with database.reading() as connection:
            rows = connection.execute(query.where(events.c.ordinal > after)).all()
        if rows:
            columns = list(zip(*rows, strict=True))
            gathered[SEQ_NUM].pages.append(np.array(columns[1], np.int64))
            # None becomes NaN.
            gathered[TIME].pages.append(np.array(columns[2], np.float64))
            for (table, keys), texts in zip(by_table.items(), columns[3:], strict=True):
                for key, values in zip(keys, pick(texts, keys), strict=True):
                    gathered[table, key].add(values)
        if len(rows) < page_size:
            return {part: pages.values() for part, pages in gathered.items()}
        after = rows[-1].ordinal
    return None


def pick(texts: Sequence[str], keys: Iterable[str]) -> list[list[Any]]:
    """Return the values of some keys of many JSON objects, :data:`MISSING` for none.

    Parameters
    ----------
    texts
        Objects as :func:`~bluesky_beamtime.database.encode` writes them.
    keys
        Their keys.
    """
    text = f"[{','.join(texts)}]"
    tagged = '"$' in text
    try:
        # Parsed at once, which is faster than one by one.
        rows = orjson.loads(text)
    except ValueError:
        rows, tagged = [decode(each) for each in texts], False
    if tagged and any("$map" in row for row in rows):
        rows, tagged = [decode(each) for each in texts], False
    picked: list[list[Any]] = []
    for key in keys:
        name = f"${key}" if tagged and key.startswith("$") else key
        try:
            values = [row[name] for row in rows]
        except KeyError:
            values = [row.get(name, MISSING) for row in rows]
        if tagged and not {dict, list}.isdisjoint(map(type, values)):
            values = [untag(v) if type(v) in (dict, list) else v for v in values]
        picked.append(values)
    return picked
