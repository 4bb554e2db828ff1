"""What runs can be sorted by, and which values a key has in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, desc, func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.conditions import json_path
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.fulltext import Conditions, matching
from bluesky_beamtime.database.kinds import is_list, is_mapping

_runs, _samples = schema.runs, schema.samples
_COLUMNS: dict[str, ColumnElement[Any]] = {
    "time": _runs.c.time_start,
    "scan_id": _runs.c.scan_id,
    "plan_name": _runs.c.plan_name,
    "exit_status": _runs.c.exit_status,
    "num_events": _runs.c.num_events,
    "duration": _runs.c.time_stop - _runs.c.time_start,
    "proposal": _runs.c.proposal,
    "uid": _runs.c.uid,
    "sample": select(_samples.c.name)
    .where(_samples.c.id == _runs.c.sample_id)
    .scalar_subquery(),
}


def ordered_by(keys: Sequence[str]) -> tuple[ColumnElement[Any], ...]:
    """Return what to sort by; see :meth:`Runs.sorted_by`.

    Raises
    ------
    ValueError
        No key, or one that cannot be searched.
    """
    if not keys or not all(key.removeprefix("-") for key in keys):
        raise ValueError(
            f"give a key to sort by, such as {', '.join(_COLUMNS)}, or one of the "
            "start document; with a '-' before it, the largest comes first"
        )
    order: list[ColumnElement[Any]] = []
    for key in keys:
        expression = _expression(key.removeprefix("-"))
        ordered = desc(expression) if key.startswith("-") else expression.asc()
        order.append(ordered.nulls_last())
    return tuple(order)


def _expression(key: str) -> ColumnElement[Any]:
    column = _COLUMNS.get(key)
    if column is not None:
        return column
    start = _runs.c.start
    nested = func.json_extract(start, json_path(key.split(".")))
    if "." not in key:
        return nested
    # A key may contain dots itself.
    return func.coalesce(nested, func.json_extract(start, json_path([key])))


def distinct_values(
    connection: Connection, key: str, conditions: Conditions
) -> dict[Any, int]:
    """Return how many runs have each value of a key; see :meth:`Runs.distinct`.

    Raises
    ------
    ValueError
        A key that cannot be searched.
    """
    if key == "tags":
        table = schema.run_tags
        query = _grouped(conditions, table.c.tag).join(
            table, table.c.run_uid == _runs.c.uid
        )
    elif key == "user":
        link, people = schema.run_people, schema.people
        query = (
            _grouped(conditions, people.c.name)
            .join(link, link.c.run_uid == _runs.c.uid)
            .join(people, people.c.id == link.c.person_id)
        )
    elif key in _COLUMNS:
        query = _grouped(conditions, _COLUMNS[key])
    else:
        # As JSON, so that true is not 1 and text no list.
        value = _json(json_path(key.split(".")))
        if "." in key:
            value = func.coalesce(value, _json(json_path([key])))
        rows: Any = connection.execute(_grouped(conditions, value)).all()
        return _sorted((_hashable(decode(r[0])), r[1]) for r in rows if r[0])
    rows = connection.execute(query).all()
    return _sorted((row[0], row[1]) for row in rows if row[0] is not None)


def _grouped(conditions: Conditions, value: ColumnElement[Any]) -> Any:
    return matching(conditions, value, func.count()).group_by(value)


def _json(path: ColumnElement[str]) -> ColumnElement[str]:
    return _runs.c.start.op("->")(path)


def _sorted(counts: Any) -> dict[Any, int]:
    return dict(sorted(counts, key=lambda pair: (-pair[1], str(pair[0]))))


def _hashable(value: Any) -> Any:
    if is_list(value):
        return tuple(_hashable(item) for item in value)
    if is_mapping(value):
        return encode(cast("Any", value))
    return value
