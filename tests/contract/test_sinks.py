"""One suite over every record sink, rows D-01 to D-09, D-43 and what else all share."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import itertools
import json
import logging
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from bluesky_beamtime.database.replica import PostgresTestServer
from bluesky_beamtime.errors import (
    SinkError,
    SinkSchemaError,
    SinkStateError,
    SinkWriteError,
)
from bluesky_beamtime.sinks import (
    BlockSink,
    CsvSink,
    DaqBlock,
    DaqReading,
    InMemorySink,
    JsonlSink,
    ParquetSink,
    PostgresConfig,
    PostgresSink,
    RawBlockSink,
    RawCountsSink,
    ReadingSink,
    SqliteSink,
    block_to_rows,
    reading_to_row,
)

T0 = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
TIMES = ("t_utc", "requested_at", "received_at")


def make_reading(number: int = 0, **changes: Any) -> DaqReading:
    given: dict[str, Any] = {
        "device": "daq",
        "task": "scan",
        "values": {"volt": 0.1 * number, "count": number, "on": number % 2 == 0},
        "units": {"volt": "V", "count": None},
        "t_mono_ns": 1_000_000_000_000_000_000 + number,
        "t_utc": T0 + timedelta(seconds=number),
        "t_midpoint_mono_ns": 999 + number,
        "requested_at": T0 + timedelta(seconds=number),
        "received_at": T0 + timedelta(seconds=number, milliseconds=2),
        "latency_s": 0.002,
    }
    return DaqReading(**{**given, **changes})


def make_block(number: int = 0, **changes: Any) -> DaqBlock:
    codes = np.arange(6, dtype="i2").reshape(2, 3) + 10 * number
    given: dict[str, Any] = {
        "device": "daq",
        "task": "fly",
        "channels": ("a", "b"),
        "data": codes * 0.5,
        "raw_codes": codes,
        "block_index": number,
        "first_sample_index": 3 * number,
        "sample_rate_hz": 1000.0,
        "block_period_ns": 1_000_000,
        "t_mono_ns": 5_000_000_000 + 3_000_000 * number,
        "t_utc": T0 + timedelta(milliseconds=3 * number),
        "units": {"a": "V", "b": "A"},
    }
    return DaqBlock(**{**given, **changes})


# ------------------------------------------------------------------------ the sinks


@dataclasses.dataclass
class Kind:
    """A kind of sink: how to make one, and how to read back what it wrote."""

    make: Callable[..., Any]
    rows: Callable[[Any], list[dict[str, Any]]]
    """Rows with every column; absent values are None; times are datetimes."""
    blocks: Callable[[Any], Any] | None = None
    file: bool = True


def _typed(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"": None, "True": True, "False": False}.get(text, text)


def _with_times(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: datetime.fromisoformat(value)
        if key in TIMES and isinstance(value, str)
        else value
        for key, value in row.items()
    }


def csv_rows(sink: Any) -> list[dict[str, Any]]:
    with open(sink.path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        _with_times(
            {
                key: value if key in TIMES else _typed(value)
                for key, value in row.items()
            }
        )
        for row in rows
    ]


def jsonl_rows(sink: Any) -> list[dict[str, Any]]:
    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    def restore(value: Any) -> Any:
        return float(value["$float"]) if isinstance(value, dict) else value

    lines = sink.path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [
        _with_times({name: restore(row.get(name)) for name in names}) for row in rows
    ]


def memory_rows(sink: Any) -> list[dict[str, Any]]:
    rows = [reading_to_row(reading) for reading in sink.readings]
    rows += [row for block in sink.blocks for row in block_to_rows(block)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [_with_times({name: row.get(name) for name in names}) for row in rows]


def sqlite_rows(sink: Any) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(sink.path)) as database:
        database.row_factory = sqlite3.Row
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        table = "samples" if "samples" in names else "readings"
        rows = database.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
    return [_with_times(dict(row)) for row in rows]


def parquet_rows(sink: Any) -> list[dict[str, Any]]:
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(sink.path).to_pylist()
    return [{key: _restored(value) for key, value in row.items()} for row in rows]


def _restored(value: Any) -> Any:
    # A column that had to become text says each number in full.
    return _typed(value) if isinstance(value, str) else value


TABLES: dict[str, Kind] = {
    "sqlite": Kind(lambda path, **o: SqliteSink(path / "x.db", **o), sqlite_rows),
    "parquet": Kind(
        lambda path, **o: ParquetSink(path / "x.parquet", **o), parquet_rows
    ),
    "csv": Kind(lambda path, **o: CsvSink(path / "x.csv", **o), csv_rows),
    "jsonl": Kind(lambda path, **o: JsonlSink(path / "x.jsonl", **o), jsonl_rows),
}
READING: dict[str, Kind] = {
    **TABLES,
    "memory": Kind(lambda path, **o: InMemorySink(), memory_rows, file=False),
}
DATABASES = ("sqlite", "postgres")
BLOCK_OPTIONS: dict[str, dict[str, Any]] = {
    "csv": {"accept_blocks": True},
    "jsonl": {"accept_blocks": True},
    "sqlite": {"samples": True},
    "postgres": {"samples": True},
}


_schemas = itertools.count()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresTestServer) -> str:
    pytest.importorskip("asyncpg", reason="the extra postgres is not installed")
    return postgres_server.create_database("sinks")


@pytest.fixture
def postgres(postgres_url: str) -> Kind:
    """Tables in a schema of their own."""
    schema = f"s{next(_schemas)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")

    def make(path: Path, *, append: bool = True, **options: Any) -> PostgresSink:
        config = PostgresConfig(dsn=postgres_url, schema=schema, create_tables=True)
        return PostgresSink(config, **options)

    def rows(sink: PostgresSink) -> list[dict[str, Any]]:
        with psycopg.connect(postgres_url) as connection:
            table = "samples" if sink._samples else "readings"
            cursor = connection.execute(f"SELECT * FROM {schema}.{table}")
            names = [column.name for column in cursor.description or ()]
            return [
                {name: _restored(value) for name, value in zip(names, row, strict=True)}
                for row in cursor.fetchall()
            ]

    return Kind(make, rows)


def _kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "postgres":
        return request.getfixturevalue("postgres")
    return READING[request.param]


@pytest.fixture(params=sorted([*READING, "postgres"]))
def kind(request: pytest.FixtureRequest) -> Kind:
    return _kind(request)


@pytest.fixture(params=sorted([*TABLES, "postgres"]))
def table(request: pytest.FixtureRequest) -> Kind:
    return _kind(request)


@pytest.fixture(params=sorted(TABLES))
def file(request: pytest.FixtureRequest) -> Kind:
    """Give a kind of sink that writes a file."""
    return TABLES[request.param]


def expected(readings: list[DaqReading]) -> list[dict[str, Any]]:
    rows = [reading_to_row(reading) for reading in readings]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [_with_times({name: row.get(name) for name in names}) for row in rows]


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    return [list(row) for row in found] == [list(row) for row in wanted] and all(
        a == b or (a != a and b != b)
        for row, other in zip(found, wanted, strict=True)
        for a, b in zip(row.values(), other.values(), strict=True)
    )


# ----------------------------------------------------------------------- life


def test_D_01_every_sink_has_the_protocols_of_what_it_takes(tmp_path: Path) -> None:
    """D-01: readings, blocks and raw codes are three protocols, checkable at run."""
    for kind in READING.values():
        assert isinstance(kind.make(tmp_path), ReadingSink)
    for name in READING:
        assert isinstance(READING[name].make(tmp_path), BlockSink)
    raw = RawCountsSink(tmp_path / "x.dt-raw")
    assert isinstance(raw, RawBlockSink)
    assert not isinstance(raw, BlockSink | ReadingSink)
    assert not isinstance(CsvSink(tmp_path / "y"), RawBlockSink)


async def test_D_02_async_with_opens_and_closes_also_after_an_exception(
    kind: Kind, tmp_path: Path
) -> None:
    """D-02: the exception goes through, what was written stays."""
    sink = kind.make(tmp_path)
    with pytest.raises(ZeroDivisionError):
        async with sink as inside:
            assert inside is sink
            assert sink.is_open
            await sink.write_many([make_reading(1)])
            raise ZeroDivisionError
    assert not sink.is_open
    assert same(kind.rows(sink), expected([make_reading(1)]))


async def test_D_03_close_twice_or_before_open_is_nothing(
    kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D-03: and one close is logged, not two."""
    caplog.set_level(logging.INFO)
    sink = kind.make(tmp_path)
    await sink.close()
    await sink.open()
    await sink.close()
    await sink.close()
    closes = [r for r in caplog.records if r.message.endswith(".close")]
    assert len(closes) == (1 if kind.file else 0)


