"""What goes into a sink comes out of its file: names, values and types, by stock tools.

Each kind of file is read by a library that is none of ours, and compared with what the
readings had in them.
"""

from __future__ import annotations

import asyncio
import csv
import enum
import json
import math
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bluesky_beamtime.sinks import (
    CsvSink,
    DaqBlock,
    DaqReading,
    JsonlSink,
    ParquetSink,
    SqliteSink,
    reading_to_row,
)

Row = dict[str, Any]
T0 = datetime(2026, 11, 21, 12, tzinfo=UTC)

# Halves of surrogate pairs too, as devices cut texts.
texts = st.text(max_size=8)
# Those that would be numbered are in the contract of the sinks.
names = texts.filter(lambda name: "\0" not in name and not name[-1:].isdigit())
moments = st.datetimes(
    datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)
)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -(2**63) - 1]),
    st.floats(),
    texts,
    moments,
)


@st.composite
def batches(draw: Any) -> list[list[DaqReading]]:
    channels = draw(
        st.lists(names, min_size=1, max_size=4, unique_by=lambda name: name.casefold())
    )
    units = st.dictionaries(st.sampled_from(channels), st.none() | texts)
    reading = st.builds(
        DaqReading,
        device=texts,
        task=st.none() | texts,
        values=st.dictionaries(st.sampled_from(channels), values),
        units=units,
        t_mono_ns=st.none() | st.integers(-(2**63), 2**63 - 1),
        t_utc=moments,
        latency_s=st.none() | st.floats(allow_nan=False),
        metadata=st.dictionaries(texts, st.floats() | texts, max_size=1),
    )
    return draw(st.lists(st.lists(reading, min_size=1, max_size=3), max_size=4))


def as_text(value: Any) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def csv_rows(path: Path) -> list[Row]:
    limit = csv.field_size_limit()
    with path.open(encoding="utf-8", newline="") as file:
        assert limit == csv.field_size_limit(), "the limit is the whole process's"
        return list(csv.DictReader(file))


def same_in_csv(found: Any, value: Any) -> bool:
    return found == as_text(value)


def json_rows(path: Path) -> list[Row]:
    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    return [json.loads(line, parse_constant=refuse) for line in lines]


def same_in_json(found: Any, value: Any) -> bool:
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return found == {"$float": str(value)}
    return type(found) is type(value) and found == value


def sqlite_rows(path: Path) -> list[Row]:
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        found = database.execute("SELECT * FROM readings ORDER BY rowid").fetchall()
    return [dict(row) for row in found]


def same_in_sqlite(found: Any, value: Any) -> bool:
    if isinstance(value, float) and math.isnan(value):
        return found is None
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        value = str(value)
    return type(found) is type(value) and found == value


def parquet_rows(path: Path) -> list[Row]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def same_in_parquet(found: Any, value: Any) -> bool:
    if isinstance(found, str) and isinstance(value, (int, float)):
        # Its column holds values that no one type has: all of them say it in full.
        return found == str(value) or same_number(json.loads(as_json(found)), value)
    if isinstance(found, str):
        return found == as_text(value)
    if isinstance(value, (int, float)):
        return same_number(found, value)
    return type(found) is type(value) and found == value


def as_json(number: str) -> str:
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(number, number)


def same_number(found: Any, value: Any) -> bool:
    return isinstance(found, (int, float)) and (
        found == value or (found != found and value != value)
    )


FILES: dict[str, tuple[Any, Callable[[Path], list[Row]], Callable[..., bool]]] = {
    "csv": (CsvSink, csv_rows, same_in_csv),
    "jsonl": (JsonlSink, json_rows, same_in_json),
    "sqlite": (SqliteSink, sqlite_rows, same_in_sqlite),
    "parquet": (ParquetSink, parquet_rows, same_in_parquet),
}
TIMES = ("t_utc", "requested_at", "received_at")


def expected(readings: list[DaqReading]) -> list[Row]:
    """Return the rows, with times as times."""
    rows = [reading_to_row(reading) for reading in readings]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [
        {
            name: datetime.fromisoformat(row[name])
            if name in TIMES and row.get(name)
            else in_utf8(row.get(name))
            for name in columns
        }
        for row in rows
    ]


