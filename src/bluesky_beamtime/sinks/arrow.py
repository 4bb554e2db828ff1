"""Rows as Arrow tables, with types that hold every value exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np

from bluesky_beamtime.sinks.block_rows import (
    block_times,
    round_to_microseconds,
    sample_offsets,
)
from bluesky_beamtime.sinks.layout import (
    BLOCK_COLUMNS,
    FLOATS,
    INTEGERS,
    TIMES,
    is_text,
)
from bluesky_beamtime.sinks.records import DaqBlock
from bluesky_beamtime.sinks.texts import as_utf8, describe_error, is_one_text

EXACT = 2**53
"""Whole numbers up to this one are exact as floats."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _arrow() -> Any:
    import pyarrow

    # It ships no types worth the name.
    return cast("Any", pyarrow)


def time_type() -> Any:
    """Return the type of times."""
    return _arrow().timestamp("us", "UTC")


def table_of_rows(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Any:
    """Return rows as a table: fixed columns by their names, others by their values."""
    pa = _arrow()
    columns = [
        _column(name, values)
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    ]
    return pa.table(columns, names=list(names))


def _column(name: str, values: tuple[Any, ...]) -> Any:
    pa = _arrow()
    if name in TIMES:
        return _time_column(values)
    if is_text(name):
        return _text_column(values)
    if name in INTEGERS:
        return pa.array(values, pa.int64())
    if name in FLOATS:
        return pa.array(values, pa.float64())
    return _inferred(values)


def _text_column(values: tuple[Any, ...]) -> Any:
    if is_one_text(values):
        return _repeated(values[0], len(values))
    return _strings(values)


def _strings(values: Sequence[str | None]) -> Any:
    pa = _arrow()
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        texts = [None if value is None else as_utf8(value) for value in values]
        return pa.array(texts, pa.string())


def _time_column(values: tuple[datetime | None, ...]) -> Any:
    pa = _arrow()
    # The library takes differences four times as fast as times with their zones.
    since = [None if value is None else value - _EPOCH for value in values]
    return pa.array(since, pa.duration("us")).view(time_type())


def _inferred(values: tuple[Any, ...]) -> Any:
    pa = _arrow()
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {float}:
        return pa.array(values, pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {str}:
        return _strings(values)
    if kinds == {datetime}:
        return _time_column(values)
    if kinds <= {bool, int}:
        numbers = [None if value is None else int(value) for value in values]
        if _within(numbers, -(2**63), 2**63 - 1):
            return pa.array(numbers, pa.int64())
    if kinds <= {bool, int, float}:
        whole = [value for value in values if type(value) is int]
        if float in kinds and _within(whole, -EXACT, EXACT):
            floats = [None if value is None else float(value) for value in values]
            return pa.array(floats, pa.float64())
    return _strings([None if value is None else as_word(value) for value in values])


def _within(numbers: Iterable[int | None], least: int, most: int) -> bool:
    return all(number is None or least <= number <= most for number in numbers)


def as_word(value: Any) -> str:
    """Return a value as text, where its column holds values of several kinds."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def table_of_block(block: DaqBlock) -> Any:
    """Return the rows of ``block_to_rows`` as a table."""
    pa = _arrow()
    count, channels = block.samples_per_channel, len(block.channels)
    rows = count * channels
    error = (None, None) if block.error is None else describe_error(block.error)
    numbers = np.arange(count, dtype=np.int64) + block.first_sample_index
    mono, moments = _times(block)
    data = block.data[:, :count].reshape(-1)
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    columns = {
        "device": _repeated(block.device, rows),
        "task": _repeated(block.task, rows),
        "channel": _each(block.channels, count),
        "block_index": pa.array(np.full(rows, block.block_index, np.int64)),
        "sample_index": pa.array(np.tile(numbers, channels)),
        "t_mono_ns": pa.concat_arrays([mono] * channels) if channels else mono,
        "t_utc": pa.concat_arrays([moments] * channels) if channels else moments,
        "value": pa.array(data),
        "unit": _each([block.units.get(name) for name in block.channels], count),
        "error_type": _repeated(error[0], rows),
        "error_message": _repeated(error[1], rows),
    }
    return pa.table([columns[name] for name in BLOCK_COLUMNS], list(BLOCK_COLUMNS))


def _times(block: DaqBlock) -> tuple[Any, Any]:
    pa = _arrow()
    offsets = sample_offsets(block)
    if offsets is None or block.t_mono_ns is None:
        times = block_times(block)
        return pa.array(times.mono_ns, pa.int64()), pa.array(times.utc, time_type())
    began = block.t_utc - _EPOCH
    began_us = (began.days * 86400 + began.seconds) * 1_000_000 + began.microseconds
    moments = pa.array(round_to_microseconds(offsets) + began_us)
    return pa.array(offsets + block.t_mono_ns), moments.cast(time_type())


def _repeated(value: str | None, count: int) -> Any:
    pa = _arrow()
    return pa.repeat(_strings([value])[0], count)


def _each(values: Sequence[str | None], count: int) -> Any:
    pa = _arrow()
    if not values:
        return pa.array([], pa.string())
    return pa.concat_arrays([_repeated(value, count) for value in values])


def unified(kinds: Sequence[Any], exact: bool) -> Any:
    """Return the type that holds the values of columns of several types.

    Parameters
    ----------
    kinds
        Types of one column in several tables.
    exact
        Whether every whole number among them is exact as a float.
    """
    pa = _arrow()
    found = list(dict.fromkeys(kind for kind in kinds if not pa.types.is_null(kind)))
    if not found:
        return pa.null()
    if len(found) == 1:
        return found[0]
    types = pa.types
    whole = [kind for kind in found if types.is_integer(kind) or types.is_boolean(kind)]
    floats = [kind for kind in found if types.is_floating(kind)]
    if len(whole) == len(found):
        dtypes = [np.dtype(kind.to_pandas_dtype()) for kind in whole]
        common = np.result_type(*dtypes)
        if common.kind in "iub":
            return pa.from_numpy_dtype(common)
    elif len(whole) + len(floats) == len(found) and (exact or not whole):
        return pa.float64()
    return pa.string()


def cast_column(column: Any, kind: Any) -> Any:
    """Return a column with another type, every value kept."""
    pa = _arrow()
    if column.type == kind:
        return column
    if pa.types.is_string(kind) and not pa.types.is_null(column.type):
        words = [None if v is None else as_word(v) for v in column.to_pylist()]
        return pa.chunked_array([pa.array(words, pa.string())])
    if pa.types.is_boolean(column.type) and pa.types.is_floating(kind):
        column = column.cast(pa.int8())
    return column.cast(kind)
