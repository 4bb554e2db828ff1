"""RunWriter: every promise of its calls, one test each."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from event_model import DocumentNames, schema_validators

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import RunWriter, SampleMetadata
from bluesky_beamtime.database.run_recorder import RunRecorder
from bluesky_beamtime.errors import (
    BeamtimeFileError,
    BeamtimeWarning,
    DocumentError,
    FrameMismatchError,
    IntegrityError,
    RunStateError,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def writer(path: Path) -> Iterator[RunWriter]:
    with RunWriter(path, SampleMetadata("LaB6")) as writer:
        yield writer


def rows(path: Path, sql: str, *values: Any) -> list[Any]:
    """Ask the file by other means, through a connection of its own."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


def begin(writer: RunWriter, **data_keys: Any) -> str:
    uid = writer.open_run("scan")
    writer.open_stream("primary", data_keys)
    return uid


# ------------------------------------------------------------------------ open, close


@pytest.mark.parametrize("kind", [str, Path])
def test_w01_construction_touches_no_disk(path: Path, kind: type) -> None:
    writer = RunWriter(kind(path), SampleMetadata("LaB6"))
    assert writer.db_path == path
    assert not writer.is_open
    assert list(path.parent.iterdir()) == []
    with writer:
        assert writer.is_open
    assert path.exists()


def test_w02_sample_comes_back_whole(path: Path) -> None:
    sample = SampleMetadata(
        "LaB6",
        "LaB₆",
        "17",
        ["powder", "ref"],
        "B3",
        {"mass": 1.5, "bad": float("nan")},
    )
    with RunWriter(path, sample) as writer:
        begin(writer)
    with Beamtime(path, mode="r") as beamtime:
        read = beamtime[-1].sample
    assert read is not None
    assert (read.name, read.formula, read.serial) == ("LaB6", "LaB₆", "17")
    assert (read.tags, read.beamline_pos) == (["powder", "ref"], "B3")
    assert read.extra["mass"] == 1.5
    assert np.isnan(read.extra["bad"])
    assert read.id == sample.id


def test_w03_open_makes_the_tables_and_may_come_again(path: Path) -> None:
    for _ in range(2):
        with RunWriter(path):
            pass
    tables = {name for (name,) in rows(path, "SELECT name FROM sqlite_master")}
    assert tables >= {"samples", "runs", "streams", "events", "image_refs"}
    ((mode,),) = rows(path, "PRAGMA journal_mode")
    assert mode == "wal"


def test_w03_missing_folder_is_named(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "nowhere" / "a.db")
    with pytest.raises(BeamtimeFileError, match="nowhere"):
        writer.open()
    assert not writer.is_open


def test_w03_readers_do_not_block_the_writer(path: Path, writer: RunWriter) -> None:
    begin(writer)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchall()
        writer.write_event({"x": 1})
        writer.close_run()


def test_w04_open_twice(writer: RunWriter) -> None:
    with pytest.raises(RuntimeError, match="RunWriter is already open"):
        writer.open()


def test_w05_damaged_file(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)
    before = len(os.listdir("/proc/self/fd"))
    writer = RunWriter(path)
    with pytest.raises(sqlite3.DatabaseError):
        writer.open()
    assert not writer.is_open
    assert len(os.listdir("/proc/self/fd")) <= before
    assert path.read_bytes() == b"this is no database" * 100


def test_w06_sample_is_stored_once_and_kept_up_to_date(path: Path) -> None:
    first = SampleMetadata("LaB6", tags=["old"])
    second = SampleMetadata("LaB6", formula="LaB₆", tags=["new"])
    with RunWriter(path, first), RunWriter(path, second):
        pass
    assert first.id == second.id is not None
    ((name, formula, tags),) = rows(path, "SELECT name, formula, tags FROM samples")
    assert (name, formula, json.loads(tags)) == ("LaB6", "LaB₆", ["new"])


