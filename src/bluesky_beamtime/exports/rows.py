"""A stream as a table: a row for each event, a column for each field and its units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bluesky_beamtime.database.variable_names import ROWS, free_name
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.fields import Field, StreamContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.texts import json_text

_ROWS = 1024


def tabular(content: RunContent, files: ExportFiles) -> list[StreamContent]:
    """Return the streams that have a table, and tell which frames have no place in one.

    A stream that holds nothing but frames still has its times.
    """
    names = dict.fromkeys(field.key for field in content.images)
    if names:
        files.left_out.append(f"the frames of {', '.join(names)}")
    return list(content.streams.values())


def table_fields(stream: StreamContent) -> list[Field]:
    """Return the fields of the columns: all but frames."""
    return [field for field in stream.fields.values() if not field.is_image]


def column_names(stream: StreamContent, *, units: bool) -> list[str]:
    """Return the names of the columns.

    Parameters
    ----------
    stream
        The stream.
    units
        Whether ``<key>_unit`` stands beside each field that has units.
    """
    fields = table_fields(stream)
    names = [*ROWS, *(stream.names[field.key] for field in fields)]
    if units:
        for field in fields:
            if field.has_units:
                names.append(free_name(f"{field.key}_unit", names))
    return names


def table_rows(stream: StreamContent, *, units: bool) -> Iterator[list[Any]]:
    """Yield the rows; arrays of an event are JSON text, what is missing is None."""
    fields = table_fields(stream)
    told = [field for field in fields if units and field.has_units]
    for first in range(0, len(stream.seq_nums), _ROWS):
        numbers = stream.seq_nums[first : first + _ROWS]
        times = stream.times[first : first + _ROWS]
        columns = [_cells(field, numbers) for field in fields]
        columns += [field.units_at(numbers) for field in told]
        yield from (
            [number, None if np.isnan(time) else time, *cells]
            for number, time, *cells in zip(
                numbers.tolist(), times.tolist(), *columns, strict=True
            )
        )


def _cells(field: Field, numbers: Any) -> list[Any]:
    """Return the values at some sequence numbers."""
    first, last = np.searchsorted(field.seq_nums, [numbers[0], numbers[-1] + 1])
    part = np.asarray(field.values[int(first) : int(last)])
    values = part.tolist()
    if len(values) == len(numbers) and part.dtype.kind in "biufU" and part.ndim == 1:
        # All of them are there, and are what cells can be.
        return values
    found = dict(zip(field.seq_nums[first:last].tolist(), values, strict=True))
    return [_cell(found.get(number)) for number in numbers.tolist()]


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return json_text(value)
