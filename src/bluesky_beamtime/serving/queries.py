"""Tiled's queries as conditions on the table of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    and_,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)
from tiled import queries as tq
from tiled.queries import QueryValueError
from tiled.query_registration import QueryTranslationRegistry

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.conditions import Condition as AnyCondition
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.fulltext import contains
from bluesky_beamtime.serving.searching import matches

Condition = ColumnElement[bool]

registry = QueryTranslationRegistry()
"""What is understood beside full text; :func:`conditions_of` asks it."""

RUN_SPEC = "BlueskyRun"

_COLUMNS: Mapping[str, tuple[ColumnElement[Any], tuple[type, ...]]] = {
    # The same values in a column with an index; of other types there are none in it.
    "start.uid": (schema.runs.c.uid, (str,)),
    "start.scan_id": (schema.runs.c.scan_id, (int,)),
    "start.plan_name": (schema.runs.c.plan_name, (str,)),
    "start.time": (schema.runs.c.time_start, (int, float)),
}
# What the metadata of a run consists of.
_TOP = ("start", "stop", "beamtime")
_INT64 = range(-(2**63), 2**63)
_LAST_CHARACTER = "\U0010ffff"


def conditions_of(query: Any) -> Sequence[AnyCondition]:
    """Return the conditions that a query stands for.

    Raises
    ------
    QueryValueError
        The query makes no sense here; the server answers 400 with its text.
    """
    if isinstance(query, tq.FullText):
        # Every word somewhere, in any order.
        return [contains(word) for word in query.text.split()]
    translate: Any = registry
    return [translate(query)]


def understood(cls: type) -> Callable[[Callable[[Any], Condition]], Any]:
    """Register a function as the translation of a kind of query."""

    def register(translate: Callable[[Any], Condition]) -> Any:
        return cast("Any", registry).register(cls, translate)

    return register


# ---------------------------------------------------------------------------- the key


@dataclass(frozen=True)
class Place:
    """Where in the metadata a key leads to.

    Attributes
    ----------
    value, kind
        SQL for the value, and for its type in SQLite's words (NULL: not there).
    """

    document: ColumnElement[Any]
    path: ColumnElement[str]

    @property
    def value(self) -> ColumnElement[Any]:
        """The value."""
        return func.json_extract(self.document, self.path)

    @property
    def kind(self) -> ColumnElement[str]:
        """Its type."""
        return func.json_type(self.document, self.path)


def full_key(key: str) -> str:
    """Return a key with the document it is in: the start, unless it says another."""
    first, _, rest = key.partition(".")
    return key if first in _TOP and rest else f"start.{key}"


def place(key: str) -> Place:
    """Return where a dotted key of a run's metadata leads.

    Raises
    ------
    QueryValueError
        It leads to what the beamtime adds to the documents, or has a quotation mark.
    """
    first, _, rest = full_key(key).partition(".")
    documents: dict[str, ColumnElement[Any]] = {
        "start": schema.runs.c.start,
        "stop": schema.runs.c.stop,
    }
    if first not in documents:
        raise QueryValueError(
            "runs are searched by keys of their documents, such as 'start.plan_name' "
            f"or 'stop.exit_status', not by {key!r}"
        )
    if '"' in rest:
        raise QueryValueError(f"a key with a quotation mark cannot be searched: {key}")
    parts = (f"${part}" if part.startswith("$") else part for part in rest.split("."))
    path = literal("$" + "".join(f'."{part}"' for part in parts))
    return Place(documents[first], path)


def equals(at: Place, value: Any) -> Condition:
    """Return "the value is this": 1 is 1.0, but neither True nor "1"."""
    if value is None:
        return at.kind == "null"
    if isinstance(value, bool):
        return at.kind == ("true" if value else "false")
    if isinstance(value, str):
        return and_(at.value == value, at.kind == "text")
    if isinstance(value, float) and math.isfinite(value):
        return and_(at.value == value, _is_number(at))
    if isinstance(value, int) and value in _INT64:
        return and_(at.value == value, _is_number(at))
    return at.value == func.json(literal(encode(value)))


def _is_number(at: Place) -> Condition:
    return at.kind.in_(["integer", "real"])


def _in_column(key: str, value: Any) -> ColumnElement[Any] | None:
    """Return the column that holds a key's values if it may hold this one."""
    found = _COLUMNS.get(full_key(key))
    if found is None or isinstance(value, bool) or not isinstance(value, found[1]):
        return None
    if isinstance(value, int) and value not in _INT64:
        return None
    return found[0]


def _is(key: str, value: Any) -> Condition:
    column = _in_column(key, value)
    return equals(place(key), value) if column is None else column == value