def test_w06_one_row_when_many_open_at_once(path: Path) -> None:
    writers = [RunWriter(path, SampleMetadata("LaB6")) for _ in range(8)]
    threads = [threading.Thread(target=writer.open) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in writers:
        assert writer.is_open
        writer.close()
    assert rows(path, "SELECT count(*) FROM samples") == [(1,)]


def test_w07_sample_by_its_id(path: Path) -> None:
    sample = SampleMetadata("LaB6", formula="LaB₆")
    with RunWriter(path, sample):
        pass
    with RunWriter(path, SampleMetadata("renamed", id=sample.id)) as writer:
        begin(writer)
    assert rows(path, "SELECT name, formula FROM samples") == [("LaB6", "LaB₆")]
    assert rows(path, "SELECT sample_id FROM runs") == [(sample.id,)]


def test_w07_id_of_no_sample(path: Path) -> None:
    writer = RunWriter(path, SampleMetadata("LaB6", id=99))
    with pytest.raises(IntegrityError, match="99"):
        writer.open()
    assert not writer.is_open


def test_w08_columns_of_samples(path: Path) -> None:
    sample = SampleMetadata("LaB6", "LaB₆", "17", ["a"], "B3", {"k": 1})
    with RunWriter(path, sample):
        pass
    (row,) = rows(
        path, "SELECT id, name, formula, serial, tags, beamline_pos, extra FROM samples"
    )
    assert row == (sample.id, "LaB6", "LaB₆", "17", '["a"]', "B3", '{"k":1}')


@pytest.mark.parametrize(
    ("name", "store"),
    [
        ("a.db", "a.zarr"),
        ("beam.2026-03", "beam.2026-03.zarr"),
        ("beam.2026-03.db", "beam.2026-03.zarr"),
    ],
)
def test_w09_store_beside_the_file(tmp_path: Path, name: str, store: str) -> None:
    with RunWriter(tmp_path / name):
        pass
    assert (tmp_path / store).is_dir()
    zarr.open_group(tmp_path / store, mode="r")


def test_w09_name_of_a_store_is_refused(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "x.zarr")
    with pytest.raises(BeamtimeFileError, match=r"x\.db"):
        writer.open()
    assert not writer.is_open
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------- runs


def test_w10_run_is_committed_at_once(path: Path, writer: RunWriter) -> None:
    uid = writer.open_run(
        "scan", metadata={"energy": np.float32(12.5), "n": np.int64(3)}
    )
    ((found, plan, metadata, stop),) = rows(
        path, "SELECT uid, plan_name, metadata, time_stop FROM runs"
    )
    assert (found, plan, stop) == (uid, "scan", None)
    assert json.loads(metadata) == {"energy": 12.5, "n": 3, "scan_id": 1}


def test_w10_scan_numbers_go_on(path: Path) -> None:
    for _ in range(2):
        with RunWriter(path) as writer:
            begin(writer)
    with Beamtime(path) as beamtime:
        assert [run.scan_id for run in beamtime] == [2, 1]
        assert beamtime.next_scan_id() == 3
        assert beamtime[1].plan_name == "scan"


@pytest.mark.parametrize("metadata", [{"uid": "x"}, {"time": 1.0}, {"a.b": 1}, [1]])
def test_w10_metadata_that_are_none(writer: RunWriter, metadata: Any) -> None:
    with pytest.raises(DocumentError):
        writer.open_run("scan", metadata=metadata)
    assert writer.run_uid is None
    begin(writer)


def test_w10_object_without_json_is_kept_as_text(path: Path, writer: RunWriter) -> None:
    with pytest.warns(BeamtimeWarning, match="kept as text"):
        writer.open_run("scan", metadata={"what": object()})
    ((metadata,),) = rows(path, "SELECT metadata FROM runs")
    assert "object object" in metadata


def test_w11_open_run_of_a_closed_writer(path: Path) -> None:
    with pytest.raises(RuntimeError, match="RunWriter is not open"):
        RunWriter(path).open_run("scan")


def test_w12_open_run_while_one_is_open(path: Path, writer: RunWriter) -> None:
    uid = begin(writer)
    with pytest.raises(RunStateError, match=uid):
        writer.open_run("another")
    writer.write_event({"x": 1})
    writer.close_run()
    assert rows(path, "SELECT uid, exit_status FROM runs") == [(uid, "success")]


# ---------------------------------------------------------------------------- streams


def test_w13_streams_count_for_themselves(path: Path, writer: RunWriter) -> None:
    run = writer.open_run("scan")
    primary = writer.open_stream("primary", {"x": {"units": "mm"}})
    ((uid, found, keys),) = rows(path, "SELECT uid, run_uid, data_keys FROM streams")
    assert (uid, found) == (primary, run)
    assert json.loads(keys)["x"]["units"] == "mm"
    writer.write_event({"x": 1})
    writer.write_event({"x": 2})
    baseline = writer.open_stream("baseline", {"t": {}})
    writer.write_event({"t": 3})
    found = rows(path, "SELECT stream_uid, seq_num FROM events ORDER BY id")
    assert found == [(primary, 1), (primary, 2), (baseline, 1)]


def test_w13_stream_of_the_same_name(writer: RunWriter) -> None:
    begin(writer)
    with pytest.raises(sqlite3.IntegrityError, match="primary"):
        writer.open_stream("primary", {})
    writer.write_event({"x": 1})


@pytest.mark.parametrize("keys", [3, {"x": 3}, {"x": {"dtype": "nonsense"}}])
def test_w13_data_keys_that_are_none(writer: RunWriter, keys: Any) -> None:
    writer.open_run("scan")
    with pytest.raises(DocumentError):
        writer.open_stream("primary", keys)
    writer.open_stream("primary", {})


def test_w14_open_stream_out_of_order(path: Path, writer: RunWriter) -> None:
    with pytest.raises(RuntimeError, match="RunWriter is not open"):
        RunWriter(path).open_stream("primary", {})
    with pytest.raises(RuntimeError, match="No open run"):
        writer.open_stream("primary", {})


@pytest.mark.parametrize("by", ["uid", "name"])
def test_w15_streams_may_be_interleaved(path: Path, writer: RunWriter, by: str) -> None:
    writer.open_run("scan")
    uids = {name: writer.open_stream(name, {}) for name in ("baseline", "primary")}
    for value in range(4):
        name = "baseline" if value % 2 else "primary"
        writer.write_event({name: value}, stream=uids[name] if by == "uid" else name)
    writer.write_event({"primary": 4})
    writer.close_run()
    with Beamtime(path, mode="r") as beamtime:
        run = beamtime[-1]
        assert run["primary"].read()["primary"].values.tolist() == [0, 2, 4]
        assert run["baseline"].read()["baseline"].values.tolist() == [1, 3]
        assert run.stop is not None
        assert run.stop["num_events"] == {"baseline": 2, "primary": 3}


def test_w15_stream_that_is_not_there(writer: RunWriter) -> None:
    begin(writer)
    with pytest.raises(RunStateError, match=r"nonsense.*primary"):
        writer.write_event({"x": 1}, stream="nonsense")


# ----------------------------------------------------------------------------- events


def test_w16_events_are_numbered_from_one(path: Path, writer: RunWriter) -> None:
    begin(writer)
    uids = [writer.write_event({"x": value}) for value in (1.5, 2.5)]
    found = rows(path, "SELECT uid, seq_num, data, timestamps FROM events ORDER BY id")
    assert found == [
        (uids[0], 1, '{"x":1.5}', "{}"),
        (uids[1], 2, '{"x":2.5}', "{}"),
    ]


def test_w16_numpy_scalars_and_nan(path: Path, writer: RunWriter) -> None:
    begin(writer)
    data = {
        "i": np.int32(7),
        "b": np.bool_(True),
        "f": np.float32(0.5),
        "nan": np.nan,
        "inf": -np.inf,
        "big": 2**70,
        "text": "µ",
    }
    writer.write_event(data)
    ((text,),) = rows(path, "SELECT data FROM events")
    json.loads(text, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))
    with Beamtime(path, mode="r") as beamtime:
        read = next(d for n, d in beamtime[-1].documents() if n == "event")["data"]
    assert (read["i"], read["b"], read["f"]) == (7, True, 0.5)
    assert type(read["i"]) is int
    assert type(read["b"]) is bool
    assert np.isnan(read["nan"])
    assert read["inf"] == -np.inf
    assert read["big"] == 2**70
    assert read["text"] == "µ"


