"""Readings as rows.

A row is a mapping, or a tuple beside the tuple of its column names: many readings of
one device share the names, and only the values are made anew for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from bluesky_beamtime.sinks.layout import reading_columns
from bluesky_beamtime.sinks.records import DaqReading
from bluesky_beamtime.sinks.texts import as_text, describe_error, iso_texts, to_json

_PLAIN = frozenset((bool, int, float, str, type(None)))
_NO_ERROR = (None, None)
_TIMES = attrgetter("t_utc", "requested_at", "received_at")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that share their columns."""

    columns: tuple[str, ...]
    """Names of the columns."""
    rows: list[tuple[Any, ...]]
    """Values, in the order of the columns."""
    value_type: type | None = None
    """Of the samples of a block, if all of them have one that is known."""


def reading_to_row(reading: DaqReading) -> dict[str, Any]:
    """Return a reading as one row, in the layout of every tabular sink.

    ``device``, ``task``, ``t_mono_ns``, ``t_utc``, ``t_midpoint_mono_ns``,
    ``requested_at``, ``received_at``, ``latency_s``, a column for each channel, a
    column ``<channel>_unit`` for each unit, ``error_type`` and ``error_message``; then
    ``sensor_status`` and ``metadata``, JSON text, for a reading that has them. Times
    are text in ISO 8601. A channel that is called like a fixed column or a unit has
    ``channel_`` before its name, so that nothing takes the place of another.
    """
    (batch,) = reading_batches([reading], text=True)
    return dict(zip(batch.columns, batch.rows[0], strict=True))


def reading_batches(
    readings: Sequence[DaqReading], *, text: bool = False
) -> list[Batch]:
    """Return readings as batches, a new one wherever the columns change.

    Times stay what they are, or become text. Each reading of a fast device comes by
    here: what can be done for many of them at once is.
    """
    batches: list[Batch] = []
    rows: list[tuple[Any, ...]] = []
    channels: list[str] | None = None
    units: list[str] = []
    extras: tuple[str, ...] = ()
    for reading, times in zip(readings, _times(readings, text), strict=True):
        values, reading_units = reading.values, reading.units
        status, metadata = reading.sensor_status, reading.metadata
        has: tuple[str, ...] = _extras(reading) if status or metadata else ()
        # To compare names with those of the reading before is cheaper than to look
        # them up.
        if [*values] != channels or [*reading_units] != units or has != extras:
            channels, units, extras = [*values], [*reading_units], has
            columns = reading_columns(tuple(channels), tuple(units), extras)
            rows = []
            batches.append(Batch(columns, rows))
        given: Iterable[Any] = values.values()
        if text and not _PLAIN.issuperset(map(type, given)):
            given = map(as_text, given)
        error = reading.error
        row = (
            reading.device,
            reading.task,
            reading.t_mono_ns,
            times[0],
            reading.t_midpoint_mono_ns,
            times[1],
            times[2],
            reading.latency_s,
            *given,
            *reading_units.values(),
            *(_NO_ERROR if error is None else describe_error(error)),
        )
        rows.append(row + _extra_values(reading) if has else row)
    return batches


def _times(readings: Sequence[DaqReading], text: bool) -> Iterable[tuple[Any, ...]]:
    times = map(_TIMES, readings)
    if not text or not readings:
        return times
    return zip(*map(iso_texts, zip(*times, strict=True)), strict=True)


def _extras(reading: DaqReading) -> tuple[str, ...]:
    if not reading.sensor_status:
        return ("metadata",) if reading.metadata else ()
    return ("sensor_status", "metadata") if reading.metadata else ("sensor_status",)


def _extra_values(reading: DaqReading) -> tuple[str, ...]:
    """Return the values of the columns that few readings have."""
    values: tuple[str, ...] = ()
    if reading.sensor_status:
        status = {key: str(value) for key, value in reading.sensor_status.items()}
        values += (to_json(status),)
    if reading.metadata:
        values += (to_json(reading.metadata),)
    return values
