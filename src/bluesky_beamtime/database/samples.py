"""Samples: what was in the beam, and what it was before it was changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import orjson
from sqlalchemy import Connection, Row, insert, select, update

from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.kinds import is_mapping, shown
from bluesky_beamtime.database.schema import sample_history, samples
from bluesky_beamtime.errors import DocumentError

_LONGEST_NAME = 200


@dataclass
class SampleMetadata:
    """What is known of a sample; its name identifies it within a beamtime."""

    name: str
    """Name, as people say it."""
    formula: str | None = None
    """Chemical formula."""
    serial: str | None = None
    """Serial number or barcode."""
    tags: list[str] = field(default_factory=list[str])
    """Words to find it by."""
    beamline_pos: Any = None
    """Where it is mounted: a slot, a position, a robot's address."""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    """Everything else."""
    id: int | None = None
    """Number of its row, set when it is stored."""

    @classmethod
    def of(cls, value: SampleMetadata | Mapping[str, Any] | str) -> SampleMetadata:
        """Make one from a name, from a mapping, or from another one.

        Keys of a mapping that are no fields go to :attr:`extra`. A mapping without a
        ``name`` is named after its content.

        Raises
        ------
        DocumentError
            There is nothing that could be a name.
        """
        if isinstance(value, SampleMetadata):
            _check_name(value.name)
            return value
        if isinstance(value, str):
            return cls(name=_check_name(value))
        if not is_mapping(value) or not value:
            raise DocumentError(
                f"a sample is a name, a mapping or a SampleMetadata, not {shown(value)}"
            )
        known = {f.name for f in fields(cls)} - {"id", "extra"}
        given = {key: item for key, item in value.items() if key in known}
        extra: dict[str, Any] = {
            str(k): v for k, v in value.items() if k not in known and k != "extra"
        }
        nested = value.get("extra", {})
        if is_mapping(nested):
            extra |= {str(k): v for k, v in nested.items()}
        elif nested is not None:
            extra["extra"] = nested
        if "name" not in given:
            words = (f"{key}={item}" for key, item in value.items())
            given["name"] = ", ".join(words)[:_LONGEST_NAME]
        tags: Any = given.get("tags") or []
        return cls(
            name=_check_name(str(given["name"])),
            formula=_optional(given.get("formula")),
            serial=_optional(given.get("serial")),
            tags=[tags] if isinstance(tags, str) else [str(tag) for tag in tags],
            beamline_pos=given.get("beamline_pos"),
            extra=extra,
        )


def _check_name(name: str) -> str:
    if not name or not name.strip():
        raise DocumentError("a sample needs a name")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(f"a sample's name is no valid text: {name!r}") from error
    return name


def _optional(value: Any) -> str | None:
    return None if value is None else str(value)


def upsert_sample(
    connection: Connection, sample: SampleMetadata, since: float | None = None
) -> int:
    """Store a sample by its name and return the number of its row.

    What is given replaces what is stored; what is not given stays as it is. What the
    sample was before is kept in ``sample_history``.

    Parameters
    ----------
    connection
        Inside a transaction that writes.
    sample
        The sample; its ``id`` is set.
    since
        From when on it is this, in seconds since 1970, now by default. Before the last
        change, as when old runs are imported: the past alone is changed, and what was
        never said of the sample is added.
    """
    now = time.time() if since is None else since
    given = _given(sample)
    row = connection.execute(
        select(samples).where(samples.c.name == sample.name)
    ).one_or_none()
    if row is None:
        values = {**_NOTHING, **given, "name": sample.name, "time_changed": now}
        connection.execute(insert(samples).values(values))
        row = connection.execute(
            select(samples).where(samples.c.name == sample.name)
        ).one()
        _add_history(connection, row.id, now, _content(row))
        sample.id = int(row.id)
        return sample.id
    sample.id = int(row.id)
    current = _content(row)
    if not _changes(given, current):
        return sample.id
    changed = row.time_changed
    if changed is None:
        # Stored before there was a history: it was always like that.
        _add_history(connection, row.id, 0.0, current)
    elif now < changed:
        before = _known_at(connection, row.id, now)
        past = {**current, **_NOTHING, **(_given(before) if before else {})}
        if _changes(given, past):
            _add_history(connection, row.id, now, {**past, **given})
        given = {key: value for key, value in given.items() if _is_empty(row, key)}
        if not given:
            return sample.id
        now = changed
    values = {**given, "time_changed": now}
    connection.execute(update(samples).where(samples.c.id == row.id).values(values))
    _add_history(connection, row.id, now, {**current, **given})
    return sample.id


