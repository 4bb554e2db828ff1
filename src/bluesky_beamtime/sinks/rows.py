"""Records as rows: one layout of names, the same in every table and file.

A row is a mapping, or a tuple beside the tuple of its column names: many readings of
one device share the names, and only the values are made anew for each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from itertools import repeat
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.sinks.records import (
    DaqBlock,
    DaqReading,
    DaqSample,
    TimeReference,
)

HEAD = (
    "device",
    "task",
    "t_mono_ns",
    "t_utc",
    "t_midpoint_mono_ns",
    "requested_at",
    "received_at",
    "latency_s",
)
TAIL = ("error_type", "error_message")
_PLAIN = frozenset((bool, int, float, str, type(None)))
BLOCK_COLUMNS = (
    "device",
    "task",
    "channel",
    "block_index",
    "sample_index",
    "t_mono_ns",
    "t_utc",
    "value",
    "unit",
    "error_type",
    "error_message",
)
SUMMARY_COLUMNS = (
    "device",
    "task",
    "channels",
    "block_index",
    "first_sample_index",
    "samples_per_channel",
    "sample_rate_hz",
    "block_period_ns",
    "t_mono_ns",
    "t_utc",
    "read_started_at",
    "read_finished_at",
    "elapsed_s",
    "units",
    "error_type",
    "error_message",
)
TIMES = frozenset(
    ("t_utc", "requested_at", "received_at", "read_started_at", "read_finished_at")
)
"""Columns of times: text in ISO 8601, or the type that a database has for them."""
INTEGERS = frozenset(
    (
        "t_mono_ns",
        "t_midpoint_mono_ns",
        "block_index",
        "sample_index",
        "first_sample_index",
        "samples_per_channel",
        "block_period_ns",
    )
)
FLOATS = frozenset(("latency_s", "sample_rate_hz", "elapsed_s"))
TEXTS = frozenset(
    (
        "device",
        "task",
        "channel",
        "channels",
        "unit",
        "units",
        "error_type",
        "error_message",
        "sensor_status",
        "metadata",
    )
)
_FIXED = TIMES | INTEGERS | FLOATS | TEXTS


def is_text(column: str) -> bool:
    """Return whether a column holds text whatever the channels are."""
    return column in TEXTS or column.endswith("_unit")


def channel_column(channel: str) -> str:
    """Return the name of a channel's column.

    That is the channel's own name, unless it is that of a fixed column or begins like
    the names made here: then ``channel_`` stands before it. What looks like a unit's
    column gets an underscore behind it, too.
    """
    folded = channel.casefold()
    if folded.endswith("_unit"):
        channel = f"channel_{channel}_"
    elif not channel or folded in _FIXED or folded.startswith("channel_"):
        channel = f"channel_{channel}"
    # Neither SQLite nor PostgreSQL takes a zero in a name.
    return channel.replace("\0", "\u2400")


@lru_cache(maxsize=1024)
def _reading_columns(
    channels: tuple[str, ...], units: tuple[str, ...], extras: tuple[str, ...]
) -> tuple[str, ...]:
    return (
        *HEAD,
        *(channel_column(channel) for channel in channels),
        *(f"{channel_column(channel)}_unit" for channel in units),
        *TAIL,
        *extras,
    )


def reading_columns(reading: DaqReading) -> tuple[str, ...]:
    """Return the names of a reading's columns."""
    return _reading_columns(
        tuple(reading.values), tuple(reading.units), _extras(reading)
    )


def _extras(reading: DaqReading) -> tuple[str, ...]:
    if not reading.sensor_status:
        return ("metadata",) if reading.metadata else ()
    return ("sensor_status", "metadata") if reading.metadata else ("sensor_status",)


def reading_values(reading: DaqReading, *, text: bool = False) -> tuple[Any, ...]:
    """Return the values of :func:`reading_columns`, times as they are or as text."""
    measured, requested, received = (
        reading.t_utc,
        reading.requested_at,
        reading.received_at,
    )
    values: Any = reading.values.values()
    if text:
        measured = measured.isoformat()
        requested = None if requested is None else requested.isoformat()
        received = None if received is None else received.isoformat()
        if not _PLAIN.issuperset(map(type, values)):
            values = map(as_text, values)
    error = reading.error
    row = (
        reading.device,
        reading.task,
        reading.t_mono_ns,
        measured,
        reading.t_midpoint_mono_ns,
        requested,
        received,
        reading.latency_s,
        *values,
        *reading.units.values(),
        *((None, None) if error is None else describe_error(error)),
    )
    if reading.sensor_status:
        status = {key: str(value) for key, value in reading.sensor_status.items()}
        row += (to_json(status),)
    if reading.metadata:
        row += (to_json(reading.metadata),)
    return row


