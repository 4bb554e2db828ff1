"""What a search asks for, as SQL in which every value is bound."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import orjson
from sqlalchemy import ColumnElement, and_, func, literal, or_, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.samples import SampleMetadata

Moment = dt.datetime | dt.date | float | int | str
Condition = ColumnElement[bool]

_INT64 = range(-(2**63), 2**63)


def make_conditions(
    *,
    plan_name: str | None = None,
    sample: str | SampleMetadata | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    text: str | None = None,
    tags: str | Iterable[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> list[Condition]:
    """Return what a search asks for; see :meth:`bluesky_beamtime.Beamtime.search`."""
    runs, samples, run_tags = schema.runs, schema.samples, schema.run_tags
    conditions: list[Condition] = []
    if plan_name is not None:
        conditions.append(runs.c.plan_name == plan_name)
    if sample is not None:
        name = sample.name if isinstance(sample, SampleMetadata) else sample
        named = select(samples.c.id).where(samples.c.name == name)
        conditions.append(runs.c.sample_id.in_(named))
    if since is not None:
        conditions.append(runs.c.time_start >= _seconds(since))
    if until is not None:
        conditions.append(_before(until))
    if text is not None:
        conditions.append(_contains(text))
    if tags is not None:
        for tag in [tags] if isinstance(tags, str) else tags:
            tagged = select(run_tags.c.run_uid).where(run_tags.c.tag == tag)
            conditions.append(runs.c.uid.in_(tagged))
    for key, value in (metadata or {}).items():
        conditions.append(_metadata_is(key, value))
    return conditions


# ------------------------------------------------------------------------------- time


def _seconds(moment: Moment) -> float:
    """Return seconds since 1970; times without a zone are local."""
    if isinstance(moment, str):
        moment = _parse(moment)
    if isinstance(moment, dt.datetime):
        return moment.timestamp()
    if isinstance(moment, dt.date):
        return dt.datetime.combine(moment, dt.time()).timestamp()
    return float(moment)


def _parse(text: str) -> dt.datetime | dt.date:
    try:
        return dt.date.fromisoformat(text) if len(text) == 10 else _datetime(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no time: give ISO text such as '2026-11-20' or "
            "'2026-11-20T08:30', a datetime, or seconds since 1970"
        ) from error


def _datetime(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def _before(until: Moment) -> Condition:
    """Return "at or before"; a day is meant with its last second."""
    time = schema.runs.c.time_start
    moment = _parse(until) if isinstance(until, str) else until
    if isinstance(moment, dt.date) and not isinstance(moment, dt.datetime):
        return time < _seconds(moment + dt.timedelta(days=1))
    return time <= _seconds(moment)


# ---------------------------------------------------------------------------- content


def _contains(text: str) -> Condition:
    """Return "the text stands somewhere", in the metadata, the sample or the reason."""
    runs, samples = schema.runs, schema.samples
    # As it stands in JSON: quotes and backslashes are escaped there.
    written = orjson.dumps(text).decode()[1:-1]
    named = select(samples.c.id).where(samples.c.name.contains(text, autoescape=True))
    return or_(
        runs.c.start.contains(written, autoescape=True),
        runs.c.stop.contains(written, autoescape=True),
        runs.c.sample_id.in_(named),
    )


def _metadata_is(key: str, value: Any) -> Condition:
    """Return "the start document says so"; dots lead into nested mappings."""
    parts = key.split(".")
    nested = _value_is(parts, value)
    # A key may contain dots itself.
    return nested if len(parts) == 1 else or_(nested, _value_is([key], value))


def _value_is(parts: Sequence[str], value: Any) -> Condition:
    if any('"' in part for part in parts):
        # SQLite's paths cannot express such a key, and no key of ours has it.
        raise ValueError(f"a key with a quotation mark cannot be searched: {parts}")
    escaped = (f"${part}" if part.startswith("$") else part for part in parts)
    path = literal("$" + "".join(f'."{part}"' for part in escaped))
    start = schema.runs.c.start
    found = func.json_extract(start, path)
    if isinstance(value, np.generic):
        value = cast("np.generic[Any]", value).item()
    if value is None:
        return func.json_type(start, path) == "null"
    if isinstance(value, bool):
        return func.json_type(start, path) == ("true" if value else "false")
    kind: ColumnElement[str] = func.json_type(start, path)
    if isinstance(value, str):
        return and_(found == value, kind == "text")
    if isinstance(value, int) and value not in _INT64:
        return found == func.json(literal(encode(value)))
    if isinstance(value, (int, float)) and math.isfinite(value):
        return and_(found == value, kind.in_(["integer", "real"]))
    # Lists, mappings and tagged values are compared as the JSON that they are.
    return found == func.json(literal(encode(value)))