async def test_D_04_open_twice_is_nothing(kind: Kind, tmp_path: Path) -> None:
    """D-04: what was written before the second open is still there."""
    sink = kind.make(tmp_path)
    await sink.open()
    await sink.write_many([make_reading(1)])
    await sink.open()
    await sink.write_many([make_reading(2)])
    await sink.close()
    assert same(kind.rows(sink), expected([make_reading(1), make_reading(2)]))


async def test_D_27_D_41_open_after_close_goes_on_after_what_is_there(
    kind: Kind, tmp_path: Path
) -> None:
    """D-27, D-41, D-69: with one header, in the same columns, nothing lost."""
    sink = kind.make(tmp_path)
    for number in range(3):
        async with sink:
            await sink.write_many([make_reading(number)])
    assert same(kind.rows(sink), expected([make_reading(n) for n in range(3)]))


async def test_D_25_D_39_D_52_D_65_D_70_use_before_open_or_after_close_is_refused(
    kind: Kind, tmp_path: Path
) -> None:
    """D-25, D-30, D-39, D-52, D-65, D-70: a RuntimeError of the tree, with records."""
    sink = kind.make(tmp_path)
    reading = make_reading()
    with pytest.raises(SinkStateError, match="write_many called before open") as caught:
        await sink.write_many([reading])
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, SinkError)
    assert caught.value.records == [reading]
    assert caught.value.context.operation == f"{type(sink).__name__}.write_many"
    async with sink:
        pass
    with pytest.raises(SinkStateError, match="after close"):
        await sink.write_many([reading])
    with pytest.raises(SinkStateError):
        await sink.flush()


