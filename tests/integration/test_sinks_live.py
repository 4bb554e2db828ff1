"""Sinks behind a RunEngine, and exports from the database: the same records."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from ophyd.sim import SynAxis, SynGauss
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimDigitizer
from bluesky_beamtime.errors import SinkError, SinkWriteError
from bluesky_beamtime.plans import fly_frames
from bluesky_beamtime.sinks import (
    CsvSink,
    DaqBlock,
    DaqReading,
    DocumentRecords,
    InMemorySink,
    ParquetSink,
    RawCountsSink,
    SinkSubscriber,
    SqliteSink,
    pipe,
    pipe_blocks,
    reading_to_row,
)
from bluesky_beamtime.storage import FrameStore


@pytest.fixture
def beamtime(tmp_path: Path) -> Iterator[Beamtime]:
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime


@pytest.fixture
def devices() -> tuple[Any, Any]:
    motor = SynAxis(name="motor")
    return SynGauss("det", motor, "motor", center=0, Imax=5, sigma=1), motor


@pytest.fixture
def subscribe(RE: Any) -> Iterator[Callable[..., SinkSubscriber]]:
    made: list[SinkSubscriber] = []

    def subscribe(sink: Any, **options: Any) -> SinkSubscriber:
        # The machine may be busy; a plan would not wait this long.
        made.append(SinkSubscriber(sink, **{"end_timeout": 100.0, **options}))
        RE.subscribe(made[-1])
        return made[-1]

    yield subscribe
    for each in made:
        try:
            each.close()
        except SinkError:
            logging.getLogger(__name__).info("closed in the test already")


def test_events_arrive_as_readings_of_each_object(
    RE: Any, beamtime: Beamtime, devices: Any, subscribe: Any
) -> None:
    """D-05: device is the object's name, task the plan's; there when RE returns."""
    det, motor = devices
    sink = InMemorySink()
    beamtime.attach(RE)
    subscribe(sink)
    before = datetime.now(UTC)
    (uid,) = RE(bp.scan([det], motor, -1, 1, 3))
    readings = sink.readings
    assert len(readings) == 6
    assert {r.device for r in readings} == {"det", "motor"}
    assert {r.task for r in readings} == {"scan"}
    steps = [r.values["motor"] for r in readings if r.device == "motor"]
    assert steps == [-1.0, 0.0, 1.0]
    for reading in readings:
        assert reading.metadata["run_uid"] == uid
        assert reading.metadata["stream"] == "primary"
        assert reading.t_mono_ns is None
        assert reading.received_at is not None
        assert before <= reading.t_utc <= reading.received_at
    # What the database gives later is the same.
    assert list(beamtime[uid].readings()) == readings


async def test_export_from_the_database_is_the_live_table(
    RE: Any, beamtime: Beamtime, devices: Any, subscribe: Any, tmp_path: Path
) -> None:
    """D-09, D-14: pipe(run.readings(), sink) writes the very same file."""
    det, motor = devices
    beamtime.attach(RE)
    live = subscribe(CsvSink(tmp_path / "live.csv"))
    (uid,) = RE(bpp.baseline_wrapper(bp.scan([det], motor, -1, 1, 5), [motor]))
    live.close()
    async with CsvSink(tmp_path / "later.csv") as sink:
        count = await pipe(beamtime[uid].readings(), sink)
    # Five points of two objects, and the baseline at both ends.
    assert count == 12
    assert (tmp_path / "later.csv").read_bytes() == (tmp_path / "live.csv").read_bytes()
    with (tmp_path / "live.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert list(rows[0]) == list(
        dict.fromkeys(
            name for r in beamtime[uid].readings() for name in reading_to_row(r)
        )
    )


@pytest.mark.parametrize("schema", ["drop", "raise"])
def test_the_first_event_fixes_the_columns_of_all_its_objects(
    RE: Any, devices: Any, subscribe: Any, tmp_path: Path, schema: Any
) -> None:
    """D-43: the readings of an event come together, however fast events come."""
    det, motor = devices
    path = tmp_path / "live.csv"
    live = subscribe(CsvSink(path, schema=schema))
    RE(bp.scan([det], motor, -1, 1, 5))
    live.close()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["motor"] for row in rows if row["device"] == "motor"] == [
        str(step) for step in (-1.0, -0.5, 0.0, 0.5, 1.0)
    ]
    assert all(row["det"] for row in rows if row["device"] == "det")


def test_one_sink_takes_several_runs_until_it_is_closed(
    RE: Any, devices: Any, subscribe: Any, tmp_path: Path
) -> None:
    """D-02: opened at the first run; closed by close(), then good for another."""
    det, _ = devices
    sink = SqliteSink(tmp_path / "x.sqlite")
    feeding = subscribe(sink)
    assert not sink.path.exists()
    for _ in range(3):
        RE(bp.count([det], 2))
    assert sink.is_open
    feeding.close()
    feeding.close()
    assert not sink.is_open
    RE(bp.count([det], 1))
    feeding.close()
    import sqlite3

    database = sqlite3.connect(sink.path)
    count = database.execute(
        "SELECT count(*), count(DISTINCT metadata ->> '$.run_uid') FROM readings"
    ).fetchone()
    database.close()
    assert count == (7, 4)


@pytest.mark.parametrize("mimetype", ["application/x-zarr", "application/x-hdf5"])
def test_blocks_of_a_digitizer_live_and_from_the_database(
    RE: Any, beamtime: Beamtime, subscribe: Any, tmp_path: Path, mimetype: str
) -> None:
    """D-06: channels, units, rate and times, and the samples to the last bit."""
    beamtime.attach(RE)
    frames = FrameStore(tmp_path / "frames", mimetype=mimetype)
    with init_devices(mock=False):
        scope = SimDigitizer(frames)
    sink = InMemorySink()
    feeding = subscribe(sink)
    before = datetime.now(UTC)
    (uid,) = RE(fly_frames([scope], 5, exposure=0.01))
    feeding.close()
    frames.close()
    blocks = sink.blocks
    data = beamtime[uid].primary.read(["scope"])["scope"]
    assert [b.block_index for b in blocks] == [0, 1, 2, 3, 4]
    for number, block in enumerate(blocks):
        assert np.array_equal(block.data, data[number].values)
        assert block.data.dtype == data.dtype
        assert block.channels == tuple(data["scope_channel"].values)
        assert tuple(block.units.values()) == tuple(data["scope_unit"].values)
        assert (block.device, block.task) == ("scope", "fly_frames")
        step = float(data["scope_sample"][1] - data["scope_sample"][0])
        assert block.sample_rate_hz == pytest.approx(1 / step)
        assert before <= block.t_utc <= datetime.now(UTC)
    assert [b.t_utc for b in blocks] == sorted(b.t_utc for b in blocks)
    again = list(beamtime[uid].blocks())
    assert len(again) == 5
    for block, other in zip(blocks, again, strict=True):
        assert np.array_equal(block.data, other.data)
        for name in ("t_utc", "channels", "block_index", "sample_rate_hz", "metadata"):
            assert getattr(block, name) == getattr(other, name), name


def test_blocks_of_a_recording_that_was_cut_off(
    RE: Any, beamtime: Beamtime, tmp_path: Path
) -> None:
    """D-06: blocks that were announced are there, though their times were not."""
    with init_devices():
        scope = SimDigitizer(beamtime.frames)
    documents: list[tuple[str, dict[str, Any]]] = []
    RE.subscribe(beamtime)
    RE(fly_frames([scope], 5, exposure=0.01), lambda *each: documents.append(each))
    first = next(i for i, (name, _) in enumerate(documents) if name == "stream_datum")
    path = tmp_path / "cut.db"
    with Beamtime(path) as cut:
        for name, doc in documents[: first + 1]:
            cut(name, doc)
        # The times may still come.
        assert list(cut[-1].blocks()) == []
    with Beamtime(path, mode="r") as cut:
        run = cut[-1]
        assert run.exit_status == "interrupted"
        found = list(run.blocks())
    announced = documents[first][1]["indices"]
    assert len(found) == announced["stop"] > 0
    whole = list(beamtime[-1].blocks())[: len(found)]
    assert [each.t_utc for each in found] == [each.t_utc for each in whole]
    for one, other in zip(found, whole, strict=True):
        assert np.array_equal(one.data, other.data)


def test_a_stream_resource_need_not_name_its_run(RE: Any, beamtime: Beamtime) -> None:
    """D-06: event-model asks for it no more; the stream's descriptor tells."""
    with init_devices():
        scope = SimDigitizer(beamtime.frames)
    documents: list[tuple[str, dict[str, Any]]] = []
    RE(fly_frames([scope], 5, exposure=0.01), lambda *each: documents.append(each))
    sink = InMemorySink()
    with SinkSubscriber(sink) as feeding:
        for name, doc in documents:
            if name == "stream_resource":
                doc = {key: value for key, value in doc.items() if key != "run_start"}
            feeding(name, doc)
        assert feeding.wait(100)
    assert [block.block_index for block in sink.blocks] == list(range(5))


