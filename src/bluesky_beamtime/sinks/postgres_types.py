"""Which type a column of a PostgreSQL table has, and how values become it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from bluesky_beamtime.sinks.layout import FLOATS, INTEGERS, TIMES, ZERO, is_text
from bluesky_beamtime.sinks.texts import as_utf8

BIGINT = "bigint"
BOOLEAN = "boolean"
DOUBLE = "double precision"
NUMERIC = "numeric"
TEXT = "text"
TIME = "timestamp with time zone"
_EXACT = 2**53
_WHOLE = ("bigint", "integer", "smallint")
_FLOATS = ("double precision", "real")
_TEXTS = ("text", "character varying", "character")
_NATURAL: dict[str, set[Any]] = {
    BIGINT: {int},
    BOOLEAN: {bool},
    DOUBLE: {float},
    TEXT: {str},
    TIME: {datetime},
}
_INTEGERS_OR_NONE = frozenset((int, type(None)))
_FLOATS_OR_NONE = frozenset((float, type(None)))
_SEEN_AT_ONCE = frozenset((BIGINT, BOOLEAN, DOUBLE, TEXT, TIME))
_BITS = {"bigint": 63, "integer": 31, "smallint": 15}


def column_type(name: str, values: Iterable[Any]) -> str:
    """Return the type of a new column: by its name, else by its values."""
    if name in TIMES:
        return TIME
    if name in INTEGERS:
        return BIGINT
    if name in FLOATS:
        return DOUBLE
    if is_text(name):
        return TEXT
    # A column of nothing yet: whole numbers widen to anything.
    return needed(values) or BOOLEAN


def needed(values: Iterable[Any]) -> str | None:
    """Return the narrowest type that holds values exactly; None for only None."""
    given = [value for value in values if value is not None]
    kinds: set[Any] = set(map(type, given))
    whole = [value for value in given if type(value) is int]
    most = max((value if value >= 0 else -value - 1 for value in whole), default=0)
    if not kinds:
        return None
    if kinds == {bool}:
        return BOOLEAN
    if kinds <= {bool, int}:
        return BIGINT if most < 2**63 else NUMERIC
    if kinds <= {bool, int, float}:
        return DOUBLE if most <= _EXACT else NUMERIC
    return TIME if kinds == {datetime} else TEXT


def widened(there: str, wanted: str) -> str:
    """Return the type that holds what a column has and what comes."""
    pair = {there, wanted}
    if pair <= {BOOLEAN, *_WHOLE}:
        return BIGINT
    if pair <= {BOOLEAN, *_FLOATS}:
        return DOUBLE
    if pair <= {BOOLEAN, NUMERIC, *_WHOLE, *_FLOATS}:
        return NUMERIC
    return TEXT


def conversion(quoted: str, there: str, wanted: str) -> str:
    """Return the SQL expression that makes a column's values of another type."""
    if there == BOOLEAN:
        # As Python says it, who writes what comes after.
        is_text = wanted == TEXT
        return f"initcap({quoted}::text)" if is_text else f"{quoted}::integer::{wanted}"
    if there == TIME:
        moment = f"to_char({quoted} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
        return f"replace({moment}, '.000000', '') || '+00:00'"
    # Directly it would round to 15 digits.
    return f"{quoted}::text::{wanted}"


def fits(kind: str, values: Iterable[Any]) -> bool:
    """Return whether values can be stored in a column of a type, exactly."""
    wanted = needed(values)
    if wanted is None or kind in _TEXTS:
        return True
    if kind in _WHOLE:
        limit = 2 ** _BITS[kind]
        return wanted in (BOOLEAN, BIGINT) and all(
            value is None or -limit <= value < limit for value in values
        )
    if kind in _FLOATS:
        return wanted in (BOOLEAN, DOUBLE) or (
            wanted == BIGINT
            and all(value is None or -_EXACT <= value <= _EXACT for value in values)
        )
    if kind == NUMERIC:
        return wanted in (BOOLEAN, BIGINT, DOUBLE, NUMERIC)
    if kind in (BOOLEAN, TIME):
        return wanted == kind
    # Another type, of a table that somebody made: the server says.
    return True


def is_natural(kind: str, values: Sequence[Any]) -> bool:
    """Return whether values are what the driver takes for a type, at a glance."""
    kinds: set[Any] = set(map(type, values)) - {type(None)}
    if not kinds <= _NATURAL.get(kind, set()):
        return False
    if kind == BIGINT and kinds:
        numbers = [value for value in values if value is not None]
        return min(numbers) >= -(2**63) and max(numbers) < 2**63
    return True


def is_left_to_driver(kind: str, values: Sequence[Any]) -> bool:
    """Return whether the driver refuses those of the values that do not fit a type.

    It takes whole numbers for floats, however large, and makes them round; and floats
    for whole numbers, without what stands behind the point.
    """
    if kind == BIGINT:
        return _INTEGERS_OR_NONE.issuperset(map(type, values))
    return kind in (BOOLEAN, TEXT, TIME)


def are_left_to_driver(kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> bool:
    """Return whether :func:`is_left_to_driver` holds, or every value is natural.

    For all columns of one type at once: this is what most batches cost.
    """
    if not _SEEN_AT_ONCE.issuperset(kinds):
        return False
    for kind, types in ((DOUBLE, _FLOATS_OR_NONE), (BIGINT, _INTEGERS_OR_NONE)):
        places = [place for place, each in enumerate(kinds) if each == kind]
        if places:
            first, last = places[0], places[-1]
            if last - first < len(places):
                take = itemgetter(slice(first, last + 1))  # twice as fast
            else:
                take = itemgetter(*places)
            values = map(take, rows)
            if not types.issuperset(map(type, chain.from_iterable(values))):
                return False
    return True


def converter(kind: str) -> Callable[[Any], Any] | None:
    """Return what makes a value ready for a column; None where nothing is to do."""
    if kind in _TEXTS:
        return _as_text
    if kind in _WHOLE:
        return int
    if kind in _FLOATS:
        return float
    if kind == NUMERIC:
        return _as_decimal
    return None


def as_server_text(value: Any) -> Any:
    """Return a value as it is, but text as a server takes it, which is without zeros.

    It becomes what names of columns have in its place.
    """
    if isinstance(value, str):
        return as_utf8(value).replace("\0", ZERO)
    return value


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _as_decimal(value: Any) -> Decimal:
    return Decimal(int(value)) if isinstance(value, int) else Decimal(repr(value))


def sample_type(dtype: np.dtype[Any]) -> type | None:
    """Return the Python type of all samples; None if each must be looked at."""
    if (dtype.kind == "u" and dtype.itemsize == 8) or dtype.itemsize > 8:
        return None
    kinds: dict[str, type] = {"f": float, "i": int, "u": int, "b": bool}
    return kinds.get(dtype.kind)