async def test_D_22_a_file_that_is_there_is_refused_unless_somebody_says_so(
    file: Kind, tmp_path: Path
) -> None:
    """D-22: append goes on after it, overwrite begins anew; never by accident."""
    async with file.make(tmp_path) as sink:
        await sink.write_many([make_reading(1)])
    before = sink.path.read_bytes()
    with pytest.raises(SinkWriteError, match="append=True") as caught:
        await file.make(tmp_path).open()
    assert caught.value.filename == str(sink.path)
    assert sink.path.read_bytes() == before
    async with file.make(tmp_path, append=True) as sink:
        await sink.write_many([make_reading(2)])
    assert same(file.rows(sink), expected([make_reading(1), make_reading(2)]))
    async with file.make(tmp_path, overwrite=True) as sink:
        await sink.write_many([make_reading(3)])
    assert same(file.rows(sink), expected([make_reading(3)]))
    with pytest.raises(ValueError, match="choose one"):
        file.make(tmp_path, append=True, overwrite=True)


async def test_D_22_the_folder_is_made(file: Kind, tmp_path: Path) -> None:
    """D-22: and what cannot be made is an error of the tree."""
    async with file.make(tmp_path / "new" / "deep") as sink:
        await sink.write_many([make_reading()])
    assert len(file.rows(sink)) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkWriteError) as caught:
        await file.make(tmp_path / "file" / "deep").open()
    assert isinstance(caught.value, OSError)
    assert caught.value.context.operation.endswith(".open")


# ------------------------------------------------------------------------ rows


async def test_D_09_every_table_has_the_same_rows(kind: Kind, tmp_path: Path) -> None:
    """D-07, D-08, D-09: names, their order and every value are reading_to_row's."""
    readings = [make_reading(number) for number in range(200)]
    readings.append(
        make_reading(
            7,
            values={"volt": 1e-300, "count": 2**53 + 1, "on": False},
            error=ValueError('sensor, "open"\nline 2'),
        )
    )
    async with kind.make(tmp_path) as sink:
        await sink.write_many(readings[:100])
        await sink.write_many(readings[100:])
    assert same(kind.rows(sink), expected(readings))