def in_utf8(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    return value


def typed(readings: list[DaqReading]) -> list[Row]:
    """Return the rows, channels of times as times too."""
    rows = expected(readings)
    for row, reading in zip(rows, readings, strict=True):
        given_rows = reading_to_row(
            DaqReading(
                device="",
                values={channel: n for n, channel in enumerate(reading.values)},
            )
        )
        places = {n: name for name, n in given_rows.items() if type(n) is int}
        for number, value in enumerate(reading.values.values()):
            if isinstance(value, datetime):
                row[places[number]] = value
    return rows


def write(kind: Any, path: Path, given_batches: list[list[DaqReading]]) -> None:
    async def main() -> None:
        half = len(given_batches) // 2
        for part in (given_batches[:half], given_batches[half:]):
            async with kind(path, append=True) as sink:
                for batch in part:
                    await sink.write_many(batch)

    asyncio.run(main())


@pytest.mark.parametrize("kind", sorted(FILES))
@given(given_batches=batches())
@settings(max_examples=25)
@example([[DaqReading(device="\udfff", values={"\ud800": "\ud800\n"}, t_utc=T0)]])
@example([[DaqReading(device="\r", values={"\r\n": "\r", "": 1}, t_utc=T0)]])
@example([[DaqReading(device="", values={'a"; DROP': -0.0, "'": 2**63}, t_utc=T0)]])
def test_D_09_every_value_comes_back_under_its_name(
    kind: str, given_batches: list[list[DaqReading]]
) -> None:
    """D-07, D-09, D-44, D-50: whatever the names, the types and their changes are."""
    make, read, same = FILES[kind]
    readings = [reading for batch in given_batches for reading in batch]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        write(make, path, given_batches)
        if not readings:
            return
        found = read(path)
    wanted = typed(readings)
    assert len(found) == len(wanted)
    columns = list(dict.fromkeys(name for row in wanted for name in row))
    assert list(dict.fromkeys(name for row in found for name in row)) == columns
    for row, other in zip(found, wanted, strict=True):
        for name in columns:
            if name in row or other[name] is not None:
                assert same(row[name], other[name]), (name, row[name], other[name])


@pytest.mark.parametrize("kind", sorted(FILES))
async def test_D_05_members_of_enums_are_their_values(
    kind: str, tmp_path: Path
) -> None:
    """D-05, D-09: devices give them, and every sink called them otherwise."""

    class Mode(str, enum.Enum):  # noqa: UP042 - as drivers have them
        FAST = "Fast mode"

    class Gain(int, enum.Enum):
        HIGH = 3

    class Ratio(float, enum.Enum):
        HALF = 0.5

    given_values = {"mode": Mode.FAST, "gain": Gain.HIGH, "ratio": Ratio.HALF}
    reading = DaqReading(device="d", values=given_values)
    assert [type(value) for value in reading.values.values()] == [str, int, float]
    make, read, same = FILES[kind]
    async with make(tmp_path / "x") as sink:
        await sink.write_many([reading])
    (row,) = read(tmp_path / "x")
    for name, value in (("mode", "Fast mode"), ("gain", 3), ("ratio", 0.5)):
        assert same(row[name], value)


@pytest.mark.parametrize("kind", sorted(FILES))
async def test_D_05_numbers_of_numpy_stand_where_pythons_do(
    kind: str, tmp_path: Path
) -> None:
    """D-05: drivers count and time with NumPy; a row does not tell."""
    reading = DaqReading(
        device="d",
        values={"x": np.float32(0.1), "n": np.uint64(2**64 - 1), "on": np.True_},
        t_mono_ns=np.int64(5),  # type: ignore[arg-type]
        t_midpoint_mono_ns=np.uint8(7),  # type: ignore[arg-type]
        latency_s=np.float32(0.5),  # type: ignore[arg-type]
    )
    assert (reading.t_mono_ns, reading.latency_s) == (5, 0.5)
    make, read, same = FILES[kind]
    async with make(tmp_path / "x") as sink:
        await sink.write_many([reading])
    (row,) = read(tmp_path / "x")
    found = {**reading.values, "t_mono_ns": 5, "t_midpoint_mono_ns": 7}
    for name, value in found.items():
        assert same(row[name], value), name


def test_D_05_what_is_no_number_of_nanoseconds_is_refused() -> None:
    """D-05, D-06: at once, not in a sink's thread."""
    with pytest.raises(TypeError):
        DaqReading(device="d", t_mono_ns=0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="called by a text"):
        DaqReading(device="d", values={1: 2.0})  # type: ignore[dict-item]
    for value in (b"bytes", [1], {"a": 1}, np.zeros(2)):
        with pytest.raises(TypeError, match=r"'x'.*DaqBlock"):
            DaqReading(device="d", values={"x": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("kind", sorted(FILES))
async def test_D_07_times_of_every_zone_are_in_one(kind: str, tmp_path: Path) -> None:
    """D-05, D-07: a column called t_utc is in UTC, so that its text can be sorted."""
    zone = timezone(timedelta(hours=2))
    there = datetime(2026, 11, 21, 14, 0, 0, 500, tzinfo=zone)
    reading = DaqReading(
        device="d", values={"seen": there}, t_utc=there, received_at=there
    )
    assert reading.t_utc == there
    assert reading.t_utc.tzinfo is UTC
    make, read, _ = FILES[kind]
    async with make(tmp_path / "x") as sink:
        await sink.write_many([reading])
    (row,) = read(tmp_path / "x")
    for name in ("t_utc", "received_at", "seen"):
        text = as_text(row[name])
        assert text in ("2026-11-21T12:00:00.000500+00:00", as_text(reading.t_utc))
    with pytest.raises(ValueError, match=r"channel 'seen'=.*time zone"):
        DaqReading(device="d", values={"seen": datetime(2026, 1, 1)})
    block = DaqBlock(device="d", channels=(), data=np.empty((0, 3)), t_utc=there)
    assert block.t_utc.isoformat() == "2026-11-21T12:00:00.000500+00:00"
