"""What a search asks for, as SQL in which every value is bound."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from sqlalchemy import (
    ColumnElement,
    and_,
    func,
    literal,
    literal_column,
    or_,
    select,
)

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.fulltext import (
    NOT_SEARCHED,
    FullText,
    clean,
    contains,
)
from bluesky_beamtime.database.kinds import is_integer
from bluesky_beamtime.database.people import Person, check_orcid, find_orcid
from bluesky_beamtime.database.samples import SampleMetadata

Moment = dt.datetime | dt.date | float | int | str
Condition = ColumnElement[bool] | FullText

_INT64 = range(-(2**63), 2**63)


def make_conditions(
    *,
    plan_name: str | None = None,
    sample: str | SampleMetadata | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    text: str | None = None,
    tags: str | Iterable[str] | None = None,
    starred: bool | None = None,
    proposal: str | int | None = None,
    user: str | Person | None = None,
    exit_status: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> list[Condition]:
    """Return what a search asks for; see :meth:`bluesky_beamtime.Beamtime.search`.

    Raises
    ------
    ValueError, TypeError
        Nothing can be searched like that; the message says what can.
    """
    runs, run_tags = schema.runs, schema.run_tags
    conditions: list[Condition] = []
    if plan_name is not None:
        conditions.append(runs.c.plan_name == _text("plan_name", plan_name))
    if sample is not None:
        name = sample.name if isinstance(sample, SampleMetadata) else sample
        conditions.append(_sample_is(_text("sample", name)))
    if since is not None:
        conditions.append(runs.c.time_start >= _seconds(since))
    if until is not None:
        conditions.append(_before(until))
    if text is not None and _text("text", text):
        conditions.append(contains(text))
    if tags is not None:
        for tag in [tags] if isinstance(tags, str) else tags:
            tagged = select(run_tags.c.run_uid).where(
                run_tags.c.tag == _text("a tag", tag)
            )
            conditions.append(runs.c.uid.in_(tagged))
    if starred is not None:
        conditions.append(runs.c.starred == literal_column("1" if starred else "0"))
    if proposal is not None:
        conditions.append(runs.c.proposal == clean(str(proposal)))
    if user is not None:
        conditions.append(_has_person(user))
    if exit_status is not None:
        conditions.append(runs.c.exit_status == _text("exit_status", exit_status))
    for key, value in (metadata or {}).items():
        conditions.append(_metadata_is(key, value))
    return conditions


def _text(what: str, value: object) -> str:
    if isinstance(value, str):
        return clean(value)
    raise TypeError(f"{what} is searched by text, not by {value!r:.80}")


def _sample_is(name: str) -> Condition:
    samples = schema.samples
    # There is at most one: its runs are then read in order, not collected and sorted.
    number = select(samples.c.id).where(samples.c.name == name).scalar_subquery()
    return schema.runs.c.sample_id == number


def _has_person(user: str | Person) -> Condition:
    people, run_people = schema.people, schema.run_people
    if isinstance(user, Person):
        asked = people.c.name == user.name
        if user.orcid is not None:
            asked = people.c.orcid == check_orcid(user.orcid)
    else:
        name = _text("user", user)
        asked = or_(people.c.name == name, people.c.email == name)
        orcid = find_orcid(name)
        if orcid is not None:
            asked = people.c.orcid == orcid
    found = select(run_people.c.run_uid).where(
        run_people.c.person_id.in_(select(people.c.id).where(asked))
    )
    return schema.runs.c.uid.in_(found)


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


def _before(until: Moment) -> ColumnElement[bool]:
    """Return "at or before"; a day is meant with its last second."""
    time = schema.runs.c.time_start
    moment = _parse(until) if isinstance(until, str) else until
    if isinstance(moment, dt.date) and not isinstance(moment, dt.datetime):
        return time < _seconds(moment + dt.timedelta(days=1))
    return time <= _seconds(moment)


# ---------------------------------------------------------------------------- content


def words_in_metadata(metadata: Mapping[str, Any]) -> list[Condition]:
    """Return what runs with such metadata are found by in the full-text index.

    It holds for every run for which the metadata hold, and for a few others: a million
    documents need not be looked at one by one. Only for tables whose texts were written
    by :mod:`~bluesky_beamtime.database.texts`.
    """
    return [
        contains(clean(value)[:_LONGEST_WORD])
        for key, value in metadata.items()
        if isinstance(value, str) and len(value) >= 3 and key not in NOT_SEARCHED
    ]


_LONGEST_WORD = 40


def _metadata_is(key: str, value: Any) -> ColumnElement[bool]:
    """Return "the start document says so"; dots lead into nested mappings."""
    parts = key.split(".")
    nested = _value_is(parts, value)
    if key == "scan_id" and is_integer(value) and int(value) in _INT64:
        # The column has an index; the document decides.
        return and_(schema.runs.c.scan_id == int(value), nested)
    if key == "uid" and isinstance(value, str):
        return schema.runs.c.uid == clean(value)
    # A key may contain dots itself.
    return nested if len(parts) == 1 else or_(nested, _value_is([key], value))


def _value_is(parts: Sequence[str], value: Any) -> ColumnElement[bool]:
    start, path = schema.runs.c.start, json_path(parts)
    found = func.json_extract(start, path)
    if isinstance(value, np.generic):
        value = cast("np.generic[Any]", value).item()
    if value is None:
        return func.json_type(start, path) == "null"
    if isinstance(value, bool):
        return func.json_type(start, path) == ("true" if value else "false")
    kind: ColumnElement[str] = func.json_type(start, path)
    if isinstance(value, str) and "\0" in value:
        # SQLite's text ends there; its JSON does not.
        return start.op("->")(path) == encode(value)
    if isinstance(value, str) and clean(value) == value:
        return and_(found == value, kind == "text")
    if isinstance(value, int) and value not in _INT64:
        return found == func.json(literal(encode(value)))
    if isinstance(value, (int, float)) and math.isfinite(value):
        return and_(found == value, kind.in_(["integer", "real"]))
    # Lists, mappings and tagged values are compared as the JSON that they are.
    return found == func.json(literal(encode(value)))


def json_path(parts: Sequence[str]) -> ColumnElement[str]:
    """Return SQLite's path to a value of a document that is stored as JSON.

    Raises
    ------
    ValueError
        A key that no path can express.
    """
    if any('"' in part for part in parts):
        # SQLite's paths cannot express such a key, and no key of ours has it.
        raise ValueError(f"a key with a quotation mark cannot be searched: {parts}")
    escaped = (f"${part}" if part.startswith("$") else part for part in parts)
    return literal("$" + "".join(f'."{part}"' for part in escaped))
