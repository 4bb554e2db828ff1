"""Runs and streams that are made of documents alone."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run

from bluesky_beamtime.database import Database, JournalIndex, Run
from bluesky_beamtime.errors import (
    BeamtimeWarning,
    DocumentError,
    MissingExtraError,
    RunNotFoundError,
    StoreReadError,
)
from bluesky_beamtime.storage import FrameStore, ShardedArray, stream_resource_doc
from bluesky_beamtime.testing import assert_documents_equal

NUMBER = {
    "source": "PV:x",
    "dtype": "number",
    "shape": [],
    "units": "mm",
    "precision": 3,
}
FRAMES = {
    "source": "cam",
    "dtype": "array",
    "dtype_numpy": "<u2",
    "shape": [2, 3],
    "external": "STREAM:",
}
STAMP = {"source": "cam", "dtype": "number", "shape": [], "external": "STREAM:"}


class Scan:
    """Composes the documents of a run, and writes the frames that they announce."""

    def __init__(
        self, folder: Path, data_keys: dict[str, Any], **metadata: Any
    ) -> None:
        self.bundle = compose_run(
            metadata={"plan_name": "scan", "scan_id": 3, **metadata}
        )
        self.documents: list[tuple[str, Any]] = [("start", self.bundle.start_doc)]
        self.describe(data_keys)
        self.store = FrameStore(folder / "x.zarr" / "frames", name=lambda: "scan_00003")
        self.sinks: dict[str, Any] = {}
        self.resources: dict[str, Any] = {}

    def describe(
        self, data_keys: dict[str, Any], name: str = "primary", **more: Any
    ) -> Any:
        self.stream = self.bundle.compose_descriptor(
            name=name, data_keys=data_keys, **more
        )
        self.documents.append(("descriptor", self.stream.descriptor_doc))
        return self.stream

    def event(self, seq_num: int | None = None, time: float | None = None, **data: Any):
        event = self.stream.compose_event(
            data=data,
            timestamps={key: 100.0 + number for number, key in enumerate(data)},
            seq_num=seq_num,
            time=time,
        )
        self.documents.append(("event", event))
        return event

    def attach(self, key: str, **options: Any) -> Any:
        options = {"dtype": "<u2", "shape": (2, 3)} | options
        sink = self.sinks[key] = self.store.attach(key, **options)
        doc = stream_resource_doc(sink, "unused")
        del doc["uid"]
        resource = self.bundle.compose_stream_resource(**doc)
        self.resources[key] = resource
        self.documents.append(("stream_resource", resource.stream_resource_doc))
        return sink

    def announce(self, key: str, first: int, seq_num: int, count: int = 1) -> None:
        self.sinks[key].publish()
        datum = self.resources[key].compose_stream_datum(
            seq_nums={"start": seq_num, "stop": seq_num + count},
            indices={"start": first, "stop": first + count},
            descriptor=self.stream.descriptor_doc,
        )
        self.documents.append(("stream_datum", datum))

    def close(self) -> None:
        for sink in self.sinks.values():
            self.store.detach(sink)

    def stop(self, **options: Any) -> list[tuple[str, Any]]:
        self.close()
        self.documents.append(("stop", self.bundle.compose_stop(**options)))
        return self.documents


def frame(number: int) -> np.ndarray[Any, Any]:
    return np.full((2, 3), number, "<u2")


def test_a_run_says_what_it_is(record, tmp_path) -> None:
    scan = Scan(tmp_path, {"x": NUMBER}, sample={"name": "LaB6", "formula": "LaB6"})
    scan.describe({"y": NUMBER}, "baseline")
    scan.event(y=1.0)
    run = record(scan.stop())
    start = scan.documents[0][1]
    assert run.uid == start["uid"]
    assert (run.scan_id, run.plan_name, run.time) == (3, "scan", start["time"])
    assert run.start == start
    assert run.stop == scan.documents[-1][1]
    assert (run.exit_status, run.complete, run.num_events) == ("success", True, 1)
    assert run.metadata == {"scan_id": 3, "sample": start["sample"]}
    assert run.sample.formula == "LaB6"
    assert run.stream_names == list(run) == ["primary", "baseline"]
    assert "baseline" in run and "nothing" not in run
    assert run.baseline.name == run["baseline"].name == "baseline"
    assert {"primary", "baseline"} <= set(dir(run))
    assert run == run and run != object() and len({run, run}) == 1
    assert json.loads(json.dumps(run.summary())) == {
        "uid": run.uid,
        "scan_id": 3,
        "plan_name": "scan",
        "sample": "LaB6",
        "time": start["time"],
        "exit_status": "success",
        "num_events": 1,
        "complete": True,
        "frames": {},
        "tags": [],
        "starred": False,
    }
    with pytest.raises(AttributeError, match="run 3 has no stream 'secondary'; it has"):
        run.secondary  # noqa: B018
    with pytest.raises(RunNotFoundError, match="no stream 'start'"):
        run["start"]
    text = repr(run)
    for word in ("3", "scan of LaB6", "success", "baseline 1"):
        assert word in text
    assert "LaB6" in run._repr_html_()


def test_what_callers_do_to_a_document_does_not_change_the_run(
    record, tmp_path
) -> None:
    run = record(Scan(tmp_path, {"x": NUMBER}).stop())
    run.start.clear()
    run.stop.clear()
    assert run.start["scan_id"] == 3
    assert run.stop["exit_status"] == "success"


def test_hostile_words_do_not_become_html(record, tmp_path) -> None:
    scan = Scan(tmp_path, {"<script>": NUMBER}, plan_name="<b>x</b>", sample="<i>")
    run = record(scan.stop())
    html = run._repr_html_()
    assert "<script>" not in html and "<b>" not in html and "<i>" not in html
    assert "&lt;script&gt;" in html


def test_a_run_that_fails_says_so(record, tmp_path) -> None:
    scan = Scan(tmp_path, {"x": NUMBER})
    run = record(scan.stop(exit_status="fail", reason="the shutter"))
    assert run.exit_status == "fail"
    assert run.stop["reason"] == "the shutter"


def test_events_become_columns(record, tmp_path) -> None:
    text = {"source": "s", "dtype": "string", "shape": []}
    waveform = {"source": "s", "dtype": "array", "shape": [3]}
    scan = Scan(
        tmp_path,
        {
            "x": NUMBER,
            "n": {"source": "s", "dtype": "integer", "shape": []},
            "word": text,
            "wave": waveform,
            "listed": waveform,
        },
        sample="LaB6",
        purpose={"a": 1},
        flag=True,
    )
    for number in range(3):
        scan.event(
            time=10.0 + number,
            x=number / 2,
            n=number,
            word="ab"[: number + 1],
            wave=np.arange(3.0) + number,
            listed=[number, 0, 1],
        )
    run = record(scan.stop())
    dataset = run.primary.read()
    assert dict(dataset.sizes) == {"time": 3, "wave_x": 3, "listed_x": 3}
    assert dataset["time"].values.tolist() == [10.0, 11.0, 12.0]
    assert dataset["time"].dtype == np.float64
    assert dataset["time"].attrs == {"units": "s"}
    assert dataset["seq_num"].values.tolist() == [1, 2, 3]
    assert dataset["x"].dtype == np.float64
    assert dataset["x"].attrs == {"units": "mm", "precision": 3, "source": "PV:x"}
    assert dataset["n"].dtype == np.int64
    assert dataset["word"].values.tolist() == ["a", "ab", "ab"]
    assert dataset["wave"].dims == ("time", "wave_x")
    assert type(dataset["wave"].data).__module__.startswith("dask")
    np.testing.assert_array_equal(dataset["wave"], np.arange(3) + np.arange(3)[:, None])
    assert dataset["listed"].values[:, 0].tolist() == [0, 1, 2]
    attributes = dataset.attrs
    assert attributes["uid"] == run.uid
    assert attributes["scan_id"] == 3
    assert attributes["sample"] == "LaB6"
    assert attributes["stream"] == "primary"
    assert attributes["exit_status"] == "success"
    assert json.loads(attributes["purpose"]) == {"a": 1}
    # Some of it.
    assert set(run.primary.read(["n", "x"]).data_vars) == {"n", "x"}
    assert list(run.primary.read("x").data_vars) == ["x"]
    assert run.primary["x"].values.tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(RunNotFoundError, match=r"no field 'z'; it has x, n, word"):
        run.primary.read(["x", "z"])


def test_a_table_has_what_is_one_value_per_event(record, tmp_path) -> None:
    scan = Scan(
        tmp_path, {"x": NUMBER, "wave": {**NUMBER, "shape": [2]}, "cam": FRAMES}
    )
    scan.attach("cam").write(frame(0))
    scan.announce("cam", 0, 1)
    scan.event(time=10.0, x=1.5, wave=[1, 2])
    run = record(scan.stop())
    table = run.primary.to_pandas()
    assert list(table.columns) == ["time", "x"]
    assert table.index.name == "seq_num"
    assert table.loc[1].tolist() == [10.0, 1.5]
    assert run.primary.table().equals(table)


def test_timestamps_are_those_of_the_devices(record, tmp_path) -> None:
    scan = Scan(tmp_path, {"x": NUMBER, "y": NUMBER})
    scan.event(x=1.0, y=2.0)
    run = record(scan.stop())
    stamps = run.primary.timestamps()
    assert (float(stamps["x"][0]), float(stamps["y"][0])) == (100.0, 101.0)
    assert stamps["x"].attrs == {"units": "s"}


def test_a_point_that_was_repeated_counts_once_and_the_last(record, tmp_path) -> None:
    scan = Scan(tmp_path, {"x": NUMBER})
    for seq_num, x in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 2.5), (3, 3.5), (4, 4.0)):
        scan.event(seq_num, x=x)
    run = record(scan.stop())
    assert run.primary.read()["x"].values.tolist() == [1.0, 2.5, 3.5, 4.0]
    assert run.primary.read()["seq_num"].values.tolist() == [1, 2, 3, 4]
    assert run.primary.num_events == 4
    assert_documents_equal(run.documents(), scan.documents)


def test_a_stream_that_is_described_anew_is_one_stream(record, tmp_path) -> None:
    setting = {"det": {"data": {"gain": 1}, "timestamps": {}, "data_keys": {}}}
    scan = Scan(tmp_path, {"x": NUMBER})
    scan.event(x=1.0)
    from event_model import compose_descriptor

    again = compose_descriptor(
        start=scan.bundle.start_doc,
        streams={},
        event_counters={"primary": 2},
        name="primary",
        data_keys={"x": NUMBER, "y": NUMBER},
        configuration=setting,
        validate=False,
    )
    scan.documents.append(("descriptor", again.descriptor_doc))
    scan.stream = again
    scan.event(seq_num=2, x=2.0, y=5.0)
    run = record(scan.stop())
    assert run.stream_names == ["primary"]
    dataset = run.primary.read()
    assert dataset["x"].values.tolist() == [1.0, 2.0]
    np.testing.assert_array_equal(dataset["y"], [np.nan, 5.0])
    assert len(run.primary.descriptors) == 2
    assert run.primary.configuration == {"det": {"gain": 1}}
    assert list(run.primary) == ["x", "y"]


def test_a_stream_without_events_is_empty(record, tmp_path) -> None:
    run = record(Scan(tmp_path, {"x": NUMBER, "cam": FRAMES}).stop())
    dataset = run.primary.read()
    assert dataset.sizes["time"] == 0
    assert dataset["x"].shape == (0,)
    assert run.primary.num_events == 0


# ------------------------------------------------------------------------------ frames


def test_frames_of_a_step_scan(record, tmp_path) -> None:
    scan = Scan(
        tmp_path, {"x": NUMBER, "cam": FRAMES, "cam_time": STAMP, "cam_id": STAMP}
    )
    sinks = [
        scan.attach("cam"),
        scan.attach("cam_time", dtype="<f8", shape=(), units="s"),
        scan.attach("cam_id", dtype="<u8", shape=()),
    ]
    # The first row was left behind by a trigger that was repeated.
    for number in range(4):
        for sink, value in zip(
            sinks, (frame(number), 50.0 + number, np.uint64(number)), strict=True
        ):
            sink.write(value)
        if number:
            for key in ("cam", "cam_time", "cam_id"):
                scan.announce(key, number, number)
            scan.event(time=10.0 + number, x=float(number))
    run = record(scan.stop())
    dataset = run.primary.read()
    assert dataset["cam"].dims == ("time", "cam_y", "cam_x")
    assert dataset["cam"].dtype == np.uint16
    assert dataset["cam"][:, 0, 0].values.tolist() == [1, 2, 3]
    assert dataset["time"].values.tolist() == [11.0, 12.0, 13.0]
    assert "cam_time" in dataset.coords
    assert dataset["cam_time"].values.tolist() == [51.0, 52.0, 53.0]
    assert dataset["cam_id"].values.tolist() == [1, 2, 3]
    assert "cam_id" in dataset.data_vars
    assert_documents_equal(run.documents(), scan.documents)


def test_several_frames_per_event(record, tmp_path) -> None:
    keys = {
        "cam": {**FRAMES, "shape": [3, 2, 3], "dims": ["cam_frame", "cam_y", "cam_x"]},
        "cam_time": {**STAMP, "dtype": "array", "shape": [3], "dims": ["cam_frame"]},
    }
    scan = Scan(tmp_path, keys)
    cam, stamps = scan.attach("cam"), scan.attach("cam_time", dtype="<f8", shape=())
    for number in range(6):
        cam.write(frame(number))
        stamps.write(float(number))
    scan.announce("cam", 0, 1, 2)
    scan.announce("cam_time", 0, 1, 2)
    run = record(scan.stop())
    dataset = run.primary.read()
    assert dataset["cam"].dims == ("time", "cam_frame", "cam_y", "cam_x")
    assert dataset["cam"][:, :, 0, 0].values.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert dataset["cam_time"].dims == ("time", "cam_frame")
    # Nobody took the time of the events: that of their first frame stands in.
    assert dataset["time"].values.tolist() == [0.0, 3.0]
    assert run.primary.num_events == 2


def test_one_frame_that_is_declared_as_a_stack_of_one(record, tmp_path) -> None:
    scan = Scan(tmp_path, {"cam": {**FRAMES, "shape": [1, 2, 3]}})
    scan.attach("cam").write_many(np.stack([frame(n) for n in range(4)]))
    scan.announce("cam", 0, 1, 4)
    run = record(scan.stop())
    assert run.primary.read()["cam"].dims == ("time", "cam_y", "cam_x")


def test_a_fly_scan_without_stamps_has_no_times(record, tmp_path) -> None:
    scan = Scan(tmp_path, {"cam": FRAMES})
    scan.attach("cam").write_many(np.stack([frame(n) for n in range(4)]))
    scan.announce("cam", 0, 1, 4)
    run = record(scan.stop())
    dataset = run.primary.read()
    assert np.isnan(dataset["time"]).all()
    assert dataset["seq_num"].values.tolist() == [1, 2, 3, 4]
    assert dataset["cam"][:, 1, 1].values.tolist() == [0, 1, 2, 3]


def test_while_it_goes_on_there_is_what_all_fields_have(record, tmp_path) -> None:
    keys = {"x": NUMBER, "cam": FRAMES, "other": {**FRAMES, "shape": [2, 3]}}
    scan = Scan(tmp_path, keys)
    cam, other = scan.attach("cam"), scan.attach("other")
    for number in range(3):
        cam.write(frame(number))
        other.write(frame(10 + number))
        scan.announce("cam", number, number + 1)
        if number < 2:
            scan.announce("other", number, number + 1)
            scan.event(x=float(number))
    run = record(scan.documents)
    dataset = run.primary.read()
    assert dataset.sizes["time"] == 2
    assert dataset["other"][:, 0, 0].values.tolist() == [10, 11]
    assert run.primary.read("cam").sizes["time"] == 2
    assert run.exit_status is None
    assert run.stop is None
    # The same objects see more when there is more.
    seen = len(scan.documents)
    scan.announce("other", 2, 3)
    scan.event(x=2.0)
    record([scan.documents[0], *scan.documents[seen:]])
    assert run.primary.read().sizes["time"] == 3
    scan.close()


def test_frames_that_are_gone_are_left_out_unless_they_are_asked_for(
    record, tmp_path
) -> None:
    scan = Scan(tmp_path, {"x": NUMBER, "cam": FRAMES})
    scan.attach("cam").write(frame(0))
    scan.announce("cam", 0, 1)
    scan.event(x=1.0)
    run = record(scan.stop())
    shutil.rmtree(tmp_path / "x.zarr" / "frames")
    with pytest.warns(BeamtimeWarning, match="frames of 'cam' cannot be read"):
        dataset = run.primary.read()
    assert list(dataset.data_vars) == ["x"]
    with pytest.raises(StoreReadError):
        run.primary.read(["x", "cam"])
    assert run.primary.read("x")["x"].values.tolist() == [1.0]
    assert run.accounting == {
        "cam": dict.fromkeys(("expected", "received", "dropped", "late", "written"))
    }


def test_a_format_that_nobody_reads_is_left_out(record, tmp_path) -> None:
    scan = Scan(tmp_path, {"x": NUMBER, "cam": FRAMES})
    resource = scan.bundle.compose_stream_resource(
        mimetype="application/x-unheard-of",
        uri="file://localhost/a",
        data_key="cam",
        parameters={},
    )
    scan.documents.append(("stream_resource", resource.stream_resource_doc))
    datum = resource.compose_stream_datum(
        seq_nums={"start": 1, "stop": 2},
        indices={"start": 0, "stop": 1},
        descriptor=scan.stream.descriptor_doc,
    )
    scan.documents.append(("stream_datum", datum))
    scan.event(x=1.0)
    run = record(scan.stop())
    with pytest.warns(BeamtimeWarning, match="unheard-of"):
        assert list(run.primary.read().data_vars) == ["x"]


def test_frames_are_accounted_for(record, tmp_path) -> None:
    scan = Scan(tmp_path, {"cam": FRAMES, "cam_time": STAMP, "plain": FRAMES})
    cam, stamps, plain = (
        scan.attach("cam"),
        scan.attach("cam_time", dtype="<f8", shape=()),
        scan.attach("plain"),
    )
    cam.write_many(np.stack([frame(n) for n in range(4)]))
    stamps.write_many(np.arange(4.0))
    plain.write(frame(1))
    cam.set_attributes(
        {
            "accounting": {
                "expected": 6,
                "received": 4,
                "dropped": 2,
                "late": 0,
                "written": 9,
            }
        }
    )
    run = record(scan.stop())
    assert run.accounting == {
        "cam": {"expected": 6, "received": 4, "dropped": 2, "late": 0, "written": 4},
        "plain": {
            "expected": None,
            "received": None,
            "dropped": None,
            "late": None,
            "written": 1,
        },
    }
    assert run.summary()["frames"] == run.accounting


# ------------------------------------------------------------------------------ moving


def test_the_folder_may_move(tmp_path) -> None:
    from bluesky_beamtime.recording import DocumentRecorder

    before = tmp_path / "before"
    before.mkdir()
    scan = Scan(before, {"cam": FRAMES, "img": {**FRAMES, "external": "OLD:"}})
    scan.attach("cam").write(frame(7))
    scan.announce("cam", 0, 1)
    outside = scan.bundle.compose_stream_resource(
        mimetype="application/x-zarr",
        uri="file://localhost/elsewhere/a",
        data_key="cam",
        parameters={},
    )
    scan.documents.append(("stream_resource", outside.stream_resource_doc))
    for root in (f"{before}/tiffs", "/elsewhere"):
        resource = scan.bundle.compose_resource(
            spec="S", root=root, resource_path="a", resource_kwargs={}
        )
        scan.documents.append(("resource", resource.resource_doc))
    scan.event(img=frame(9))
    documents = scan.stop()
    database = Database(before / "x.db")
    recorder = DocumentRecorder(database)
    for name, doc in documents:
        recorder(name, doc)
    recorder.close()
    database.close()

    after = tmp_path / "after wards" / "ü#"
    after.parent.mkdir()
    before.rename(after)
    moved = Database(after / "x.db", mode="r")
    run = Run(moved, documents[0][1]["uid"], JournalIndex(moved.journal))
    assert_documents_equal(run.documents(original=True), documents)
    given = {doc["uid"]: doc for _, doc in run.documents()}
    first, second = (d for n, d in documents if n == "stream_resource")
    from bluesky_beamtime.storage import from_uri

    assert from_uri(given[first["uid"]]["uri"]).startswith(f"{after}/x.zarr/frames/")
    assert given[second["uid"]] == second
    tiffs, elsewhere = (d for n, d in documents if n == "resource")
    assert given[tiffs["uid"]]["root"] == f"{after}/tiffs"
    assert given[elsewhere["uid"]] == elsewhere
    dataset = run.primary.read()
    assert int(dataset["cam"][0, 0, 0]) == 7
    assert int(dataset["img"][0, 0, 0]) == 9
    moved.close()


def test_a_reference_out_of_the_store_is_not_followed(
    record, tmp_path, database
) -> None:
    import sqlite3
    from contextlib import closing

    scan = Scan(tmp_path, {"img": {**FRAMES, "external": "OLD:"}})
    scan.event(img=frame(1))
    run = record(scan.stop())
    with ShardedArray.create(tmp_path / "secret", dtype="<u2", shape=(2, 3)) as array:
        array.append(frame(5))
        array.publish()
    with closing(sqlite3.connect(database.path)) as connection:
        connection.execute(
            "UPDATE events SET data = "
            "json_set(data, '$.img.\"$array\".path', '../secret')"
        )
        connection.commit()
    with pytest.raises(StoreReadError, match="not in the beamtime's own store"):
        list(run.documents())
    with pytest.raises(StoreReadError, match="not in the beamtime's own store"):
        run.primary.read()


# ------------------------------------------------------------------------------- names


def test_names_that_clash_find_a_way(record, tmp_path) -> None:
    wave = {"source": "s", "dtype": "array", "shape": [2], "dims": ["x"]}
    keys = {
        "time": NUMBER,
        "seq_num": NUMBER,
        "a": wave,
        "b": {**wave, "shape": [3]},
        "c": {**wave, "dims": ["time"]},
        "c_x": NUMBER,
        "d": {**wave, "dims": ["seq_num"]},
    }
    scan = Scan(tmp_path, keys)
    for number in range(2):
        data = {"time": 5.0, "seq_num": 7.0, "a": [1, 2], "b": [1, 2, 3]}
        data |= {"c": [4, 5], "c_x": 1.0, "d": [6, number]}
        event = scan.stream.compose_event(
            data=data, timestamps=dict.fromkeys(data, 1.0)
        )
        scan.documents.append(("event", event))
    run = record(scan.stop())
    dataset = run.primary.read()
    assert dataset["time_value"].values.tolist() == [5.0, 5.0]
    assert dataset["seq_num_value"].values.tolist() == [7.0, 7.0]
    assert dataset["seq_num"].values.tolist() == [1, 2]
    assert dataset["a"].dims == ("time", "x")
    assert dataset["b"].dims == ("time", "b_x")
    assert dataset["c"].dims == ("time", "c_x_")
    assert dataset["d"].values.tolist() == [[6, 0], [6, 1]]
    assert len(run.primary.timestamps().data_vars) == len(keys)


# ---------------------------------------------------------------------------- pictures


def test_pictures(record, tmp_path) -> None:
    scan = Scan(tmp_path, {"m": NUMBER, "x": NUMBER, "cam": FRAMES}, motors=["m"])
    cam = scan.attach("cam")
    for number in range(3):
        cam.write(frame(number))
        scan.announce("cam", number, number + 1)
        scan.event(m=number / 2, x=float(number))
    run = record(scan.stop())
    axes = run.plot()
    assert axes.images[0].get_array().tolist() == frame(2).tolist()
    assert "cam, newest" in axes.get_title()
    again = run.primary.plot("x", axes=axes)
    assert again is axes
    assert axes.lines[0].get_xydata().tolist() == [[0, 0], [0.5, 1], [1, 2]]
    assert (axes.get_xlabel(), axes.get_title()) == ("m", "x (mm)")
    assert "data:image/png;base64," in run._repr_html_()
    with pytest.raises(DocumentError, match="no picture of 'y'"):
        run.plot("y")


def test_without_anything_to_draw_the_table_stands_alone(record, tmp_path) -> None:
    run = record(Scan(tmp_path, {"word": {**NUMBER, "dtype": "string"}}).stop())
    with pytest.raises(DocumentError, match="no field that can be drawn"):
        run.plot()
    assert "<img" not in run._repr_html_()


def test_without_matplotlib_the_extra_is_named(record, tmp_path, monkeypatch) -> None:
    scan = Scan(tmp_path, {"x": NUMBER})
    scan.event(x=1.0)
    run = record(scan.stop())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"bluesky-beamtime\[plot\]"):
        run.plot()
    assert "<img" not in run._repr_html_()