@pytest.mark.parametrize(
    ("data", "more"),
    [
        ([1], {}),
        ({1: 2}, {}),
        ({"x": 1}, {"timestamps": 3}),
        ({"x": 1}, {"time": "noon"}),
        ({"new": 1}, {"time": "noon"}),
    ],
)
def test_w16_failing_event_leaves_no_gap(
    path: Path, writer: RunWriter, data: Any, more: Any
) -> None:
    begin(writer, x={})
    writer.write_event({"x": 0})
    with pytest.raises(DocumentError):
        writer.write_event(data, **more)
    writer.write_event({"x": 2})
    assert rows(path, "SELECT seq_num FROM events ORDER BY id") == [(1,), (2,)]
    ((keys,),) = rows(path, "SELECT data_keys FROM streams")
    assert list(json.loads(keys)) == ["x"]


def test_w16_fields_nobody_described(path: Path, writer: RunWriter) -> None:
    begin(writer, x={})
    writer.write_event({"x": 1.0, "n": 3, "name": "a", "line": np.arange(4.0)})
    with Beamtime(path, mode="r") as beamtime:
        keys = beamtime[-1]["primary"].data_keys
        assert {key: keys[key]["dtype"] for key in keys} == {
            "x": "number",
            "n": "integer",
            "name": "string",
            "line": "array",
        }
        assert beamtime[-1]["primary"].read()["line"].shape == (1, 4)


