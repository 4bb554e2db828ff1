"""Records and rows, D-05 to D-13."""

from __future__ import annotations

import dataclasses
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.sinks import (
    DaqBlock,
    DaqReading,
    DaqSample,
    block_to_rows,
    block_to_samples,
    block_to_summary,
    reading_to_row,
)

T0 = datetime(2026, 11, 21, 12, tzinfo=UTC)


class DeviceBroke(Exception):
    pass


def block(**changes: Any) -> DaqBlock:
    given: dict[str, Any] = {
        "device": "daq",
        "task": "fly",
        "channels": ("a", "b"),
        "data": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "first_sample_index": 30,
        "block_index": 10,
        "block_period_ns": 1000,
        "t_mono_ns": 5_000,
        "t_utc": T0,
        "units": {"a": "V"},
    }
    return DaqBlock(**{**given, **changes})


def test_D_05_a_reading_is_frozen_and_checked() -> None:
    """D-05: every field; NumPy scalars are Python's; mappings cannot be changed."""
    reading = DaqReading(
        device="daq",
        task="scan",
        values={"a": np.float64(1.5), "b": np.int32(3), "c": np.array(True)},
        units={"a": "V", "b": None},
        t_mono_ns=1,
        t_utc=T0,
        t_midpoint_mono_ns=2,
        requested_at=T0,
        received_at=T0,
        latency_s=0.1,
        error=DeviceBroke("x"),
        sensor_status={"a": "open"},
        metadata={"k": 1},
    )
    assert [type(value) for value in reading.values.values()] == [float, int, bool]
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading.device = "other"  # type: ignore[misc]
    for mapping in (reading.values, reading.units, reading.metadata):
        with pytest.raises(TypeError):
            mapping["a"] = 2  # type: ignore[index]
    again = pickle.loads(pickle.dumps(dataclasses.replace(reading, error=None)))
    assert again == dataclasses.replace(reading, error=None)
    with pytest.raises(TypeError, match=r"'a'.*ndarray"):
        DaqReading(device="d", values={"a": np.arange(3)})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="time zone"):
        DaqReading(device="d", t_utc=datetime(2026, 1, 1))


def test_D_06_a_block_is_frozen_copied_and_checked() -> None:
    """D-06: a driver may use its buffer again; shapes must belong together."""
    buffer = np.zeros((2, 3))
    taken = block(data=buffer, raw_codes=np.zeros((2, 3), "i2"))
    buffer[:] = 7
    assert not taken.data.any()
    for array in (taken.data, taken.raw_codes):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    assert taken.samples_per_channel == 3
    again = pickle.loads(pickle.dumps(taken))
    assert again.channels == taken.channels
    assert np.array_equal(again.data, taken.data)
    for wrong in (
        {"data": np.zeros(3)},
        {"data": np.zeros((3, 3))},
        {"raw_codes": np.zeros((2, 4))},
        {"samples_per_channel": 4},
        {"samples_per_channel": -2},
        {"t_reference": "after"},
        {"t_utc": datetime(2026, 1, 1)},
    ):
        with pytest.raises(ValueError):
            block(**wrong)


def test_D_07_the_row_of_a_reading_exactly() -> None:
    """D-07: names in their order, times in ISO 8601, None where nothing is known."""
    reading = DaqReading(
        device="daq",
        task="scan",
        values={"volt": 1.5, "count": 2**60 + 1},
        units={"volt": "V", "count": None},
        t_mono_ns=10,
        t_utc=T0,
        requested_at=T0,
        received_at=T0 + timedelta(microseconds=1500),
        latency_s=0.0015,
    )
    row = {
        "device": "daq",
        "task": "scan",
        "t_mono_ns": 10,
        "t_utc": "2026-11-21T12:00:00+00:00",
        "t_midpoint_mono_ns": None,
        "requested_at": "2026-11-21T12:00:00+00:00",
        "received_at": "2026-11-21T12:00:00.001500+00:00",
        "latency_s": 0.0015,
        "volt": 1.5,
        "count": 2**60 + 1,
        "volt_unit": "V",
        "count_unit": None,
        "error_type": None,
        "error_message": None,
    }
    assert reading_to_row(reading) == row
    assert list(reading_to_row(reading)) == list(row)
    assert reading.to_row() == row


