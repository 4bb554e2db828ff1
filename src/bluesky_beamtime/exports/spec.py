"""Runs as SPEC scans: a file for each stream, with its numbers in columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.fields import Field, StreamContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.names import unique_names
from bluesky_beamtime.exports.texts import json_text, utc

_ROWS = 1024

# Half of a surrogate pair is no text in UTF-8; it is written as such.
_ERRORS = "backslashreplace"


def write_spec(content: RunContent, files: ExportFiles) -> None:
    """Write a file with one scan for each stream; its number is the scan number.

    The scanned axes come first and what the devices hint at last, as SPEC has it; units
    are comments ``#C unit <key> = <unit>``, units that changed within the stream
    ``#C units_of_rows <key> = [[<seq_num>, <unit>], …]``. Texts, arrays and frames are
    left out, with a warning.
    """
    content.warn_of_units()
    streams = list(content.streams.values())
    paths = files.several([stream.name for stream in streams])
    names: dict[str, None] = {}
    for stream, path in zip(streams, paths, strict=True):
        fields, others = _columns(content, stream)
        names |= dict.fromkeys(field.key for field in others)
        final = files.written[paths.index(path)]
        with path.open("w", encoding="utf-8", errors=_ERRORS) as file:
            file.write(_head(content, stream, fields, final.name))
            for first in range(0, len(stream.seq_nums), _ROWS):
                file.writelines(_rows(content, stream, fields, first))
                done = min(first + _ROWS, len(stream.seq_nums))
                files.tell(stream.name, done, len(stream.seq_nums))
            file.write("\n")
    if names:
        files.left_out.append(f"the texts, arrays or frames of {', '.join(names)}")


def _columns(
    content: RunContent, stream: StreamContent
) -> tuple[list[Field], list[Field]]:
    """Return the fields that have columns, in their order, and those that have none."""
    axes, hinted = content.scan_axes(stream.name), stream.hinted
    fields: list[Field] = []
    others: list[Field] = []
    for field in stream.fields.values():
        plain = len(field.shape) == 1 and field.dtype.kind in "biuf"
        (fields if plain else others).append(field)

    def place(field: Field) -> tuple[int, int]:
        if field.key in axes:
            return 0, axes.index(field.key)
        if field.key in hinted:
            # The main detector is the last column.
            return 2, -hinted.index(field.key)
        return 1, 0

    return sorted(fields, key=place), others


def _head(
    content: RunContent, stream: StreamContent, fields: Sequence[Field], name: str
) -> str:
    run = content.run
    began = run.time or 0.0
    date = utc(began).strftime("%a %b %d %H:%M:%S %Y")
    keys = [field.key for field in fields]
    labels = list(unique_names(keys, _label, ("seq_num", "time")).values())
    columns = _ordered(content, stream, list(labels), ["seq_num", "time"])
    number = 1 if run.scan_id is None else run.scan_id
    lines = [
        f"#F {name}",
        f"#E {int(began)}",
        f"#D {date}",
        "#C times are UTC",
        "",
        f"#S {number} {_line(run.plan_name or 'run')} {_line(stream.name)}",
        f"#D {date}",
        f"#C uid = {run.uid}",
        *([] if run.sample is None else [f"#C sample = {_line(run.sample.name)}"]),
        "#C unit time = s",
        *(
            f"#C unit {label} = {_line(field.units)}"
            for label, field in zip(labels, fields, strict=True)
            if field.units is not None
        ),
        *(
            f"#C units_of_rows {label} = {_line(json_text(field.units_of_rows))}"
            for label, field in zip(labels, fields, strict=True)
            if field.units_of_rows
        ),
        f"#N {len(columns)}",
        f"#L {'  '.join(columns)}",
    ]
    return "\n".join(lines) + "\n"


def _rows(
    content: RunContent, stream: StreamContent, fields: Sequence[Field], first: int
) -> list[str]:
    numbers = stream.seq_nums[first : first + _ROWS]
    times = stream.times[first : first + _ROWS].tolist()
    columns = [_numbers(field, numbers) for field in fields]
    ordered = _ordered(content, stream, columns, [numbers.tolist(), times])
    return [" ".join(map(repr, row)) + "\n" for row in zip(*ordered, strict=True)]


def _ordered(
    content: RunContent, stream: StreamContent, mine: list[Any], of_rows: list[Any]
) -> list[Any]:
    """Put number and time of each row behind the axes."""
    count = sum(k in stream.fields for k in content.scan_axes(stream.name))
    return [*mine[:count], *of_rows, *mine[count:]]


def _numbers(field: Field, numbers: Any) -> list[Any]:
    first, last = np.searchsorted(field.seq_nums, [numbers[0], numbers[-1] + 1])
    values: Any = np.asarray(field.values[int(first) : int(last)])
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    found = dict(zip(field.seq_nums[first:last].tolist(), values.tolist(), strict=True))
    return [found.get(number, float("nan")) for number in numbers.tolist()]


def _label(name: str) -> str:
    """Return a name for a column: two spaces would begin the next one."""
    return re.sub(r"\s+", " ", name).strip() or "_"


def _line(text: str) -> str:
    return " ".join(text.split())


spec = ExportFormat("spec", "spec", write_spec)