async def test_D_40_an_empty_batch_is_nothing(kind: Kind, tmp_path: Path) -> None:
    """D-40: it does not even fix the columns."""
    async with kind.make(tmp_path) as sink:
        await sink.write_many([])
        if kind.file:
            assert sink.columns is None
        await sink.write_many([make_reading()])
        if kind.file:
            assert sink.columns == tuple(reading_to_row(make_reading()))
    assert len(kind.rows(sink)) == 1


WIDER = make_reading(1, values={"volt": 1.0, "new": 5, "count": 2, "on": True})
NARROW = make_reading(2, values={"volt": 3.0})


async def test_D_43_new_columns_are_added(table: Kind, tmp_path: Path) -> None:
    """D-43, D-26: by default nothing is lost, and what is not there is None."""
    readings = [make_reading(0), WIDER, NARROW]
    async with table.make(tmp_path) as sink:
        for reading in readings:
            await sink.write_many([reading])
    assert same(table.rows(sink), expected(readings))
    assert [row["new"] for row in table.rows(sink)] == [None, 5, None]


async def test_D_43_within_one_batch_too(table: Kind, tmp_path: Path) -> None:
    """D-43, D-26: each value stands under its own name."""
    readings = [make_reading(0), WIDER, NARROW, make_reading(3)]
    async with table.make(tmp_path) as sink:
        await sink.write_many(readings)
    assert same(table.rows(sink), expected(readings))


