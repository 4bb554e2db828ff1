"""Full text: what a run can be found by, and finding it in the index of SQLite.

The index knows which runs contain any three characters in a row, upper or lower case,
and reads them from the newest to the oldest: neither a rare nor a frequent word takes
long, however many runs there are. A second database would have functions of its own
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    column,
    func,
    literal_column,
    or_,
    select,
    table,
)

from bluesky_beamtime.database import schema

NOT_SEARCHED = frozenset({"uid", "time"})
"""Keys of a start document whose values are in no text."""

_SHORTEST = 3
_runs, _texts = schema.runs, schema.run_texts
_index = table("run_texts_fts", column("rowid"))


@dataclass(frozen=True, slots=True)
class FullText:
    """The condition that a text of at least three characters stands somewhere."""

    text: str
    """The text, as :func:`clean` gives it."""


def clean(text: str) -> str:
    """Return text that every database takes: no lone surrogates, no NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def contains(text: str) -> ColumnElement[bool] | FullText:
    """Return the condition that a text stands somewhere in what is said of a run."""
    text = clean(text)
    if len(text) >= _SHORTEST:
        return FullText(text)
    # LIKE ignores the case of ASCII letters alone.
    spellings = dict.fromkeys((text, text.lower(), text.upper(), text.swapcase()))
    said = or_(*(_texts.c.text.contains(each, autoescape=True) for each in spellings))
    return _runs.c.id.in_(select(_texts.c.run_id).where(said))


Conditions = Sequence[ColumnElement[bool] | FullText]


def newest_first(
    conditions: Conditions,
    *,
    order: Sequence[ColumnElement[Any]] = (),
    below: int | None = None,
) -> Any:
    """Return a query for the numbers of the runs that fulfil conditions, in order.

    Parameters
    ----------
    conditions
        All of them must hold.
    order
        What to sort by before the age.
    below
        Only runs older than this row.
    """
    number = number_among(conditions)
    query = matching(conditions, number)
    if below is not None:
        query = query.where(number < below)
    return query.order_by(*order, number.desc())


def number_among(conditions: Conditions) -> ColumnElement[int]:
    """Return the column with the numbers of the runs that fulfil conditions.

    The index hands out its runs in order of their numbers: SQLite must be asked for
    that order, and not be led to collect them all first.
    """
    return _index.c.rowid if _texts_in(conditions) else _runs.c.id


def matching(conditions: Conditions, *columns: Any) -> Any:
    """Return a query for columns of the runs that fulfil conditions, in any order."""
    plain = [each for each in conditions if not isinstance(each, FullText)]
    texts = _texts_in(conditions)
    query = select(*columns).where(*plain)
    if not texts:
        return query.select_from(_runs)
    both = _index.join(_runs, _runs.c.id == _index.c.rowid)
    return query.select_from(both).where(_match(texts))


def count_matching(conditions: Conditions) -> Any:
    """Return a query for how many runs fulfil conditions."""
    texts = _texts_in(conditions)
    if texts and len(texts) == len(conditions):
        # The index alone knows.
        return select(func.count()).select_from(_index).where(_match(texts))
    return matching(conditions, func.count())


def _texts_in(conditions: Conditions) -> list[str]:
    return [each.text for each in conditions if isinstance(each, FullText)]


def _match(texts: Sequence[str]) -> ColumnElement[bool]:
    phrases = (text.replace('"', '""') for text in texts)
    match = literal_column("run_texts_fts").op("MATCH", is_comparison=True)
    return match(" ".join(f'"{phrase}"' for phrase in phrases))
