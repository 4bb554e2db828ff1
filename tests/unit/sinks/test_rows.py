"""Rows that are made of many records at once are those of each alone."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from bluesky_beamtime.sinks import (
    DaqBlock,
    DaqReading,
    JsonlSink,
    block_to_rows,
    block_to_samples,
    reading_to_row,
)
from bluesky_beamtime.sinks.layout import HEAD, TAIL, TEXTS, is_text, reading_columns
from bluesky_beamtime.sinks.rows import reading_batches
from bluesky_beamtime.sinks.texts import iso_texts

ZONES = (UTC, timezone(timedelta(hours=5, minutes=45, seconds=3)), ZoneInfo("CET"))


class Stamp(datetime):
    """A time that says more than others."""

    def isoformat(self, *args: Any, **kwargs: Any) -> str:
        return f"{super().isoformat(*args, **kwargs)}!"


@given(
    st.lists(st.none() | st.datetimes(timezones=st.sampled_from(ZONES)))
    | st.lists(st.datetimes(timezones=st.just(UTC)))
    | st.lists(st.datetimes())
)
def test_many_times_become_text_as_one_does(moments: list[datetime | None]) -> None:
    assert iso_texts(moments) == [m and m.isoformat() for m in moments]


def test_times_of_another_class_say_what_they_say() -> None:
    stamps = [Stamp(2026, 11, 21, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC)]
    assert iso_texts(stamps) == [stamp.isoformat() for stamp in stamps]


def many_readings() -> list[DaqReading]:
    """Return readings of every kind, each beside each other."""
    kinds: list[dict[str, Any]] = [
        {"values": {"a": 1.5, "b": 2}, "units": {"a": "V", "b": None}},
        {"values": {"b": 2, "a": 1.5}, "units": {"a": "V", "b": None}},
        {"values": {"a": 1.5, "b": 2}, "units": {"b": None}},
        {"values": {"a": float("nan")}, "error": ValueError("no signal")},
        {"values": {"a": None}, "sensor_status": {"a": "open"}},
        {"values": {"a": 2**70}, "metadata": {"run": 7}},
        {
            "values": {"a": datetime(2026, 1, 1, tzinfo=ZONES[1]), "b": 1 + 2j},
            "sensor_status": {"a": "open"},
            "metadata": {"x": float("inf")},
        },
    ]
    return [
        DaqReading(
            device="d",
            t_mono_ns=number,
            t_utc=datetime(2026, 11, 21, tzinfo=ZONES[number % len(ZONES)]),
            requested_at=datetime(2026, 11, 21, tzinfo=UTC) if number % 5 else None,
            **kind,
        )
        for number, kind in enumerate(
            itertools.chain.from_iterable(itertools.product(kinds, repeat=2))
        )
    ]


words = st.sampled_from(
    ["channel_", "channel", "_", "unit", "_unit", "UNIT", "s", "_Unit_", "x", "2", ""]
)
names = st.lists(words, max_size=4).map("".join) | st.sampled_from(
    [*HEAD, *TAIL, *TEXTS, *map(str.upper, TEXTS)]
)


@given(st.lists(names, unique_by=str.casefold))
@example(["unit", "channel_unit", "unit_", "channel_unit_", "_unit", "units", "x_unit"])
@example(["channel_a_unit", "channel_a_unit_", "channel_a_unit__", "a_unit_", "a_unit"])
def test_D_07_no_name_is_taken_for_another(channels: list[str]) -> None:
    """D-07, D-46: nor for a fixed column, or a unit's, which holds text alone."""
    columns = reading_columns(tuple(channels), tuple(channels), ("metadata",))
    assert len({name.casefold() for name in columns}) == len(columns)
    of_channels = columns[len(HEAD) : len(HEAD) + len(channels)]
    of_units = columns[len(HEAD) + len(channels) :][: len(channels)]
    assert not any(map(is_text, of_channels))
    assert all(map(is_text, of_units))


def test_batches_hold_the_row_of_each_reading_in_order() -> None:
    readings = many_readings()
    rows = [
        list(zip(batch.columns, row, strict=True))
        for batch in reading_batches(readings, text=True)
        for row in batch.rows
    ]
    # As text, since NaN is nothing's equal.
    assert repr(rows) == repr([list(reading_to_row(r).items()) for r in readings])


async def test_D_29_lines_hold_what_the_rows_say(tmp_path: Path) -> None:
    """D-29: whatever stands beside what in a batch, and in whichever time zone."""
    readings = many_readings()
    async with JsonlSink(tmp_path / "all.jsonl") as sink:
        await sink.write_many(readings)
    lines = [json.loads(line) for line in sink.path.read_text().splitlines()]
    for reading, line in zip(readings, lines, strict=True):
        row = reading_to_row(reading)
        if row.get("a") != row.get("a"):
            row["a"] = {"$float": "nan"}
        assert {name: value for name, value in line.items() if name in row} == row
        assert all(line[name] is None for name in set(line) - set(row))


def test_D_10_rows_and_samples_of_a_block_agree() -> None:
    """D-10: by name, in one order."""
    block = DaqBlock(
        device="d",
        channels=("a", "b"),
        data=np.arange(6, dtype="i8").reshape(2, 3) + 2**60,
        block_period_ns=1_000_000,
        units={"a": "V"},
        error=ValueError("late"),
    )
    rows, samples = block_to_rows(block), list(block_to_samples(block))
    assert [row["value"] for row in rows] == [2**60 + k for k in range(6)]
    for row, sample in zip(rows, samples, strict=True):
        assert sample.t_utc is not None
        assert row["t_utc"] == sample.t_utc.isoformat()
        for name in ("channel", "sample_index", "t_mono_ns", "value", "unit"):
            assert row[name] == getattr(sample, name)
        assert row["error_message"] == "late"
