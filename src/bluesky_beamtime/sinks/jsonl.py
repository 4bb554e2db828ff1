"""Rows as lines of JSON."""

from __future__ import annotations

import json
import math
import operator
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

import orjson

from bluesky_beamtime.errors import SinkSchemaError
from bluesky_beamtime.sinks.append_file import AppendFile
from bluesky_beamtime.sinks.text_table import TextTableSink
from bluesky_beamtime.sinks.texts import as_text, as_utf8, is_one_text

_PLAIN = {bool, int, str, type(None)}
_ZONE = operator.attrgetter("tzinfo")


class JsonlSink(TextTableSink):
    """Writes readings as JSON objects, one a line.

    Every line is valid JSON in UTF-8: NaN and the infinities are tagged,
    ``{"$float": "nan"}``, ``"inf"``, ``"-inf"``, as everywhere in a beamtime. Integers
    have all their digits. In text, half of a surrogate pair becomes its escape as text,
    which every reader takes. The objects have the columns of the table as keys, null
    where a row has no value; those written before a column came do without it. Each
    call of :meth:`write_many` is one write to the file: when it returns, its lines
    survive ``kill -9``, and a line that a killed process left half-written is cut off
    when the file is opened again with ``append=True``. After :meth:`flush` or
    :meth:`close` they survive a power cut.

    Parameters
    ----------
    path
        The file; its folder is made. One that has something in it is refused, unless
        ``append`` or ``overwrite`` is set.
    accept_blocks
        Take blocks too, as one line per channel and sample.
    schema
        What a row with a new column does: ``"evolve"`` adds it, ``"drop"`` leaves it
        out with one warning, ``"raise"`` refuses the batch.
    append
        Go on after what is in the file.
    overwrite
        Begin anew where a file is.
    """

    kind = "jsonl"
    _text = False

    def _read_columns(self, file: BinaryIO) -> list[str] | None:
        names: dict[str, None] = {}
        for line in file:
            row = _object(line)
            if row is None:
                if not line.endswith(b"\n"):
                    break
                raise SinkSchemaError(
                    f"{self.path} is no file of JSON objects, one a line; "
                    "overwrite=True begins anew"
                )
            names.update(dict.fromkeys(row))
        return list(names) or None

    def _whole(self, file: BinaryIO) -> int:
        # A line end is in no JSON text, and a torn object is none.
        good = 0
        for line in file:
            if line.endswith(b"\n") or _object(line) is not None:
                good += len(line)
        return good

    def _format(self, rows: list[tuple[Any, ...]]) -> bytes | bytearray:
        names = self._columns.names or []
        columns = list(zip(*rows, strict=True))
        ready = list(map(_ready, columns))
        same = all(map(operator.is_, ready, columns))
        # One mapping for all: it is text before the next row comes.
        mapping: dict[str, Any] = dict.fromkeys(names)
        lines = bytearray()
        for row in rows if same else zip(*ready, strict=True):
            mapping.update(zip(names, row, strict=True))
            try:
                lines += orjson.dumps(mapping, option=orjson.OPT_APPEND_NEWLINE)
            except TypeError:
                lines += _exact(mapping)
        return lines

    def _widen(self, new: list[str], file: AppendFile) -> AppendFile:
        # Each line says for itself what it has.
        return file


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", row) if isinstance(row, dict) else None


def _ready(column: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a column with values that `orjson` writes as they are."""
    if is_one_text(column):
        return column
    try:
        # Neither NaN nor an infinity leaves a sum again.
        if math.isfinite(sum(column)):
            return column
    except (TypeError, OverflowError):
        pass
    kinds = set(map(type, column))
    if kinds <= _PLAIN or (kinds == {datetime} and set(map(_ZONE, column)) == {UTC}):
        return column
    return tuple(map(_ready_value, column))


def _ready_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(float(value))}
    return as_text(value)


def _exact(mapping: dict[str, Any]) -> bytes:
    """Return JSON with what `orjson` refuses.

    That is integers of more than 64 bits, and text that is no UTF-8.
    """
    text = json.dumps(
        {
            name: as_utf8(value) if isinstance(value, str) else value
            for name, value in mapping.items()
        },
        ensure_ascii=False,
        separators=(",", ":"),
        default=datetime.isoformat,
    )
    return text.encode() + b"\n"
