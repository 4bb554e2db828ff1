"""Rows as lines of JSON."""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO, cast

import orjson

from bluesky_beamtime.errors import SinkSchemaError
from bluesky_beamtime.sinks.append_file import AppendFile
from bluesky_beamtime.sinks.text_table import TextTableSink


class JsonlSink(TextTableSink):
    """Writes readings as JSON objects, one a line.

    Every line is valid JSON in UTF-8: NaN and the infinities are tagged,
    ``{"$float": "nan"}``, ``"inf"``, ``"-inf"``, as everywhere in a beamtime. Integers
    have all their digits. The objects have the columns of the table as keys, null where
    a row has no value; those written before a column came do without it. Each call of
    :meth:`write_many` is one write to the file: when it returns, its lines survive
    ``kill -9``, and a line that a killed process left half-written is cut off when the
    file is opened again with ``append=True``. After :meth:`flush` or :meth:`close` they
    survive a power cut.

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

    def _read_columns(self, file: BinaryIO) -> list[str] | None:
        names: dict[str, None] = {}
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                row = orjson.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise SinkSchemaError(
                    f"{self.path} is no file of JSON objects, one a line; "
                    "overwrite=True begins anew"
                )
            names.update(dict.fromkeys(cast("dict[str, Any]", row)))
        return list(names) or None

    def _whole(self, file: BinaryIO) -> int:
        # A line end is in no JSON text.
        good = 0
        for line in file:
            if line.endswith(b"\n"):
                good += len(line)
        return good

    def _format(self, rows: list[tuple[Any, ...]]) -> bytes:
        names = self._columns.names or []
        if not all(map(_is_finite, zip(*rows, strict=True))):
            rows = [tuple(map(_tag, row)) for row in rows]
        lines: list[bytes] = []
        for row in rows:
            mapping = dict(zip(names, row, strict=True))
            try:
                lines.append(orjson.dumps(mapping, option=orjson.OPT_APPEND_NEWLINE))
            except TypeError:
                lines.append(_exact(mapping))
        return b"".join(lines)

    def _widen(self, new: list[str], file: AppendFile) -> AppendFile:
        # Each line says for itself what it has.
        return file


def _is_finite(column: tuple[Any, ...]) -> bool:
    """Return whether a column has neither NaN nor infinities."""
    kinds = set(map(type, column))
    if float not in kinds:
        return True
    if kinds == {float}:
        return all(map(math.isfinite, column))
    return all(math.isfinite(value) for value in column if type(value) is float)


def _tag(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(float(value))}
    return value


def _exact(mapping: dict[str, Any]) -> bytes:
    """Return JSON with integers of more than 64 bits, which `orjson` refuses."""
    text = json.dumps(mapping, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"
