"""Numbers of many events as arrays of bytes: a copy of their rows, quick to read.

The rows of ``events`` are the record. Once a run has stopped, the numbers in them may
be copied to ``event_columns``, one array of bytes for each field whose values are all
of one type. What the copy lacks, or what does not agree with the number of rows any
more, is read from the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.event_values import SEQ_NUM, TIME, Part, gather_rows

if TYPE_CHECKING:
    from bluesky_beamtime.database.engine import Database

FEWEST_EVENTS = 1000
"""Streams with fewer events are as quick to read from their rows."""

# Half of what SQLite takes in one value.
_MOST_BYTES = 500_000_000
_DTYPES = ("<f8", "<i8", "|b1")
# A page is parsed without letting other threads run: a millisecond.
_PAGE = 500


def pack_stream(
    database: Database, stream_uid: str, go_on: Callable[[], bool] = lambda: True
) -> bool:
    """Copy the numbers of a stream's events, one short transaction for each field.

    Parameters
    ----------
    database
        The database, opened for recording.
    stream_uid
        Uid of the descriptor.
    go_on
        Asked every millisecond or so; once it says no, what was not copied stays as it
        is.

    Returns
    -------
    bool
        Whether it went through to the end.

    Raises
    ------
    DatabaseError
        The database cannot be read or written.
    """
    streams = schema.streams
    query = select(streams.c.data_keys).where(streams.c.uid == stream_uid)
    with database.reading() as connection:
        fields = list(decode(connection.execute(query).scalar_one()))
    parts = [(part, name) for part in ("data", "timestamps") for name in fields]
    rows = gather_rows(database, stream_uid, parts, page_size=_PAGE, go_on=go_on)
    if rows is None:
        return False
    seq_nums = rows.pop(SEQ_NUM)
    # Sequence numbers come last: with them the copy counts as made.
    for part, values in (*rows.items(), (SEQ_NUM, seq_nums)):
        if not go_on():
            return False
        if isinstance(values, np.ndarray) and values.nbytes <= _MOST_BYTES:
            _store(database, stream_uid, part, values)
    return True


def _store(
    database: Database, stream_uid: str, part: Part, values: NDArray[Any]
) -> None:
    table = schema.event_columns
    name, key = part
    dtype = values.dtype.newbyteorder("<")
    if not _fits_column(key):
        return
    with database.writing() as connection:
        connection.execute(
            delete(table).where(
                table.c.stream_uid == stream_uid,
                table.c.part == name,
                table.c.field == key,
            )
        )
        connection.execute(
            insert(table).values(
                stream_uid=stream_uid,
                part=name,
                field=key,
                dtype=dtype.str,
                num_events=len(values),
                content=values.astype(dtype, copy=False).tobytes(),
            )
        )


def load_packed(
    database: Database, stream_uid: str, parts: Iterable[Part]
) -> dict[Part, NDArray[Any]]:
    """Return those fields of a stream's events that have been copied.

    Parameters
    ----------
    database
        The database.
    stream_uid
        Uid of the descriptor.
    parts
        What is wanted; ``seq_num`` and ``time`` come with it.

    Returns
    -------
    dict
        Empty if there is no copy, or if events have come since it was made.
    """
    table, events = schema.event_columns, schema.events
    names: dict[str, list[str]] = {"seq_num": [""], "time": [""]}
    for name, key in parts:
        names.setdefault(name, []).append(key)
    made = select(table.c.num_events).where(
        table.c.stream_uid == stream_uid, table.c.part == "seq_num"
    )
    count = select(func.count()).where(events.c.stream_uid == stream_uid)
    with database.reading() as connection:
        number = connection.execute(made).scalar()
        if number is None or number != connection.execute(count).scalar_one():
            return {}
        found = {
            (row.part, row.field): _values(row.content, row.dtype)
            for row in connection.execute(
                select(table).where(
                    table.c.stream_uid == stream_uid,
                    table.c.num_events == number,
                    or_(*(_among(name, keys) for name, keys in names.items())),
                )
            )
        }
    # A field is whole or not there.
    found = {part: values for part, values in found.items() if len(values) == number}
    return found if SEQ_NUM in found and TIME in found else {}


def _among(part: str, keys: list[str]) -> ColumnElement[bool]:
    table = schema.event_columns
    # More names than a statement may have parameters: take them all.
    if len(keys) > 500:
        return table.c.part == part
    known = [key for key in keys if _fits_column(key)]
    return and_(table.c.part == part, table.c.field.in_(known))


def _fits_column(text: str) -> bool:
    """Say whether a database takes a text: a lone surrogate fits none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _values(content: bytes, dtype: str) -> NDArray[Any]:
    """Return an array that may be changed, in the machine's byte order."""
    if dtype not in _DTYPES or len(content) % np.dtype(dtype).itemsize:
        # Damaged, or made by a later version.
        return np.empty(0)
    packed: NDArray[Any] = np.frombuffer(content, dtype)
    return packed.astype(packed.dtype.newbyteorder("="), copy=True)


def unpacked_streams(database: Database) -> list[str]:
    """Return the streams of runs that are over whose numbers are not copied yet.

    Only those with at least :data:`FEWEST_EVENTS` events.
    """
    s = schema
    copied = select(s.event_columns.c.num_events).where(
        s.event_columns.c.stream_uid == s.streams.c.uid,
        s.event_columns.c.part == "seq_num",
    )
    events = (
        select(func.count())
        .where(s.events.c.stream_uid == s.streams.c.uid)
        .correlate(s.streams)
        .scalar_subquery()
    )
    query = (
        select(s.streams.c.uid)
        .join(s.runs, s.runs.c.uid == s.streams.c.run_uid)
        .where(
            s.runs.c.exit_status.is_not(None),
            events >= FEWEST_EVENTS,
            func.coalesce(copied.scalar_subquery(), -1) != events,
        )
        .order_by(s.runs.c.id, s.streams.c.ordinal)
    )
    with database.reading() as connection:
        return list(connection.execute(query).scalars())


def streams_to_pack(database: Database, run_uid: str) -> list[str]:
    """Return the streams of a run that have enough events to be copied."""
    s = schema
    query = (
        select(s.streams.c.uid)
        .join(s.events, s.events.c.stream_uid == s.streams.c.uid)
        .where(s.streams.c.run_uid == run_uid)
        .group_by(s.streams.c.uid)
        .having(func.count() >= FEWEST_EVENTS)
    )
    with database.reading() as connection:
        return list(connection.execute(query).scalars())