def test_D_08_an_error_is_two_columns() -> None:
    """D-08: module and qualified name of its class, and its text."""
    row = reading_to_row(DaqReading(device="d", error=DeviceBroke("no answer")))
    assert row["error_type"] == f"{DeviceBroke.__module__}.DeviceBroke"
    assert row["error_message"] == "no answer"
    assert (
        reading_to_row(DaqReading(device="d", error=ValueError()))["error_type"]
        == "builtins.ValueError"
    )


def test_D_10_the_rows_of_a_block_exactly() -> None:
    """D-10: channel after channel, each with all its samples."""
    rows = block_to_rows(block(error=DeviceBroke("late")))
    assert [row["value"] for row in rows] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert rows[4] == {
        "device": "daq",
        "task": "fly",
        "channel": "b",
        "block_index": 10,
        "sample_index": 31,
        "t_mono_ns": 6_000,
        "t_utc": "2026-11-21T12:00:00.000001+00:00",
        "value": 5.0,
        "unit": None,
        "error_type": f"{DeviceBroke.__module__}.DeviceBroke",
        "error_message": "late",
    }
    assert list(rows[0])[:3] == ["device", "task", "channel"]
    assert rows[0]["unit"] == "V"


def test_D_10_integers_stay_exact() -> None:
    """D-10: beyond 2**53 too."""
    rows = block_to_rows(block(data=np.array([[2**62 + 1], [1]])))
    assert rows[0]["value"] == 2**62 + 1
    assert type(rows[0]["value"]) is int


@pytest.mark.parametrize(
    ("reference", "first"), [("start", 0), ("mid", -1500), ("end", -3000)]
)
def test_D_11_times_are_those_of_each_sample(reference: Any, first: int) -> None:
    """D-11: whichever moment of the block its times are of."""
    for rows in (
        block_to_rows(block(t_reference=reference)),
        block_to_rows(block(), t_reference=reference),
    ):
        offsets = [row["t_mono_ns"] - 5_000 for row in rows[:3]]
        assert offsets == [first, first + 1000, first + 2000]
        moments = [datetime.fromisoformat(row["t_utc"]) - T0 for row in rows[:3]]
        wanted = [timedelta(microseconds=(o + 500) // 1000) for o in offsets]
        assert moments == wanted
        assert [row["sample_index"] for row in rows[:3]] == [30, 31, 32]


def test_D_12_without_a_clock_the_window_is_shared_evenly() -> None:
    """D-12: no drift by rounding, and times that nobody knows are not made up."""
    window = {
        "block_period_ns": None,
        "read_started_at": T0,
        "read_finished_at": T0 + timedelta(microseconds=1),
    }
    rows = block_to_rows(block(**window))
    assert [row["t_mono_ns"] - 5_000 for row in rows[:3]] == [0, 333, 667]
    rate = {"block_period_ns": None, "sample_rate_hz": 3e8}
    rows = block_to_rows(block(**rate))
    assert [row["t_mono_ns"] - 5_000 for row in rows[:3]] == [0, 3, 7]
    zero = {**window, "read_finished_at": T0}
    rows = block_to_rows(block(**zero))
    assert [row["t_mono_ns"] for row in rows[:3]] == [5_000, None, None]
    assert [row["t_utc"] for row in rows[:3]] == [T0.isoformat(), None, None]


def test_D_10_only_valid_samples_are_rows() -> None:
    """D-10, D-75: of a buffer that was cut short; of an empty one none."""
    rows = block_to_rows(block(samples_per_channel=2))
    assert [row["value"] for row in rows] == [1.0, 2.0, 4.0, 5.0]
    assert block_to_rows(block(samples_per_channel=0)) == []
    assert block_to_rows(block(data=np.zeros((2, 0)), block_period_ns=None)) == []


def test_D_12_samples_and_rows_agree() -> None:
    """D-12: one way to tell times, whichever form the samples have."""
    samples = list(block_to_samples(block()))
    assert all(isinstance(sample, DaqSample) for sample in samples)
    for sample, row in zip(samples, block_to_rows(block()), strict=True):
        assert sample.t_utc is not None
        assert sample.t_utc.isoformat() == row["t_utc"]
        for name in ("channel", "sample_index", "t_mono_ns", "value", "unit"):
            assert getattr(sample, name) == row[name]


def test_D_51_a_summary_says_what_a_block_was() -> None:
    """D-51: names with commas in them stay apart."""
    row = block_to_summary(block(channels=("a,b", "c"), units={"c": "V"}))
    assert row["channels"] == '["a,b", "c"]'
    assert row["units"] == '{"c": "V"}'
    assert (row["block_index"], row["samples_per_channel"]) == (10, 3)
    assert row["t_utc"] == T0.isoformat()
