"""Documents that arrive twice are stored once, unless they say different things."""

from __future__ import annotations

import sqlite3
from typing import Any

from bluesky_beamtime.database import statements
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import ArrayReference, encode
from bluesky_beamtime.errors import DocumentError

# For each INSERT the table, its key, and the columns that say what the document says,
# each with its position in the row. The others depend on who sent it: a page has no
# order of keys, a relay may have filled something in.
_SAID: dict[str, tuple[str, str, dict[str, int]]] = {
    statements.INSERT_STREAM: (
        "streams",
        "uid",
        {"run_uid": 1, "name": 2, "data_keys": 3},
    ),
    statements.INSERT_EVENT: (
        "events",
        "uid",
        {"data": 4, "stream_uid": 1, "seq_num": 2, "time": 3, "timestamps": 5},
    ),
    statements.INSERT_STREAM_RESOURCE: (
        "stream_resources",
        "uid",
        {"run_uid": 1, "data_key": 2, "mimetype": 3, "parameters": 5},
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
        },
    ),
    statements.INSERT_RESOURCE: (
        "resources",
        "uid",
        {"run_uid": 1, "spec": 2, "resource_path": 4, "resource_kwargs": 5},
    ),
    statements.INSERT_DATUM: (
        "datums",
        "datum_id",
        {"resource": 1, "datum_kwargs": 2},
    ),
}
_QUERIES = {
    sql: f"SELECT {', '.join(columns)} FROM {table} WHERE {key} = ?"
    for sql, (table, key, columns) in _SAID.items()
}


def check_same(cursor: sqlite3.Cursor, sql: str, row: tuple[Any, ...]) -> None:
    """Raise unless the row that is there already says what this one says.

    Parameters
    ----------
    cursor
        Inside a transaction.
    sql
        The INSERT that left the row that is there as it was.
    row
        The row that it would have stored.

    Raises
    ------
    DocumentError
        Another document has the same uid.
    """
    stored = cursor.execute(_QUERIES[sql], row[:1]).fetchone()
    given = tuple(row[position] for position in _SAID[sql][2].values())
    if stored is None or stored == given:
        return
    if (
        sql == statements.INSERT_EVENT
        and stored[1:] == given[1:]
        and _same_but_arrays(stored[0], given[0])
    ):
        return
    raise DocumentError(
        f"another document with the uid {row[0]!r:.80} is stored already, and says "
        "something else"
    )


def _same_but_arrays(stored: str, given: str) -> bool:
    """Compare the data of two events; arrays are in the store, and not looked at."""
    before: dict[str, Any] = decode(stored)
    now: dict[str, Any] = decode(given)
    arrays = {key for key, v in before.items() if type(v) is ArrayReference}
    if not arrays or list(before) != list(now):
        return False
    return _text(before, arrays) == _text(now, arrays)


def _text(data: dict[str, Any], leave_out: set[str]) -> str:
    return encode({key: v for key, v in data.items() if key not in leave_out})
