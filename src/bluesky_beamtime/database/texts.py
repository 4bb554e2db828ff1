"""The text that a run is found by, kept in the table ``run_texts``.

It has a line for each word or number of the start document, of the sample as it was
when the run began, and of what people added later: tags, notes, names. The reason of
the end stands there too. Keys do not, nor uid and time, of which any few digits would
be found everywhere.
"""

from __future__ import annotations

import datetime as dt
import enum
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
from sqlalchemy import Connection, select
from sqlalchemy.dialects import sqlite

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.fulltext import NOT_SEARCHED, clean
from bluesky_beamtime.database.kinds import is_array, is_mapping
from bluesky_beamtime.database.labels import read_tags
from bluesky_beamtime.database.notes import read_notes
from bluesky_beamtime.database.people import people_of_run
from bluesky_beamtime.database.samples import SampleMetadata, sample_at

_runs, _texts = schema.runs, schema.run_texts

_MOST_NUMBERS = 200
"""Numbers of a start document; a list of ten thousand positions finds nothing."""
_DEEPEST = 50


def store_text(
    connection: Connection, run_uid: str, start: Mapping[str, Any] | None = None
) -> None:
    """Write the text of a run, or write it anew after something was added.

    Parameters
    ----------
    connection
        Inside the transaction that changes what the run is found by.
    run_uid
        Uid of a run that is there.
    start
        The start document, where it is at hand.
    """
    columns = (_runs.c.id, _runs.c.start, _runs.c.stop, _runs.c.sample_id)
    query = select(*columns, _runs.c.time_start, _runs.c.proposal)
    row = connection.execute(query.where(_runs.c.uid == run_uid)).one_or_none()
    if row is None:
        return
    lines = _lines_of(decode(row.start) if start is None else start)
    if row.proposal is not None:
        lines[row.proposal] = None
    if row.sample_id is not None:
        sample = sample_at(connection, row.sample_id, row.time_start)
        lines |= dict.fromkeys(_words_of(sample))
    if row.stop is not None:
        reason = decode(row.stop).get("reason")
        lines |= dict.fromkeys(_words(reason, 0))
    for person in people_of_run(connection, run_uid):
        known = (person.name, person.email, person.orcid, person.affiliation)
        lines |= dict.fromkeys(filter(None, known))
    lines |= dict.fromkeys(read_tags(connection, run_uid))
    lines |= {str(note): None for note in read_notes(connection, run_uid)}
    text = clean("\n".join(lines))
    statement = sqlite.insert(_texts).values(run_id=row.id, text=text)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["run_id"], set_={"text": statement.excluded.text}
        )
    )


def _lines_of(start: Mapping[str, Any]) -> dict[str, None]:
    lines: dict[str, None] = {}
    numbers = 0
    for key, value in start.items():
        if key in NOT_SEARCHED:
            continue
        for word in _words(value, 0):
            if isinstance(word, _Number):
                numbers += 1
                if numbers > _MOST_NUMBERS:
                    continue
            lines[word] = None
    return lines


def _words_of(sample: SampleMetadata | None) -> Iterator[str]:
    if sample is not None:
        known = (sample.name, sample.formula, sample.serial, sample.tags)
        yield from _words([*known, sample.beamline_pos, sample.extra], 0)


class _Number(str):
    """Text that was a number."""

    __slots__ = ()


def _words(value: Any, depth: int) -> Iterator[str]:
    """Yield the words and numbers in a value; a run must not fail for strange ones."""
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, (bool, type(None), bytes)):
        return
    elif isinstance(value, (int, float)):
        yield _Number(_number(value))
    elif is_array(value):
        if value.size <= _MOST_NUMBERS and depth < _DEEPEST:
            yield from _words(value.tolist(), depth + 1)
    elif isinstance(value, np.generic):
        yield from _words(cast("np.generic[Any]", value).item(), depth + 1)
    elif depth < _DEEPEST and is_mapping(value):
        for item in value.values():
            yield from _words(item, depth + 1)
    elif depth < _DEEPEST and isinstance(value, (list, tuple, set, frozenset)):
        for item in cast("list[Any]", value):
            yield from _words(item, depth + 1)
    elif isinstance(value, (dt.date, dt.time, dt.timedelta, pathlib.PurePath)):
        yield str(value)


def _number(value: float) -> str:
    # Python refuses to print integers of more than 4300 digits.
    if isinstance(value, int) and value.bit_length() > 10_000:
        return ""
    return str(value)
