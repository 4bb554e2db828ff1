"""Blocks as rows: one for each sample of each channel, or one that sums a block up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.sinks.layout import BLOCK_COLUMNS, SUMMARY_COLUMNS
from bluesky_beamtime.sinks.records import DaqBlock, DaqSample, TimeReference
from bluesky_beamtime.sinks.texts import as_text, describe_error, iso_texts, to_json


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
        # A display of known names is twice as fast as a dict of pairs.
        {
            "device": device,
            "task": task,
            "channel": channel,
            "block_index": block_index,
            "sample_index": sample_index,
            "t_mono_ns": t_mono_ns,
            "t_utc": t_utc,
            "value": value,
            "unit": unit,
            "error_type": error_type,
            "error_message": error_message,
        }
        for (
            device,
            task,
            channel,
            block_index,
            sample_index,
            t_mono_ns,
            t_utc,
            value,
            unit,
            error_type,
            error_message,
        ) in block_values(block, t_reference=t_reference)
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
        moments = iso_texts(times.utc)
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