def to_json(value: Any) -> str:
    """Return JSON text of what belongs to a record; NaN and infinities are tagged."""
    return json.dumps(_tagged(value), ensure_ascii=False, default=str, allow_nan=False)


def _tagged(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_tagged_key(str(key)): _tagged(item) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_tagged(item) for item in cast("Sequence[Any]", value)]
    tolist = getattr(value, "tolist", None)
    return _tagged(tolist()) if callable(tolist) else value


def _tagged_key(key: str) -> str:
    return f"${key}" if key.startswith("$") else key


def describe_error(error: BaseException) -> tuple[str, str]:
    """Return the name of an error's class, with its module, and its text."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}", str(error)


def as_text(value: Any) -> Any:
    """Return a value as text tables hold it: times in ISO 8601, the rest as it is."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, complex):
        return str(value)
    return value


def reading_to_row(reading: DaqReading) -> dict[str, Any]:
    """Return a reading as one row, in the layout of every tabular sink.

    ``device``, ``task``, ``t_mono_ns``, ``t_utc``, ``t_midpoint_mono_ns``,
    ``requested_at``, ``received_at``, ``latency_s``, a column for each channel, a
    column ``<channel>_unit`` for each unit, ``error_type`` and ``error_message``; then
    ``sensor_status`` and ``metadata``, JSON text, for a reading that has them. Times
    are text in ISO 8601. A channel that is called like a fixed column or a unit has
    ``channel_`` before its name, so that nothing takes the place of another.
    """
    values = reading_values(reading, text=True)
    return dict(zip(reading_columns(reading), values, strict=True))


@dataclass(frozen=True, slots=True)
class BlockTimes:
    """When each valid sample of a block was taken."""

    mono_ns: list[int | None]
    """Monotonic clock, nanoseconds."""
    utc: list[datetime | None]
    """Time of day."""


def block_times(
    block: DaqBlock, t_reference: TimeReference | None = None
) -> BlockTimes:
    """Return the time of each valid sample of a block.

    Parameters
    ----------
    block
        The block. The time between two samples is its ``block_period_ns``; without
        one, the time that reading took is shared evenly; without that, it follows from
        ``sample_rate_hz``. If nothing says it, only the first sample has a time.
    t_reference
        Which moment the block's times are of; by default what the block says.
    """
    count = block.samples_per_channel
    if count == 0:
        return BlockTimes([], [])
    offsets = sample_offsets(block, t_reference)
    start, mono = block.t_utc, block.t_mono_ns
    if offsets is None:
        later: list[None] = [None] * (count - 1)
        return BlockTimes([mono, *later], [start, *later])
    nanoseconds: list[int] = offsets.tolist()
    microseconds: list[int] = round_to_microseconds(offsets).tolist()
    return BlockTimes(
        [None] * count if mono is None else [mono + each for each in nanoseconds],
        [start + timedelta(microseconds=each) for each in microseconds],
    )