async def test_D_43_drop_leaves_out_with_one_warning(
    table: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D-43: one warning per column, however often it comes."""
    readings = [make_reading(0), WIDER, WIDER, NARROW]
    async with table.make(tmp_path, schema="drop") as sink:
        for reading in readings:
            await sink.write_many([reading])
    rows = expected(readings)
    for row in rows:
        del row["new"]
    assert same(table.rows(sink), rows)
    warned = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.__dict__["column"] for r in warned] == ["new"]


async def test_D_43_raise_refuses_the_batch(table: Kind, tmp_path: Path) -> None:
    """D-43: nothing of it is written, the error carries it, the sink stays good."""
    async with table.make(tmp_path, schema="raise") as sink:
        await sink.write_many([make_reading(0)])
        with pytest.raises(SinkSchemaError, match="'new'") as caught:
            await sink.write_many([make_reading(5), WIDER])
        assert caught.value.records == [make_reading(5), WIDER]
        assert isinstance(caught.value, ValueError)
        await sink.write_many([NARROW])
    wanted = expected([make_reading(0), NARROW])
    assert same(table.rows(sink), wanted)
    with pytest.raises(ValueError, match="evolve"):
        table.make(tmp_path, schema="anything")


def of_two_devices(number: int) -> list[DaqReading]:
    """Return what an event of a detector and a motor becomes."""
    units = {"position": "mm"}
    values = {"position": number / 4}
    return [
        make_reading(number),
        make_reading(number, device="motor", values=values, units=units),
    ]


@pytest.mark.parametrize("schema", ["drop", "raise"])
async def test_D_43_the_first_call_fixes_the_columns_of_all_its_readings(
    table: Kind, tmp_path: Path, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """D-43: of each device; what comes later has no more, also after reopening."""
    async with table.make(tmp_path, schema=schema) as sink:
        await sink.write_many(of_two_devices(0))
        await sink.write_many(of_two_devices(1)[::-1])
    async with table.make(tmp_path, schema=schema, append=True) as sink:
        await sink.write_many([*of_two_devices(2), *of_two_devices(3)])
        if schema == "raise":
            with pytest.raises(SinkSchemaError, match="'new'"):
                await sink.write_many([WIDER])
        else:
            await sink.write_many([WIDER])
    readings = [
        *of_two_devices(0),
        *of_two_devices(1)[::-1],
        *of_two_devices(2),
        *of_two_devices(3),
    ]
    rows = expected([*readings, WIDER] if schema == "drop" else readings)
    for row in rows:
        row.pop("new", None)
    assert same(table.rows(sink), rows)
    warned = [r.__dict__["column"] for r in caplog.records if r.levelname == "WARNING"]
    assert warned == (["new"] if schema == "drop" else [])


@pytest.mark.parametrize("schema", ["drop", "raise"])
async def test_D_43_the_first_call_fits_its_own_columns(
    table: Kind, tmp_path: Path, schema: str
) -> None:
    """D-43, D-44: whatever types its values have, the last of them included."""
    values = [None, *range(200), 0.5]
    readings = [
        make_reading(n, device=device, values={"x": value}, units={})
        for device in ("a", "b")
        for n, value in enumerate(values)
    ]
    async with table.make(tmp_path, schema=schema) as sink:
        await sink.write_many(readings)
    assert [row["x"] for row in table.rows(sink)] == values * 2


async def test_D_43_columns_have_one_order_however_the_calls_are_cut(
    table: Kind, tmp_path: Path
) -> None:
    """D-43: so that a live table is that of an export, which cuts elsewhere."""
    readings = [r for number in range(3) for r in of_two_devices(number)]
    async with table.make(tmp_path) as sink:
        for reading in readings[:3]:
            await sink.write_many([reading])
        await sink.write_many(readings[3:])
    assert same(table.rows(sink), expected(readings))
    columns = sink.columns
    async with table.make(tmp_path / "other") as sink:
        await sink.write_many(readings)
    assert sink.columns == columns


async def test_D_07_channels_named_like_columns_overwrite_nothing(
    kind: Kind, tmp_path: Path
) -> None:
    """D-07, D-46, D-63: names of columns, of units, of nothing, and hostile ones."""
    names = [
        "device",
        "T_UTC",
        "x",
        "x_unit",
        "channel_device",
        "unit",
        "channel_unit",
        "channel_unit_",
        "UNITS",
        "error_type",
        "metadata",
        "",
        'a"; DROP TABLE readings; --',
        "komma, ; '\n",
        "größe 💎",
        "T",
        "t",
    ]
    reading = make_reading(
        3,
        values={name: number + 0.5 for number, name in enumerate(names)},
        units={"x": "mm", "device": "K", "unit": "s"},
    )
    async with kind.make(tmp_path) as sink:
        await sink.write_many([reading])
        await sink.write_many([reading])
    for row in kind.rows(sink):
        values = [v for v in row.values() if isinstance(v, float) and v != 0.002]
        assert values == [number + 0.5 for number in range(len(names))]
        assert (row["device"], row["x_unit"]) == ("daq", "mm")
        assert row["channel_device_unit"] == "K"
        assert (row["channel_unit_"], row["channel_unit__unit"]) == (5.5, "s")
        assert row["t_utc"] == reading.t_utc
        assert row["error_type"] is None


async def test_names_that_differ_in_case_stay_two_after_reopening(
    table: Kind, tmp_path: Path
) -> None:
    """D-43, D-53: the columns come from the table, not from the batch."""
    both = make_reading(0, values={"T": 1, "t": 2}, units={})
    async with table.make(tmp_path) as sink:
        await sink.write_many([both])
    async with table.make(tmp_path, append=True) as sink:
        await sink.write_many([make_reading(1, values={"t": 3}, units={})])
        await sink.write_many([both])
    rows = [(row["T"], row["t_2"]) for row in table.rows(sink)]
    assert rows == [(1, 2), (None, 3), (1, 2)]


async def test_status_and_metadata_are_kept(kind: Kind, tmp_path: Path) -> None:
    """D-07: as JSON text, in columns that come with them."""
    reading = make_reading(
        0,
        sensor_status={"volt": "sensor_open"},
        metadata={"run": "ü", "limit": float("inf")},
    )
    async with kind.make(tmp_path) as sink:
        await sink.write_many([make_reading(1), reading])
    plain, full = kind.rows(sink)
    assert plain["metadata"] is None
    assert json.loads(full["sensor_status"]) == {"volt": "sensor_open"}
    assert json.loads(full["metadata"]) == {"run": "ü", "limit": {"$float": "inf"}}


class Stamp(datetime):
    """A time of another class, as those of pandas are; it says itself otherwise."""

    nanosecond = 789

    def isoformat(self, *args: Any, **kwargs: Any) -> str:
        return f"{super().isoformat(*args, **kwargs)}789"


def stamps(moment: datetime) -> list[datetime]:
    """Return a time as one of other classes."""
    import pandas as pd

    east = timezone(timedelta(hours=2))
    stamp = Stamp.fromtimestamp(moment.timestamp(), UTC)
    stamped = pd.Timestamp(moment).as_unit("ns") + pd.Timedelta(789, "ns")
    return [stamp, stamp.astimezone(east), stamped, stamped.tz_convert("Europe/Berlin")]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("first", [True, False])
async def test_D_05_times_of_another_class_are_plain_times(
    kind: Kind, tmp_path: Path, which: int, first: bool, request: pytest.FixtureRequest
) -> None:
    """D-05, D-07, D-61: a column of times stays one, in microseconds."""
    pytest.importorskip("pandas")
    stamp = stamps(T0)[which]
    given = [
        make_reading(
            0,
            values={"seen": each},
            units={},
            t_utc=each,
            requested_at=each,
            received_at=each,
        )
        for each in (stamp, T0)
    ]
    times = [given[0].values["seen"], *(getattr(given[0], name) for name in TIMES)]
    assert [type(each) for each in times] == [datetime] * 4
    assert {each.isoformat() for each in times} == {T0.isoformat()}
    readings = given if first else given[::-1]
    async with kind.make(tmp_path) as sink:
        for reading in readings:
            await sink.write_many([reading])
    rows = kind.rows(sink)
    typed = request.node.callspec.params["kind"] in ("parquet", "postgres")
    assert [row["seen"] for row in rows] == [T0 if typed else T0.isoformat()] * 2
    assert [[row[name] for name in TIMES] for row in rows] == [[T0] * 3] * 2
    block = make_block(t_utc=stamp, read_started_at=stamp, read_finished_at=stamp)
    assert type(block.t_utc) is type(block.read_started_at) is datetime


HALF, ZEROS = "\ud83d cut", "EPICS\0\0"


async def test_D_63_text_that_is_no_utf_8_is_kept_as_its_escape(
    kind: Kind, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """D-07, D-49, D-63: wherever it stands; a beamtime holds it, and its exports too.

    A zero in a text becomes a sign where it cannot be stored.
    """
    odd = make_reading(
        1,
        device=f"d{HALF}",
        task=f"t{HALF}",
        values={"text": HALF, "zeros": ZEROS, f"x{HALF}": 2**70},
        units={"text": HALF},
        error=ValueError(f"e{HALF}"),
        sensor_status={"text": HALF},
        metadata={HALF: [HALF, {"deep": HALF}]},
    )
    others = [make_reading(n, values={"text": "ü"}, units={}) for n in (0, 2, 3)]
    async with kind.make(tmp_path) as sink:
        await sink.write_many([others[0], odd, others[1]])
        await sink.write_many(others[2:])
    rows = kind.rows(sink)
    wanted = expected([others[0], odd, *others[1:]])
    if kind.file:
        server = request.node.callspec.params["kind"] == "postgres"
        wanted = [{k: stored(v, server) for k, v in row.items()} for row in wanted]
        assert "\\ud83d cut" in [row["text"] for row in rows]
    else:
        assert sink.readings[1] is odd
    assert "x\\ud83d cut" in rows[0]
    assert [list(map(str, row.values())) for row in rows] == [
        list(map(str, row.values())) for row in wanted
    ]


def stored(value: Any, server: bool) -> Any:
    if not isinstance(value, str):
        return value
    text = value.encode(errors="backslashreplace").decode()
    return text.replace("\0", "\u2400") if server else text


async def test_D_63_text_of_a_block_that_is_no_utf_8_is_kept_as_its_escape(
    kind: Kind, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """D-10, D-63: names of channels and units as well."""
    name = request.node.callspec.params["kind"]
    block = make_block(
        device=HALF,
        task=f"t{HALF}",
        channels=(HALF, "b"),
        units={HALF: HALF, "b": "A"},
        error=ValueError(HALF),
    )
    async with kind.make(tmp_path, **BLOCK_OPTIONS.get(name, {})) as sink:
        await sink.write(block)
    rows = [_with_times(row) for row in block_to_rows(block)]
    if kind.file:
        rows = [{k: stored(v, server=False) for k, v in row.items()} for row in rows]
    assert same(kind.rows(sink), rows)


async def test_D_44_integers_then_floats_lose_nothing(
    table: Kind, tmp_path: Path
) -> None:
    """D-44: also where the first batch has None alone, or text comes last."""
    values = [None, 1, 2.5, 2**53 + 1, -(2**62)]
    readings = [
        make_reading(n, values={"x": value}, units={}) for n, value in enumerate(values)
    ]
    async with table.make(tmp_path) as sink:
        for reading in readings[:2]:
            await sink.write_many([reading])
        await sink.write_many(readings[2:])
    found = [row["x"] for row in table.rows(sink)]
    assert [
        None if v is None else type(v)(f) for v, f in zip(values, found, strict=True)
    ] == values


async def test_nan_and_infinities_are_no_surprise(table: Kind, tmp_path: Path) -> None:
    """D-29: NaN is NaN, or None where the format has no NaN; infinities are kept."""
    readings = [
        make_reading(n, values={"x": value}, units={})
        for n, value in enumerate([math.nan, math.inf, -math.inf, -0.0])
    ]
    async with table.make(tmp_path) as sink:
        await sink.write_many(readings)
    found = [row["x"] for row in table.rows(sink)]
    assert found[0] is None or math.isnan(found[0])
    assert found[1:3] == [math.inf, -math.inf]
    assert math.copysign(1, found[3]) == -1


async def test_D_49_D_64_calls_from_several_tasks_are_whole_and_none_is_lost(
    kind: Kind, tmp_path: Path
) -> None:
    """D-49, D-64: concurrent writes never meet inside of the sink."""
    async with kind.make(tmp_path) as sink:
        await asyncio.gather(
            *(
                sink.write_many([make_reading(10 * task + n) for n in range(10)])
                for task in range(20)
            )
        )
    counts = [row["count"] for row in kind.rows(sink)]
    # In the order of the calls, which is that of the tasks.
    assert counts == list(range(200))


async def test_D_48_the_event_loop_goes_on_during_a_write(
    table: Kind, tmp_path: Path
) -> None:
    """D-48: other tasks have their turn while a large batch is written."""
    readings = [make_reading(number) for number in range(20_000)]
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with table.make(tmp_path) as sink:
        counting = asyncio.create_task(count())
        await sink.write_many(readings)
        counting.cancel()
    assert turns > 20


async def test_D_83_log_lines_have_names_and_fields(
    table: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D-83: sinks.<kind>.<event>, what and how much in extra fields."""
    caplog.set_level(logging.INFO)
    async with table.make(tmp_path) as sink:
        await sink.write_many([make_reading(0), make_reading(1)])
    lines = {record.message: record.__dict__ for record in caplog.records}
    assert set(lines) >= {f"sinks.{sink.kind}.open", f"sinks.{sink.kind}.close"}
    close = lines[f"sinks.{sink.kind}.close"]
    assert close["target"] == sink.target
    assert close["rows_written"] == 2


# ---------------------------------------------------------------------- blocks


async def test_D_24_D_31_blocks_become_the_rows_of_block_to_rows(
    kind: Kind, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """D-10, D-24, D-31, D-35: each sample of each channel, in order, exact."""
    name = request.node.callspec.params["kind"]
    blocks = [make_block(number) for number in range(3)]
    async with kind.make(tmp_path, **BLOCK_OPTIONS.get(name, {})) as sink:
        for block in blocks:
            await sink.write(block)
    rows = [_with_times(row) for block in blocks for row in block_to_rows(block)]
    assert same(kind.rows(sink), rows)


async def test_D_37_readings_and_blocks_are_not_mixed_in_one_table(
    table: Kind, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """D-24, D-37: refused, with what was there intact; also after reopening."""
    name = request.node.callspec.params["table"]
    if name in DATABASES:
        return  # They have a table for each.
    options = BLOCK_OPTIONS.get(name, {})
    async with table.make(tmp_path, **options) as sink:
        await sink.write(make_block())
        with pytest.raises(SinkSchemaError, match="blocks"):
            await sink.write_many([make_reading()])
    async with table.make(tmp_path, append=True, **options) as sink:
        with pytest.raises(SinkSchemaError, match="blocks"):
            await sink.write_many([make_reading()])
    assert len(table.rows(sink)) == 6
