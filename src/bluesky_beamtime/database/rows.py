"""Documents as rows of the tables; pure functions that touch no disk."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from bluesky_beamtime.database import resource_places
from bluesky_beamtime.database.documents import (
    DATUM_KEYS,
    EVENT_KEYS,
    STREAM_DATUM_KEYS,
    pack_rest,
)
from bluesky_beamtime.database.encoding import encode, encode_plain
from bluesky_beamtime.database.kinds import is_integer, is_mapping, is_number, shown
from bluesky_beamtime.database.uris import to_stored
from bluesky_beamtime.errors import DocumentError

Document = Mapping[str, Any]
Row = tuple[Any, ...]

_INT64 = range(-(2**63), 2**63)
# What has a column of its own is not repeated as the user's metadata.
_NOT_METADATA = {"uid", "time", "plan_name"}


def text_of(doc: Document, key: str) -> str:
    """Return a text that must be there.

    Raises
    ------
    DocumentError
        It is missing, empty, no text, or text that no database takes.
    """
    value = doc.get(key)
    if isinstance(value, str) and value:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DocumentError(f"{key!r} is no valid text: {shown(value)}") from error
        return str.__str__(value)
    raise DocumentError(f"{key!r} must be text, got {shown(value)}")


def number_of(doc: Document, key: str) -> float | None:
    """Return a time for its column; None for NaN and infinities.

    Raises
    ------
    DocumentError
        It is missing or no number.
    """
    value = doc.get(key)
    if is_number(value):
        number = float(value)
        return number if math.isfinite(number) else None
    raise DocumentError(f"{key!r} must be a number, got {shown(value)}")


def integer_of(doc: Document, key: str) -> int:
    """Return an integer that must be there and fit a column.

    Raises
    ------
    DocumentError
        It does not.
    """
    value = doc.get(key)
    if is_integer(value):
        number = operator.index(value)
        if number in _INT64:
            return number
    raise DocumentError(f"{key!r} must be an integer, got {shown(value)}")


def mapping_of(doc: Document, key: str) -> Mapping[str, Any]:
    """Return a mapping that must be there.

    Raises
    ------
    DocumentError
        It is missing or something else.
    """
    value = doc.get(key)
    if is_mapping(value):
        return value
    raise DocumentError(f"{key!r} must be a mapping, got {shown(value)}")


# ------------------------------------------------------------------------- documents


def run_row(doc: Document, sample_id: int | None, writer: str | None, lost: list[str]):
    """Return the row of a RunStart."""
    plan = doc.get("plan_name")
    scan_id = doc.get("scan_id")
    metadata = {key: doc[key] for key in doc if key not in _NOT_METADATA}
    return (
        text_of(doc, "uid"),
        sample_id,
        column_int(scan_id),
        None if plan is None else column_text(str(plan)),
        number_of(doc, "time"),
        encode(metadata),
        encode(doc, lost),
        writer,
    )


def column_int(value: Any) -> int | None:
    """Return an integer for a column that helps to search, None if it is none."""
    if is_integer(value):
        number = operator.index(value)
        return number if number in _INT64 else None
    return None


def column_text(value: str) -> str:
    """Return text for a column that helps to search; lone surrogates are replaced."""
    return value.encode("utf-8", "replace").decode()


def stream_row(doc: Document, ordinal: int, lost: list[str]) -> Row:
    """Return the row of an EventDescriptor."""
    return (
        text_of(doc, "uid"),
        text_of(doc, "run_start"),
        stream_name(doc),
        encode(mapping_of(doc, "data_keys")),
        number_of(doc, "time"),
        encode(doc, lost),
        ordinal,
    )


def stream_name(doc: Document) -> str:
    """Return the name of a stream; descriptors of before 2017 have none."""
    return text_of(doc, "name") if "name" in doc else "primary"


def event_row(doc: Document, data: str, ordinal: int) -> Row:
    """Return the row of an Event whose data are encoded already."""
    timestamps = doc["timestamps"]
    filled = doc.get("filled", {})
    if not (is_mapping(timestamps) and is_mapping(filled)):
        raise DocumentError("'timestamps' and 'filled' of an event must be mappings")
    time, seq_num = doc["time"], doc["seq_num"]
    inexact: dict[str, Any] = {}
    if type(time) is not float or not time or not math.isfinite(time):
        time = number_of(doc, "time")
        # A column of SQLite has no sign of zero.
        if (
            time is None
            or not isinstance(doc["time"], float)
            or (time == 0.0 and math.copysign(1.0, time) < 0)
        ):
            inexact["time"] = doc["time"]
    if type(seq_num) is not int:
        seq_num = integer_of(doc, "seq_num")
    usual = not inexact and tuple(doc) == EVENT_KEYS
    return (
        text_of(doc, "uid"),
        doc["descriptor"],
        seq_num,
        time,
        data,
        encode_plain(timestamps) or encode(timestamps),
        encode(filled) if filled else "{}",
        None if usual else pack_rest(doc, EVENT_KEYS, inexact),
        ordinal,
    )


def stream_resource_row(doc: Document, run_uid: str, ordinal: int, folder: Path) -> Row:
    """Return the row of a StreamResource; ``folder`` is that of the database."""
    uri = text_of(doc, "uri")
    return (
        text_of(doc, "uid"),
        run_uid,
        text_of(doc, "data_key"),
        text_of(doc, "mimetype"),
        to_stored(uri, folder),
        encode(mapping_of(doc, "parameters")),
        encode(doc),
        ordinal,
    )


def stream_datum_row(doc: Document, ordinal: int) -> Row:
    """Return the row of a StreamDatum."""
    indices, seq_nums = mapping_of(doc, "indices"), mapping_of(doc, "seq_nums")
    inexact = {
        key: value
        for key, value in (("seq_nums", seq_nums), ("indices", indices))
        if list(value) != ["start", "stop"]
    }
    usual = not inexact and tuple(doc) == STREAM_DATUM_KEYS
    return (
        text_of(doc, "uid"),
        text_of(doc, "stream_resource"),
        text_of(doc, "descriptor"),
        integer_of(indices, "start"),
        integer_of(indices, "stop"),
        integer_of(seq_nums, "start"),
        integer_of(seq_nums, "stop"),
        None if usual else pack_rest(doc, STREAM_DATUM_KEYS, inexact),
        ordinal,
    )


def resource_row(doc: Document, run_uid: str, ordinal: int, folder: Path) -> Row:
    """Return the row of a legacy Resource; ``folder`` is that of the database."""
    place = resource_places.to_stored(resource_places.place_of(doc), folder)
    return (
        text_of(doc, "uid"),
        run_uid,
        _optional_text(doc, "spec"),
        *map(_column_or_none, place),
        encode(doc["resource_kwargs"]) if "resource_kwargs" in doc else None,
        encode(doc),
        ordinal,
    )


def _optional_text(doc: Document, key: str) -> str | None:
    return _column_or_none(doc.get(key))


def _column_or_none(value: Any) -> str | None:
    return column_text(value) if isinstance(value, str) else None


def datum_row(doc: Document, ordinal: int) -> Row:
    """Return the row of a legacy Datum."""
    usual = tuple(doc) == DATUM_KEYS
    return (
        text_of(doc, "datum_id"),
        text_of(doc, "resource"),
        encode(mapping_of(doc, "datum_kwargs")),
        None if usual else pack_rest(doc, DATUM_KEYS, {}),
        ordinal,
    )


def stop_values(doc: Document, counted: int, ordinal: int, lost: list[str]):
    """Return ``time_stop, exit_status, num_events, stop, stop_ordinal`` of a run.

    Parameters
    ----------
    counted
        Events that were stored; a run that streams its data has none of its own, and
        its stop document says how many there would have been.
    """
    declared = doc.get("num_events")
    number = counted
    if is_mapping(declared):
        counts = [column_int(value) or 0 for value in declared.values()]
        number = max(counted, sum(counts))
    return (
        number_of(doc, "time"),
        text_of(doc, "exit_status"),
        number,
        encode(doc, lost),
        ordinal,
    )


def tags_of(start: Document) -> list[str]:
    """Return the tags that a start document gives its run."""
    tags: Any = start.get("tags")
    if isinstance(tags, str):
        tags = [tags]
    if not isinstance(tags, (list, tuple, set, frozenset)):
        return []
    tags = cast("Iterable[Any]", tags)
    unique = dict.fromkeys(column_text(tag) for tag in tags if isinstance(tag, str))
    return list(unique)