def test_w17_every_event_is_committed(path: Path, writer: RunWriter) -> None:
    begin(writer)
    for number in range(1, 4):
        writer.write_event({"x": number})
        assert rows(path, "SELECT count(*) FROM events") == [(number,)]
        with closing(sqlite3.connect(path, timeout=0.01)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.rollback()


def test_w18_write_event_out_of_order(path: Path, writer: RunWriter) -> None:
    with pytest.raises(RuntimeError, match="RunWriter is not open"):
        RunWriter(path).write_event({})
    with pytest.raises(RuntimeError, match="No open run"):
        writer.write_event({})
    writer.open_run("scan")
    with pytest.raises(RuntimeError, match="No open stream"):
        writer.write_event({})


# ----------------------------------------------------------------------------- images


def test_w19_images_of_events(path: Path, writer: RunWriter) -> None:
    run = begin(writer)
    frames = np.arange(24, dtype="u2").reshape(2, 3, 4)
    for frame in frames:
        where = writer.write_image(writer.write_event({"x": 1}), "cam", frame)
        assert where == f"runs/{run}/primary/cam"
        array = zarr.open_array(path.with_suffix(".zarr") / where, mode="r")
        np.testing.assert_array_equal(array[-1], frame)
    found = rows(path, "SELECT zarr_group, index_in_stack FROM image_refs ORDER BY id")
    assert found == [(where, 0), (where, 1)]
    with Beamtime(path, mode="r") as beamtime:
        read = beamtime[-1]["primary"].read()
        np.testing.assert_array_equal(read["cam"], frames)
        events = [doc for name, doc in beamtime[-1].documents() if name == "event"]
    np.testing.assert_array_equal(events[1]["data"]["cam"], frames[1])


def test_w20_array_is_made_for_the_first_image(path: Path, writer: RunWriter) -> None:
    begin(writer)
    frame = np.ones((3, 4), "f4")
    for _ in range(50):
        where = writer.write_image(writer.write_event({}), "cam", frame)
    folder = path.with_suffix(".zarr") / where
    array = zarr.open_array(folder, mode="r")
    assert (array.shape, array.dtype, array.chunks) == ((50, 3, 4), "f4", (1, 3, 4))
    # Many frames in a file, not a file for each.
    assert sum(file.is_file() for file in folder.rglob("*")) < 6


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((2, 4), "u1"),
        np.zeros((3, 5), "u1"),
        np.full((3, 4), 300.7),
        np.zeros((3, 4), ">u2"),
        np.zeros((1, 3, 4), "u1"),
    ],
)
def test_w21_image_that_does_not_fit(
    path: Path, writer: RunWriter, other: np.ndarray
) -> None:
    begin(writer)
    frame = np.arange(12, dtype="u1").reshape(3, 4)
    where = writer.write_image(writer.write_event({}), "cam", frame)
    event = writer.write_event({})
    with pytest.raises(FrameMismatchError, match="cam"):
        writer.write_image(event, "cam", other)
    array = zarr.open_array(path.with_suffix(".zarr") / where, mode="r")
    np.testing.assert_array_equal(array[:], frame[None])
    assert rows(path, "SELECT count(*) FROM image_refs") == [(1,)]
    assert rows(path, "SELECT data FROM events ORDER BY id")[1] == ("{}",)
    writer.write_image(event, "cam", frame + 1)
    assert zarr.open_array(path.with_suffix(".zarr") / where).shape == (2, 3, 4)