def round_to_microseconds(nanoseconds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return nanoseconds as whole microseconds, the nearest."""
    return (nanoseconds + 500) // 1000


def sample_offsets(
    block: DaqBlock, t_reference: TimeReference | None = None
) -> NDArray[np.int64] | None:
    """Return when each valid sample was taken, nanoseconds after the block's times.

    None if nothing says how far apart they are.
    """
    count = block.samples_per_channel
    span = _span(block, count)
    if span is None:
        return None
    reference = block.t_reference if t_reference is None else t_reference
    back = {"start": Fraction(0), "mid": span / 2, "end": span}[reference]
    step = span / count
    if step.denominator == 1 and back.denominator == 1:
        return np.arange(count, dtype=np.int64) * int(step) - int(back)
    # Exact for periods that are no whole nanoseconds, such as a third of a second.
    return np.array([round(k * step - back) for k in range(count)], np.int64)


def _span(block: DaqBlock, count: int) -> Fraction | None:
    """Return how many nanoseconds the valid samples of a block cover."""
    if not count:
        return None
    if block.block_period_ns is not None:
        return Fraction(block.block_period_ns) * count
    if block.read_started_at is not None and block.read_finished_at is not None:
        window = block.read_finished_at - block.read_started_at
        if window > timedelta(0):
            return Fraction(window // timedelta(microseconds=1)) * 1000
    if block.sample_rate_hz:
        return Fraction(1_000_000_000) / Fraction(block.sample_rate_hz) * count
    return None


def block_to_rows(
    block: DaqBlock, *, t_reference: TimeReference | None = None
) -> list[dict[str, Any]]:
    """Return one row per channel and sample, the samples of each channel together.

    ``device``, ``task``, ``channel``, ``block_index``, ``sample_index``, ``t_mono_ns``,
    ``t_utc``, ``value``, ``unit``, ``error_type``, ``error_message``. Integers stay
    integers, so that none loses its last digits. No sink does this to a block unless
    it was told to.

    Parameters
    ----------
    block
        The block; only its valid samples become rows.
    t_reference
        Which moment the block's times are of: its first sample (``"start"``), its
        middle, its end. By default what the block says.
    """
    return [
        dict(zip(BLOCK_COLUMNS, values, strict=True))
        for values in block_values(block, t_reference=t_reference)
    ]


def block_values(
    block: DaqBlock,
    *,
    t_reference: TimeReference | None = None,
    text: bool = True,
) -> Iterator[tuple[Any, ...]]:
    """Yield the values of :data:`BLOCK_COLUMNS`, times as text or as they are."""
    times = block_times(block, t_reference)
    moments: Sequence[Any] = times.utc
    if text:
        moments = [None if t is None else t.isoformat() for t in times.utc]
    count = block.samples_per_channel
    numbers = range(block.first_sample_index, block.first_sample_index + count)
    error = (None, None) if block.error is None else describe_error(block.error)
    before = (repeat(block.device), repeat(block.task))
    after = (repeat(error[0]), repeat(error[1]))
    for channel, samples in zip(block.channels, block.data, strict=True):
        # Rows are made without a line of Python for each.
        yield from zip(
            *before,
            repeat(channel),
            repeat(block.block_index),
            numbers,
            times.mono_ns,
            moments,
            samples[:count].tolist(),
            repeat(block.units.get(channel)),
            *after,
            strict=False,
        )


def block_to_samples(
    block: DaqBlock, *, t_reference: TimeReference | None = None
) -> Iterator[DaqSample]:
    """Yield each sample of a block with its time, in the order of the rows."""
    for values in block_values(block, t_reference=t_reference, text=False):
        named = dict(zip(BLOCK_COLUMNS[:-2], values[:-2], strict=True))
        yield DaqSample(**named, error=block.error)


def block_to_summary(block: DaqBlock) -> dict[str, Any]:
    """Return one row that says what a block was, without its samples.

    ``channels`` and ``units`` are JSON text, so that no name can be taken for two.
    """
    return dict(zip(SUMMARY_COLUMNS, map(as_text, summary_values(block)), strict=True))


def summary_values(block: DaqBlock) -> tuple[Any, ...]:
    """Return the values of :data:`SUMMARY_COLUMNS`, times as they are."""
    error = (None, None) if block.error is None else describe_error(block.error)
    return (
        block.device,
        block.task,
        to_json(list(block.channels)),
        block.block_index,
        block.first_sample_index,
        block.samples_per_channel,
        block.sample_rate_hz,
        block.block_period_ns,
        block.t_mono_ns,
        block.t_utc,
        block.read_started_at,
        block.read_finished_at,
        block.elapsed_s,
        to_json(block.units),
        *error,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that share their columns."""

    columns: tuple[str, ...]
    """Names of the columns."""
    rows: list[tuple[Any, ...]]
    """Values, in the order of the columns."""
    value_type: type | None = None
    """Of the samples of a block, if all of them have one that is known."""


def reading_batches(
    readings: Sequence[DaqReading], *, text: bool = False
) -> list[Batch]:
    """Return readings as batches, a new one wherever the columns change."""
    batches: list[Batch] = []
    rows: list[tuple[Any, ...]] = []
    known: tuple[tuple[str, ...], ...] | None = None
    for reading in readings:
        # To compare names with those of the reading before is cheaper than to look
        # them up.
        names = (tuple(reading.values), tuple(reading.units), _extras(reading))
        if names != known:
            rows = []
            batches.append(Batch(_reading_columns(*names), rows))
            known = names
        rows.append(reading_values(reading, text=text))
    return batches