async def test_blocks_go_into_a_table_from_the_database(
    RE: Any, beamtime: Beamtime, tmp_path: Path
) -> None:
    """D-21, D-35: pipe_blocks(run.blocks(), sink), a row group for each."""
    import pyarrow.parquet

    beamtime.attach(RE)
    with init_devices(mock=False):
        scope = SimDigitizer(beamtime.frames)
    (uid,) = RE(fly_frames([scope], 3, exposure=0.01))
    async with ParquetSink(tmp_path / "x.parquet") as sink:
        assert await pipe_blocks(beamtime[uid].blocks(), sink) == 3
    file = pyarrow.parquet.ParquetFile(sink.path)
    with file:
        assert file.num_row_groups == 3
        values = file.read().column("value").to_numpy()
    data = beamtime[uid].primary.read(["scope"])["scope"].values
    assert np.array_equal(values, data.reshape(-1))


def test_a_sink_that_fails_does_not_stop_the_plan(
    RE: Any, devices: Any, subscribe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """D-18: it is loud, what was not taken is kept, and later rows are tried."""
    det, _ = devices

    class Failing(InMemorySink):
        calls = 0

        async def write_many(self, items: Any) -> None:
            self.calls += 1
            if self.calls == 1:
                raise OSError("the disk is full")
            await super().write_many(items)

    sink = Failing()
    feeding = subscribe(sink)
    RE(bp.count([det], 2))
    assert len(feeding.failed) >= 1
    RE(bp.count([det], 2))
    assert len(feeding.failed) + len(sink.readings) == 4
    assert [r.message for r in caplog.records if r.levelno >= logging.ERROR] == [
        "sinks.subscriber.failed"
    ]
    lost = list(feeding.failed)
    with pytest.raises(SinkWriteError, match="the disk is full") as caught:
        feeding.close()
    assert caught.value.records == lost
    feeding.close()


def test_a_sink_that_fails_stops_the_plan_if_it_shall(
    RE: Any, devices: Any, subscribe: Any, tmp_path: Path
) -> None:
    """D-18: on_error="raise"."""
    det, _ = devices
    path = tmp_path / "x.csv"
    path.write_text("somebody else's\n")
    feeding = subscribe(CsvSink(path), on_error="raise")
    with pytest.raises(SinkWriteError, match="append=True"):
        for _ in range(2):
            RE(bp.count([det], 1))
    with pytest.raises(SinkWriteError, match="append=True"):
        feeding.close()
    assert path.read_text() == "somebody else's\n"


def test_a_subscriber_knows_what_its_sink_takes(tmp_path: Path) -> None:
    """D-01, D-37: a file holds readings or blocks, and raw codes come from no event."""
    assert SinkSubscriber(InMemorySink())._records._options["blocks"]
    assert not SinkSubscriber(ParquetSink(tmp_path / "x"))._records._options["blocks"]
    only = SinkSubscriber(ParquetSink(tmp_path / "x"), blocks=True)._records._options
    assert (only["readings"], only["blocks"]) == (False, True)
    with pytest.raises(TypeError, match="RawCountsSink takes no"):
        SinkSubscriber(RawCountsSink(tmp_path / "x"), readings=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_error"):
        SinkSubscriber(InMemorySink(), on_error="ignore")  # type: ignore[arg-type]


def test_documents_with_odd_values_become_readings() -> None:
    """D-05: arrays are JSON text, times that are none are not made up, pages count."""
    records = DocumentRecords()
    start = {"uid": "r", "time": 100.0, "plan_name": "count", "scan_id": 1}
    keys = {
        "x": {"source": "s", "dtype": "number", "shape": [], "units": "mm"},
        "wave": {"source": "s", "dtype": "array", "shape": [2]},
        "cam": {"source": "s", "dtype": "array", "shape": [2], "external": "FILE:"},
    }
    descriptor = {"uid": "d", "run_start": "r", "name": "primary", "data_keys": keys}
    descriptor["object_keys"] = {"dev": ["x", "wave"], "cam": ["cam"]}
    page = {
        "uid": ["e1", "e2"],
        "descriptor": "d",
        "time": [101.0, 102.0],
        "seq_num": [1, 2],
        "data": {
            "x": [np.float32(0.5), float("nan")],
            "wave": [np.array([1.0, np.inf]), [1, 2]],
            "cam": ["datum/0", "datum/1"],
        },
        "timestamps": {
            "x": [float("nan"), 101.5],
            "wave": [None, 1e300],
            "cam": [1, 2],
        },
        "filled": {},
    }
    assert list(records("start", start)) == []
    assert list(records("descriptor", descriptor)) == []
    first, second = records("event_page", page)
    assert isinstance(first, DaqReading)
    assert isinstance(second, DaqReading)
    assert first.values == {"x": 0.5, "wave": '[1.0, {"$float": "inf"}]'}
    assert first.units == {"x": "mm", "wave": None}
    # Nobody says when it was taken: the event's time is what is known.
    assert first.t_utc == first.received_at == datetime.fromtimestamp(101.0, UTC)
    assert second.t_utc == datetime.fromtimestamp(101.5, UTC)
    assert second.metadata["seq_num"] == 2
    assert list(records("stop", {"run_start": "r"})) == []


@pytest.mark.parametrize("as_lists", [False, True])
def test_frames_inside_events_are_left_out(
    as_lists: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """D-05: text of a frame would hold up the plan, and few programs read it back."""
    values = {
        "frame": np.zeros((33, 32), "u2"),
        "matrix": np.eye(3),
        "wave": np.arange(2000.0),
    }
    keys = {
        key: {"source": "s", "dtype": "array", "shape": list(value.shape)}
        for key, value in values.items()
    }
    descriptor = {"uid": "d", "run_start": "r", "name": "p", "data_keys": keys}
    descriptor["object_keys"] = {"dev": list(values)}
    event: dict[str, Any] = {
        "uid": "e",
        "descriptor": "d",
        "time": 101.0,
        "seq_num": 1,
        "data": {k: v.tolist() if as_lists else v for k, v in values.items()},
        "timestamps": dict.fromkeys(values, 100.0),
    }
    records = DocumentRecords()
    list(records("start", {"uid": "r", "time": 100.0}))
    list(records("descriptor", descriptor))
    with caplog.at_level(logging.WARNING, "bluesky_beamtime.sinks"):
        found = [*records("event", event), *records("event", event)]
    assert len(found) == 2
    for reading in found:
        assert isinstance(reading, DaqReading)
        read = {key: json.loads(str(text)) for key, text in reading.values.items()}
        assert read == {key: values[key].tolist() for key in ("matrix", "wave")}
    told = [each for each in caplog.records if each.message.endswith("left_out")]
    assert [(each.key, each.shape) for each in told] == [("frame", (33, 32))]  # type: ignore[attr-defined]


def test_foreign_blocks_are_named_and_read_by_whoever_knows_how() -> None:
    """D-06: a key that says nothing of channels, opened by the caller's function."""
    stored = np.arange(24).reshape(4, 2, 3)
    records = DocumentRecords(block_keys=["adc"], open_array=lambda resource: stored)
    key = {"source": "s", "dtype": "array", "shape": [2, 2, 3], "external": "STREAM:"}
    documents = [
        ("start", {"uid": "r", "time": 100.0}),
        (
            "descriptor",
            {"uid": "d", "run_start": "r", "name": "p", "data_keys": {"adc": key}},
        ),
        (
            "stream_resource",
            {"uid": "s", "run_start": "r", "data_key": "adc", "uri": "x://y"},
        ),
        (
            "stream_datum",
            {
                "uid": "s/0",
                "stream_resource": "s",
                "descriptor": "d",
                "indices": {"start": 0, "stop": 2},
                "seq_nums": {"start": 1, "stop": 3},
            },
        ),
    ]
    found = [record for name, doc in documents for record in records(name, doc)]
    assert [type(record) for record in found] == [DaqBlock] * 4
    for number, block in enumerate(found):
        assert isinstance(block, DaqBlock)
        assert np.array_equal(block.data, stored[number])
        assert block.channels == ("ch0", "ch1")
        assert block.first_sample_index == 3 * number
        # Two blocks per event, and nobody told their times.
        assert "run's" in block.metadata["t_utc"]


class LateStore:
    """An array whose end readers see later than it was announced."""

    def __init__(self) -> None:
        self.stored = np.arange(36).reshape(6, 2, 3)
        self.seen = 0
        self.looks = 0

    def __getitem__(self, key: slice) -> Any:
        self.looks += 1
        if not self.seen:
            raise FileNotFoundError("no such file, yet")
        return self.stored[: self.seen][key]


def announcing(*spans: tuple[int, int]) -> list[tuple[str, dict[str, Any]]]:
    """Return documents that tell of blocks, each span in a StreamDatum."""
    keys = {"adc": {"source": "s", "dtype": "array", "shape": [2, 3]}}
    head = [
        ("start", {"uid": "r", "time": 100.0}),
        (
            "descriptor",
            {"uid": "d", "run_start": "r", "name": "p", "data_keys": keys},
        ),
        (
            "stream_resource",
            {"uid": "s", "run_start": "r", "data_key": "adc", "uri": "x://y"},
        ),
    ]
    datums = [
        (
            "stream_datum",
            {
                "uid": f"s/{number}",
                "stream_resource": "s",
                "descriptor": "d",
                "indices": {"start": start, "stop": stop},
                "seq_nums": {"start": start + 1, "stop": stop + 1},
            },
        )
        for number, (start, stop) in enumerate(spans)
    ]
    return [*head, *datums]


def take(records: DocumentRecords, *documents: tuple[str, Any]) -> list[int]:
    """Return the numbers of the blocks that documents complete."""
    found: list[int] = []
    for name, doc in documents:
        for block in records(name, doc):
            assert isinstance(block, DaqBlock)
            first = int(block.data[0, 0])
            assert np.array_equal(block.data.reshape(-1), np.arange(first, first + 6))
            assert first == 6 * block.block_index
            found.append(block.block_index)
    return found


def test_blocks_that_readers_see_late_come_in_their_order() -> None:
    """D-06: a StreamDatum before its data; nothing is lost, twice or out of order."""
    store = LateStore()
    records = DocumentRecords(
        block_keys=["adc"], open_array=lambda resource: store, patience=0.01
    )
    *head, first, second, third = announcing((0, 3), (3, 4), (4, 6))
    stop = ("stop", {"run_start": "r"})
    assert take(records, *head, first) == []
    store.seen = 2
    assert take(records, second) == []
    store.seen = 5
    assert take(records, third) == [0, 1, 2, 3]
    found: list[int] = []
    with pytest.raises(SinkError, match="blocks 4 to 5 were announced, and 1 of them"):
        # What is there comes before the error.
        found.extend(block.block_index for block in records(*stop))  # type: ignore[union-attr]
    assert found == [4]
    assert take(records, stop) == []


def test_blocks_that_are_not_there_are_an_error_at_once_without_patience() -> None:
    """D-06: from a database nothing comes later."""
    store = LateStore()
    records = DocumentRecords(block_keys=["adc"], open_array=lambda resource: store)
    *head, first, second = announcing((0, 3), (3, 6))
    with pytest.raises(FileNotFoundError):
        take(records, *head, first)
    store.seen = 6
    assert take(records, second) == [3, 4, 5]


def test_a_subscriber_waits_for_a_store_that_is_late() -> None:
    """D-06: also when the run is over before a reader sees its last blocks."""
    store = LateStore()
    sink = InMemorySink()
    feeding = SinkSubscriber(
        sink,
        block_keys=["adc"],
        open_array=lambda resource: store,
        patience=100.0,
        end_timeout=0.1,
    )
    for name, doc in announcing((0, 4), (4, 6)):
        feeding(name, doc)
    feeding("stop", {"uid": "e", "run_start": "r"})
    give_up = time.monotonic() + 60
    while store.looks < 3:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert not sink.blocks
    store.seen = 6
    feeding.close()
    assert [block.block_index for block in sink.blocks] == [0, 1, 2, 3, 4, 5]
    assert not feeding.failed