def test_w22_length_is_the_number_of_images(path: Path, writer: RunWriter) -> None:
    begin(writer)
    events = [writer.write_event({}) for _ in range(30)]
    threads = [
        threading.Thread(
            target=lambda part=part: [
                writer.write_image(event, "cam", np.full((2, 2), 1)) for event in part
            ]
        )
        for part in (events[::3], events[1::3], events[2::3])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = rows(path, "SELECT index_in_stack FROM image_refs ORDER BY index_in_stack")
    assert found == [(index,) for index in range(30)]


@pytest.mark.parametrize("shape", [(5,), (3, 4), (3, 4, 3), (2, 3, 4, 3)])
def test_w23_images_of_any_rank(
    path: Path, writer: RunWriter, shape: tuple[int, ...]
) -> None:
    begin(writer)
    image = np.random.default_rng(0).random(shape)
    writer.write_image(writer.write_event({}), "image", image)
    writer.close_run()
    with Beamtime(path, mode="r") as beamtime:
        np.testing.assert_array_equal(beamtime[-1]["primary"].read()["image"][0], image)
    ((stored,),) = rows(path, "SELECT shape FROM image_refs")
    assert tuple(json.loads(stored)) == shape


@pytest.mark.parametrize(
    "image", [3.5, np.float64(1), "text", np.array(["a"]), np.empty((0, 3)), [None]]
)
def test_w23_what_is_no_image(path: Path, writer: RunWriter, image: Any) -> None:
    begin(writer)
    event = writer.write_event({"x": 1})
    with pytest.raises(DocumentError, match="image"):
        writer.write_image(event, "cam", image)
    assert rows(path, "SELECT data FROM events") == [('{"x":1}',)]
    assert not list(path.with_suffix(".zarr").rglob("cam"))


def test_w24_columns_of_image_refs_are_true(path: Path, writer: RunWriter) -> None:
    begin(writer)
    event = writer.write_event({})
    where = writer.write_image(event, "cam", np.zeros((3, 4), "u2"))
    (row,) = rows(
        path,
        "SELECT event_uid, field_name, zarr_group, index_in_stack, shape_x, shape_y, "
        "shape, dtype, compression_codec FROM image_refs",
    )
    codec = row[-1]
    assert row[:-1] == (event, "cam", where, 0, 4, 3, "[3,4]", "<u2")
    metadata = path.with_suffix(".zarr") / where / "zarr.json"
    names = json.dumps(json.loads(metadata.read_text())["codecs"])
    assert ("blosc" in names) == (codec != "none")


def test_w25_write_image_out_of_order(path: Path, writer: RunWriter) -> None:
    frame = np.zeros((2, 2))
    with pytest.raises(RuntimeError, match="RunWriter is not open"):
        RunWriter(path).write_image("e", "cam", frame)
    with pytest.raises(RuntimeError, match="No open run"):
        writer.write_image("e", "cam", frame)
    writer.open_run("scan")
    with pytest.raises(RuntimeError, match="No open stream"):
        writer.write_image("e", "cam", frame)


def test_w25_event_of_another_run(path: Path, writer: RunWriter) -> None:
    begin(writer)
    event = writer.write_event({})
    writer.close_run()
    begin(writer)
    for uid in (event, "nonsense"):
        with pytest.raises(IntegrityError, match=uid):
            writer.write_image(uid, "cam", np.zeros((2, 2)))
    assert not list(path.with_suffix(".zarr").rglob("cam"))


def test_w25_second_image_of_a_field(writer: RunWriter) -> None:
    begin(writer)
    event = writer.write_event({"x": 1})
    writer.write_image(event, "cam", np.zeros((2, 2)))
    for field in ("cam", "x"):
        with pytest.raises(IntegrityError, match=field):
            writer.write_image(event, field, np.zeros((2, 2)))


def test_w26_same_field_in_two_streams(path: Path, writer: RunWriter) -> None:
    run = writer.open_run("scan")
    for name, shape in (("primary", (2, 2)), ("dark", (3, 3))):
        writer.open_stream(name, {})
        where = writer.write_image(writer.write_event({}), "cam", np.ones(shape))
        assert where == f"runs/{run}/{name}/cam"
    with Beamtime(path, mode="r") as beamtime:
        assert beamtime[-1]["primary"].read()["cam"].shape == (1, 2, 2)
        assert beamtime[-1]["dark"].read()["cam"].shape == (1, 3, 3)


def test_w26_field_with_a_slash_nests_nothing(path: Path, writer: RunWriter) -> None:
    run = begin(writer)
    writer.write_image(writer.write_event({}), "a/b", np.ones((2, 2)))
    folders = list((path.with_suffix(".zarr") / "runs" / run / "primary").iterdir())
    assert [folder.name for folder in folders if folder.is_dir()] == ["a%2Fb"]


# -------------------------------------------------------------------------------- end


@pytest.mark.parametrize(
    ("word", "stored"),
    [
        ("success", "success"),
        ("abort", "abort"),
        ("fail", "fail"),
        ("aborted", "abort"),
        ("failed", "fail"),
    ],
)
def test_w27_end_of_a_run(
    path: Path, writer: RunWriter, word: str, stored: str
) -> None:
    begin(writer)
    writer.write_event({"x": 1})
    writer.open_stream("baseline", {})
    writer.write_event({"x": 1})
    writer.close_run(exit_status=word, reason="why not")
    ((status, number, start, stop),) = rows(
        path, "SELECT exit_status, num_events, time_start, time_stop FROM runs"
    )
    assert (status, number) == (stored, 2)
    assert stop >= start
    assert writer.run_uid is None
    with Beamtime(path, mode="r") as beamtime:
        assert beamtime[-1].stop is not None
        assert beamtime[-1].stop["reason"] == "why not"
        assert beamtime[-1].stop["num_events"] == {"primary": 1, "baseline": 1}


def test_w27_other_words_are_refused(path: Path, writer: RunWriter) -> None:
    begin(writer)
    with pytest.raises(DocumentError, match="'success', 'abort' or 'fail'"):
        writer.close_run(exit_status="fine")
    writer.write_event({"x": 1})
    writer.close_run()
    assert rows(path, "SELECT exit_status FROM runs") == [("success",)]


def test_w28_close_run_out_of_order(path: Path, writer: RunWriter) -> None:
    with pytest.raises(RuntimeError, match="RunWriter is not open"):
        RunWriter(path).close_run()
    with pytest.raises(RuntimeError, match="No open run"):
        writer.close_run()


def test_w29_close_ends_what_is_open(path: Path) -> None:
    writer = RunWriter(path)
    writer.close()
    writer.open()
    begin(writer)
    writer.write_event({"x": 1})
    writer.close()
    writer.close()
    assert rows(path, "SELECT exit_status, num_events FROM runs") == [("abort", 1)]
    assert not list(path.parent.glob("*.lock"))
    with pytest.raises(RuntimeError, match="RunWriter is not open"):
        writer.write_event({})
    writer.open()
    assert writer.run_uid is None
    begin(writer)
    writer.close()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "success"),
        (ValueError("the beam is gone"), "fail"),
        (KeyboardInterrupt(), "abort"),
        (SystemExit(2), "abort"),
    ],
)
def test_w30_context_manager(
    path: Path, error: BaseException | None, status: str
) -> None:
    writer = RunWriter(path)
    try:
        with writer as entered:
            assert entered is writer
            begin(writer)
            if error is not None:
                raise error
    except BaseException as caught:
        assert caught is error
    else:
        assert error is None
    assert not writer.is_open
    with Beamtime(path, mode="r") as beamtime:
        run = beamtime[-1]
        assert run.exit_status == status
        assert run.stop is not None
        reason = run.stop["reason"]
    assert ("the beam is gone" in reason) == isinstance(error, ValueError)


