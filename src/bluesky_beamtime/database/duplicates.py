"""Documents that arrive twice are stored once, unless they say different things."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bluesky_beamtime.database import statements
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import ArrayReference, encode
from bluesky_beamtime.database.kinds import is_array
from bluesky_beamtime.errors import DocumentError, StorageError

Load = Callable[[ArrayReference], NDArray[Any]]

# For each INSERT the table, its key, and the columns that say what the document says,
# each with its position in the row.
_SAID: dict[str, tuple[str, str, dict[str, int]]] = {
    statements.INSERT_STREAM: ("streams", "uid", {"descriptor": 5}),
    statements.INSERT_EVENT: (
        "events",
        "uid",
        {
            "data": 4,
            "stream_uid": 1,
            "seq_num": 2,
            "time": 3,
            "timestamps": 5,
            "filled": 6,
            "rest": 7,
        },
    ),
    statements.INSERT_STREAM_RESOURCE: (
        "stream_resources",
        "uid",
        {"run_uid": 1, "document": 6},
    ),
    statements.INSERT_STREAM_DATUM: (
        "stream_datums",
        "uid",
        {
            "stream_resource": 1,
            "stream_uid": 2,
            "indices_start": 3,
            "indices_stop": 4,
            "seq_start": 5,
            "seq_stop": 6,
            "rest": 7,
        },
    ),
    statements.INSERT_RESOURCE: ("resources", "uid", {"run_uid": 1, "document": 6}),
    statements.INSERT_DATUM: (
        "datums",
        "datum_id",
        {"resource": 1, "datum_kwargs": 2, "rest": 3},
    ),
}
_QUERIES = {
    sql: f"SELECT {', '.join(columns)} FROM {table} WHERE {key} = ?"
    for sql, (table, key, columns) in _SAID.items()
}


def check_same(
    cursor: sqlite3.Cursor, sql: str, row: tuple[Any, ...], load: Load
) -> None:
    """Raise unless the row that is there already says what this one says.

    Parameters
    ----------
    cursor
        Inside a transaction.
    sql
        The INSERT that left the row that is there as it was.
    row
        The row that it would have stored.
    load
        Returns an array that an event refers to.

    Raises
    ------
    DocumentError
        Another document has the same uid.
    """
    columns = _SAID[sql][2]
    stored = cursor.execute(_QUERIES[sql], row[:1]).fetchone()
    if stored is None:
        return
    for (name, position), before in zip(columns.items(), stored, strict=True):
        if not _say_the_same(name, before, row[position], load):
            raise DocumentError(
                f"another document with the uid {row[0]!r:.80} is stored already, and "
                f"has another value in {name!r}"
            )


def _say_the_same(name: str, before: Any, now: Any, load: Load) -> bool:
    if before == now:
        return True
    if name == "rest":
        # The order of the keys depends on who sent it: an event that came in a page
        # has lost its own.
        return _sorted(_more(before)) == _sorted(_more(now))
    if name == "data":
        return _same_data(before, now, load)
    if isinstance(before, str) and before.startswith("{"):
        return _sorted(orjson.loads(before)) == _sorted(orjson.loads(now))
    return False


def _sorted(value: Any) -> str:
    """Return a text that the order of keys does not change; True is not 1 there."""
    return json.dumps(value, sort_keys=True)


def _more(rest: str | None) -> Any:
    """Return what a document has beyond the columns of its row."""
    return {} if rest is None else orjson.loads(rest)["values"]


def _same_data(stored: str, given: str, load: Load) -> bool:
    """Compare the data of events; the first has its arrays in the store."""
    before: dict[str, Any] = decode(stored)
    now: dict[str, Any] = decode(given)
    arrays = {key for key, v in before.items() if type(v) is ArrayReference}
    return (
        before.keys() == now.keys()
        and _text(before, arrays) == _text(now, arrays)
        and all(_same_array(before[key], now[key], load) for key in arrays)
    )


def _same_array(reference: ArrayReference, given: Any, load: Load) -> bool:
    try:
        stored = load(reference)
        if type(given) is ArrayReference:
            # Two recorders may each have written it, before either event was stored.
            given = load(given)
    except StorageError:
        # What cannot be read is no reason to let go of what might be the same.
        return False
    if not is_array(given):
        # It went through a format that has only lists.
        return isinstance(given, list) and encode(stored.tolist()) == encode(given)
    return (
        (stored.dtype, stored.shape) == (given.dtype, given.shape)
        # As bytes, so that NaN is equal to itself.
        and np.ascontiguousarray(stored).tobytes() == given.tobytes()
    )


def _text(data: dict[str, Any], leave_out: set[str]) -> str:
    return encode({key: data[key] for key in sorted(data) if key not in leave_out})