# ------------------------------------------------------------------------ the queries


@understood(tq.Eq)
def _(query: Any) -> Condition:
    return _is(query.key, query.value)


@understood(tq.NotEq)
def _(query: Any) -> Condition:
    return and_(place(query.key).kind.is_not(None), not_(_is(query.key, query.value)))


@understood(tq.In)
def _(query: Any) -> Condition:
    return _among(query.key, query.value)


@understood(tq.NotIn)
def _(query: Any) -> Condition:
    there = place(query.key).kind.is_not(None)
    return and_(there, not_(_among(query.key, query.value)))


def _among(key: str, values: Sequence[Any]) -> Condition:
    columns = [_in_column(key, value) for value in values]
    if columns and all(column is not None for column in columns):
        return columns[0].in_(values)  # pyright: ignore[reportOptionalMemberAccess]  # all() does not narrow
    return or_(false(), *(_is(key, value) for value in values))


_COMPARISONS: Mapping[str, Callable[[Any, Any], Condition]] = {
    "lt": lambda column, value: column < value,
    "le": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "ge": lambda column, value: column >= value,
}


def _bound(number: float) -> float:
    """Return a number as SQLite takes it, which compares integers exactly."""
    if isinstance(number, int):
        if number in _INT64:
            return number
        try:
            return float(number)
        except OverflowError:
            return math.inf if number > 0 else -math.inf
    if not math.isfinite(number):
        raise QueryValueError(f"nothing can be compared with {number}")
    return number


@understood(tq.Comparison)
def _(query: Any) -> Condition:
    compare = _COMPARISONS[tq.Operator(query.operator).value]
    value = query.value
    column = _in_column(query.key, value)
    if column is not None:
        return compare(column, value)
    at = place(query.key)
    if isinstance(value, str):
        return and_(compare(at.value, value), at.kind == "text")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return and_(compare(at.value, _bound(value)), _is_number(at))
    raise QueryValueError(f"{value!r} is neither a number nor text, nor comparable")


@understood(tq.Contains)
def _(query: Any) -> Condition:
    at = place(query.key)
    each = func.json_each(at.document, at.path).table_valued("value", "type")
    value = query.value
    if value is None or isinstance(value, bool):
        same = each.c.type == {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, str):
        same = and_(each.c.value == value, each.c.type == "text")
    elif isinstance(value, int) and value not in _INT64:
        # None that large is kept as it was.
        same = false()
    elif isinstance(value, (int, float)):
        same = and_(each.c.value == value, each.c.type.in_(["integer", "real"]))
    else:
        raise QueryValueError(f"lists are searched for simple values, not {value!r}")
    # json_each() of what is not there, or no list, would be an error or one row.
    listed = and_(at.kind == "array", exists(select(1).select_from(each).where(same)))
    if isinstance(value, str):
        within = func.instr(at.value, value) > 0
        return or_(listed, and_(at.kind == "text", within))
    return listed


@understood(tq.KeyPresent)
def _(query: Any) -> Condition:
    kind = place(query.key).kind
    return kind.is_not(None) if query.exists else kind.is_(None)


@understood(tq.Regex)
def _(query: Any) -> Condition:
    at = place(query.key)
    return and_(at.kind == "text", matches(at.value, query))


@understood(tq.Like)
def _(query: Any) -> Condition:
    pattern: str = query.pattern
    prefix = pattern.removesuffix("%")
    if full_key(query.key) == "start.uid" and not set("%_") & set(prefix):
        uid = schema.runs.c.uid
        if prefix == pattern:
            return uid == pattern
        return and_(uid >= prefix, uid < prefix + _LAST_CHARACTER)
    at = place(query.key)
    return and_(at.kind == "text", at.value.like(pattern))


@understood(tq.KeysFilter)
def _(query: Any) -> Condition:
    return schema.runs.c.uid.in_(query.keys)


@understood(tq.SpecsQuery)
def _(query: Any) -> Condition:
    included = all(spec == RUN_SPEC for spec in query.include)
    return true() if included and RUN_SPEC not in query.exclude else false()


@understood(tq.StructureFamilyQuery)
def _(query: Any) -> Condition:
    return true() if query.value == "container" else false()


@understood(tq.AccessTagsFilter)
def _(query: Any) -> Condition:
    # Access tags of a run are those that TiledWriter would have taken from it.
    path = '$."tiled_access_tags"'
    each = func.json_each(schema.runs.c.start, path).table_valued("value")
    tags = list(query.tags)
    return exists(select(1).select_from(each).where(each.c.value.in_(tags)))


__all__ = ["AnyCondition", "conditions_of", "equals", "place", "registry"]