def test_w30_closes_when_the_run_cannot_be_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(RunRecorder, "stop", refuse)
    writer = RunWriter(path)
    with pytest.raises(OSError, match="no space"), writer:
        begin(writer)
    assert not writer.is_open
    with pytest.raises(ValueError, match="first") as caught, writer:
        begin(writer)
        raise ValueError("first")
    assert any("no space" in note for note in caught.value.__notes__)
    assert not writer.is_open


def test_w31_columns_of_runs(path: Path, writer: RunWriter) -> None:
    uid = writer.open_run("scan", metadata={"operator": "Ada"})
    writer.close_run()
    (row,) = rows(
        path,
        "SELECT uid, sample_id, plan_name, exit_status, num_events, metadata FROM runs",
    )
    assert writer.sample is not None
    assert row[:5] == (uid, writer.sample.id, "scan", "success", 0)
    assert json.loads(row[5])["operator"] == "Ada"


def test_w32_columns_of_events(path: Path, writer: RunWriter) -> None:
    begin(writer)
    uid = writer.write_event({"x": 1}, {"x": 12.5}, time=13.5)
    ((stream,),) = rows(path, "SELECT uid FROM streams")
    found = rows(
        path, "SELECT uid, stream_uid, seq_num, time, data, timestamps FROM events"
    )
    assert found == [(uid, stream, 1, 13.5, '{"x":1}', '{"x":12.5}')]