_NOTHING: dict[str, Any] = {
    "formula": None,
    "serial": None,
    "tags": "[]",
    "beamline_pos": None,
    "extra": "{}",
}
"""What is stored of a sample of which nothing but the name is known."""


def _given(sample: SampleMetadata) -> dict[str, Any]:
    """Return the columns of which a sample says something."""
    given: dict[str, Any] = {}
    if sample.formula is not None:
        given["formula"] = sample.formula
    if sample.serial is not None:
        given["serial"] = sample.serial
    if sample.tags:
        given["tags"] = encode(sample.tags)
    if sample.beamline_pos is not None:
        given["beamline_pos"] = _position_to_text(sample.beamline_pos)
    if sample.extra:
        given["extra"] = encode(sample.extra)
    return given


def _content(row: Any) -> dict[str, Any]:
    return {key: getattr(row, key) for key in ("name", *_NOTHING)}


def _changes(given: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    return any(content[key] != value for key, value in given.items())


def _is_empty(row: Any, key: str) -> bool:
    return getattr(row, key) == _NOTHING[key]


# ---------------------------------------------------------------------------- history


@dataclass(frozen=True, slots=True)
class SampleChange:
    """What a sample was from some time on."""

    time: float
    """Seconds since 1970; 0 where nobody knows since when."""
    sample: SampleMetadata
    """All that was known of it."""


def _add_history(
    connection: Connection, sample_id: int, since: float, content: Mapping[str, Any]
) -> None:
    sample = _from_content(content, sample_id)
    known = {key: getattr(sample, key) for key in ("name", *_NOTHING)}
    stored = {"sample_id": sample_id, "time": since, "sample": encode(known)}
    connection.execute(insert(sample_history).values(stored))


def sample_changes(connection: Connection, sample_id: int) -> list[SampleChange]:
    """Return what a sample was, the oldest first."""
    query = (
        select(sample_history)
        .where(sample_history.c.sample_id == sample_id)
        .order_by(sample_history.c.time, sample_history.c.id)
    )
    return [
        SampleChange(row.time, SampleMetadata(**decode(row.sample), id=sample_id))
        for row in connection.execute(query)
    ]


def sample_at(
    connection: Connection, sample_id: int, moment: float | None
) -> SampleMetadata | None:
    """Return what a sample was at a time, None if there is none of this number.

    Before the first that is known of it, it is that; without a time, the last.
    """
    known = _known_at(connection, sample_id, moment)
    if known is None:
        changes = sample_changes(connection, sample_id)
        known = changes[0].sample if changes else read_sample(connection, sample_id)
    return known


def _known_at(
    connection: Connection, sample_id: int, moment: float | None
) -> SampleMetadata | None:
    """Return what was known of a sample at a time, None if that was nothing."""
    query = select(sample_history.c.sample).where(
        sample_history.c.sample_id == sample_id
    )
    if moment is not None:
        query = query.where(sample_history.c.time <= moment)
    query = query.order_by(sample_history.c.time.desc(), sample_history.c.id.desc())
    stored = connection.execute(query.limit(1)).scalar()
    return None if stored is None else SampleMetadata(**decode(stored), id=sample_id)


def read_sample(connection: Connection, sample_id: int) -> SampleMetadata | None:
    """Return a stored sample, None if there is none of this number."""
    row = connection.execute(
        select(samples).where(samples.c.id == sample_id)
    ).one_or_none()
    return None if row is None else _from_row(row)


def _from_row(row: Row[Any]) -> SampleMetadata:
    return _from_content(_content(row), row.id)


def _from_content(content: Mapping[str, Any], sample_id: int) -> SampleMetadata:
    return SampleMetadata(
        name=content["name"],
        formula=content["formula"],
        serial=content["serial"],
        tags=decode(content["tags"]),
        beamline_pos=_text_to_position(content["beamline_pos"]),
        extra=decode(content["extra"]),
        id=sample_id,
    )


# Positions are mostly text ("B3"), which is stored as it is; a number or a pair is
# stored as JSON, and so is text that would be taken for JSON.


def _position_to_text(value: Any) -> str:
    if isinstance(value, str) and not _is_json(value):
        return value
    return encode(value)


def _text_to_position(text: str | None) -> Any:
    return decode(text) if text is not None and _is_json(text) else text


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
