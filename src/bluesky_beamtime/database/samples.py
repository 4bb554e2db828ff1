"""Samples: what was in the beam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import orjson
from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects.sqlite import insert

from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.kinds import is_mapping
from bluesky_beamtime.database.schema import samples
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
                f"a sample is a name, a mapping or a SampleMetadata, not {value!r:.80}"
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


def upsert_sample(connection: Connection, sample: SampleMetadata) -> int:
    """Store a sample by its name and return the number of its row.

    What is given replaces what is stored; what is not given stays as it is.

    Parameters
    ----------
    connection
        Inside a transaction that writes.
    sample
        The sample; its ``id`` is set.
    """
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
    statement = insert(samples).values(
        **{"name": sample.name, "tags": "[]", "extra": "{}"} | given
    )
    connection.execute(
        # Setting the name to itself makes the row come back in any case.
        statement.on_conflict_do_update(
            index_elements=["name"], set_=given or {"name": sample.name}
        )
    )
    found = connection.execute(
        select(samples.c.id).where(samples.c.name == sample.name)
    ).scalar_one()
    sample.id = int(found)
    return sample.id


def read_sample(connection: Connection, sample_id: int) -> SampleMetadata | None:
    """Return a stored sample, None if there is none of this number."""
    row = connection.execute(
        select(samples).where(samples.c.id == sample_id)
    ).one_or_none()
    return None if row is None else _from_row(row)


def _from_row(row: Row[Any]) -> SampleMetadata:
    return SampleMetadata(
        name=row.name,
        formula=row.formula,
        serial=row.serial,
        tags=decode(row.tags),
        beamline_pos=_text_to_position(row.beamline_pos),
        extra=decode(row.extra),
        id=row.id,
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