def test_w33_any_thread_may_write(path: Path, writer: RunWriter) -> None:
    begin(writer)

    def work(number: int) -> None:
        for _ in range(20):
            writer.write_event({"thread": number})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = rows(path, "SELECT seq_num FROM events ORDER BY id")
    assert numbers == [(number,) for number in range(1, 101)]


def test_w34_sample_belongs_to_the_run(path: Path, writer: RunWriter) -> None:
    begin(writer)
    writer.close_run()
    writer.sample = "CeO2"
    begin(writer)
    writer.close_run()
    writer.open_run("scan", metadata={"sample": {"name": "Si", "formula": "Si"}})
    writer.close_run()
    writer.sample = None
    begin(writer)
    writer.close_run()
    found = rows(
        path,
        "SELECT samples.name FROM runs LEFT JOIN samples ON samples.id = sample_id "
        "ORDER BY runs.id",
    )
    assert found == [("LaB6",), ("CeO2",), ("Si",), (None,)]


def test_w35_two_writers_interleave_their_runs(path: Path) -> None:
    with RunWriter(path, "one") as one, RunWriter(path, "two") as two:
        uids = [begin(one), begin(two)]
        for number in range(5):
            one.write_event({"x": number})
            event = two.write_event({"x": -number})
            two.write_image(event, "cam", np.full((2, 2), number))
    with Beamtime(path, mode="r") as beamtime:
        first, second = (beamtime[uid]["primary"].read()["x"] for uid in uids)
        assert first.values.tolist() == [0, 1, 2, 3, 4]
        assert second.values.tolist() == [0, -1, -2, -3, -4]
        assert {run.scan_id for run in beamtime} == {1, 2}


# ------------------------------------------------------------------- with all the rest


def test_runs_read_back_as_valid_documents(path: Path, writer: RunWriter) -> None:
    writer.open_run("scan", metadata={"operator": "Ada", "nested": {"a": [1, 2]}})
    writer.open_stream("primary", {"x": {"units": "mm", "shape": []}})
    for number in range(3):
        event = writer.write_event({"x": float(number), "more": number})
        writer.write_image(event, "cam", np.full((2, 3), number))
    writer.close_run()
    with Beamtime(path, mode="r") as beamtime:
        documents = list(beamtime[-1].documents())
    assert [name for name, _ in documents] == [
        *("start", "descriptor", "event", "event", "event", "stop")
    ]
    for name, doc in documents:
        schema_validators[DocumentNames[name]].validate(doc)
    keys = documents[1][1]["data_keys"]
    assert list(keys) == ["x", "more", "cam"]
    assert keys["cam"]["shape"] == [2, 3]
    for _, event in documents[2:5]:
        assert set(event["data"]) == set(keys)


def test_run_can_be_read_while_it_is_written(path: Path, writer: RunWriter) -> None:
    begin(writer)
    with Beamtime(path, mode="r") as beamtime:
        run = beamtime[-1]
        for number in range(1, 4):
            writer.write_event({"x": number})
            assert len(run["primary"].read()["x"]) == number
        assert run.exit_status is None
        writer.close_run()
        assert run.exit_status == "success"


def test_image_of_a_few_events_only(path: Path, writer: RunWriter) -> None:
    begin(writer)
    for number in range(4):
        event = writer.write_event({"x": number})
        if number == 2:
            writer.write_image(event, "cam", np.ones((2, 2)))
    writer.close_run()
    with Beamtime(path, mode="r") as beamtime:
        run = beamtime[-1]
        assert run["primary"].read("x")["x"].values.tolist() == [0, 1, 2, 3]
        events = [doc for name, doc in run.documents() if name == "event"]
        assert ["cam" in event["data"] for event in events] == [
            *(False, False, True, False)
        ]


def test_beside_a_beamtime_that_records(path: Path) -> None:
    with Beamtime(path, sample="LaB6") as beamtime, RunWriter(path, "CeO2") as writer:
        begin(writer)
        beamtime("start", {"uid": "theirs", "time": 1.0, "scan_id": 7})
        beamtime(
            "descriptor",
            {
                "uid": "d",
                "run_start": "theirs",
                "time": 1.0,
                "name": "primary",
                "data_keys": {"x": {"source": "s", "dtype": "number", "shape": []}},
            },
        )
        for number in range(1, 6):
            beamtime(
                "event",
                {
                    "uid": f"e{number}",
                    "descriptor": "d",
                    "time": 1.0,
                    "seq_num": number,
                    "data": {"x": number},
                    "timestamps": {"x": 1.0},
                },
            )
            writer.write_event({"x": number})
        writer.close_run()
        beamtime(
            "stop",
            {
                "uid": "s",
                "run_start": "theirs",
                "time": 2.0,
                "exit_status": "success",
            },
        )
        assert [run["primary"].num_events for run in beamtime] == [5, 5]
        # Nobody took the other's run for one that was cut off.
        assert [run.exit_status for run in beamtime] == ["success", "success"]


WORK = """
import sys
import numpy as np
from bluesky_beamtime.database import RunWriter

writer = RunWriter(sys.argv[1], "LaB6")
writer.open()
writer.open_run("endless")
writer.open_stream("primary", {})
number = 0
while True:
    uid = writer.write_event({"number": number})
    writer.write_image(uid, "cam", np.full((16, 16), number))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("enough", [1, 40])
def test_killed_writer_loses_nothing_acknowledged(path: Path, enough: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as lines:
        last = -1
        while last < enough:
            last = int(lines.readline())
        process.send_signal(signal.SIGKILL)
        last = max([last, *map(int, [line for line in lines if line.endswith("\n")])])
    process.wait()
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    with Beamtime(path) as beamtime:
        run = beamtime[-1]
        assert run.exit_status == "interrupted"
        events = [doc["data"] for name, doc in run.documents() if name == "event"]
    assert len(events) > last
    for number, data in enumerate(events):
        assert data["number"] == number
        if number <= last:
            assert (data["cam"] == number).all()
