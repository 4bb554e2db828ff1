"""The ways to read a stream: eager, lazy, with and without dask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from event_model import compose_run

from bluesky_beamtime.errors import DocumentError, RunNotFoundError

KEY = {"source": "PV:<x>", "dtype": "number", "shape": [], "units": "mm"}
IMAGE = {"source": "cam", "dtype": "array", "shape": [2, 3]}


def run_of(
    data_keys: dict[str, Any],
    events: list[dict[str, Any]],
    metadata: dict[str, Any] | None = None,
    **more: Any,
) -> list[tuple[str, Any]]:
    bundle = compose_run(metadata=metadata or {})
    stream = bundle.compose_descriptor(name="primary", data_keys=data_keys, **more)
    docs: list[tuple[str, Any]] = [("start", bundle.start_doc)]
    docs.append(("descriptor", stream.descriptor_doc))
    for data in events:
        stamps = dict.fromkeys(data, 1.0)
        doc = stream.compose_event(data=data, timestamps=stamps, validate=False)
        docs.append(("event", doc))
    return [*docs, ("stop", bundle.compose_stop())]


def frame(number: int) -> np.ndarray[Any, Any]:
    return np.arange(6, dtype="<u2").reshape(2, 3) + 10 * number


@pytest.fixture
def images(record) -> Any:
    events = [{"x": n, "img": frame(n)} for n in range(5)]
    return record(run_of({"x": KEY, "img": IMAGE}, events)).primary


INDEXES = [
    {"time": 1},
    {"time": -1},
    {"time": slice(1, None, 2)},
    {"time": [3, 0, 3]},
    {"time": [1, 2], "img_y": 1},
    {"time": 2, "img_y": slice(0, 1), "img_x": [2, 0]},
    {"time": [4, 1], "img_x": slice(None, None, -1)},
    {"time": slice(0, 0)},
]


@pytest.mark.parametrize("chunks", ["auto", None])
@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_frames_are_read_where_they_are_indexed(images, chunks, index) -> None:
    expected = images.read()["img"].compute().isel(index)
    found = images.read(chunks=chunks)["img"].isel(index)
    assert found.dims == expected.dims
    np.testing.assert_array_equal(found.values, expected.values)


def test_without_dask_nothing_is_dask_and_nothing_is_read_early(
    images, monkeypatch
) -> None:
    from bluesky_beamtime.database.rowframes import RowFrames

    reads: list[int] = []
    read = RowFrames._read
    monkeypatch.setattr(
        RowFrames,
        "_read",
        lambda self, rows: reads.append(len(rows)) or read(self, rows),
    )
    dataset = images.read(chunks=None)
    assert dataset["img"].chunks is None
    assert reads == []
    assert dataset["img"][3].values.tolist() == frame(3).tolist()
    assert reads == [1]
    assert images.read()["img"].chunks is not None


def test_frames_as_an_array_of_their_own(images) -> None:
    frames = images.frames("img")
    assert frames.shape == (5, 2, 3) and len(frames) == 5
    np.testing.assert_array_equal(frames[2], frame(2))
    np.testing.assert_array_equal(frames[[4, 0], 1], [frame(4)[1], frame(0)[1]])
    with pytest.raises(DocumentError, match="'x' are no frames"):
        images.frames("x")
    with pytest.raises(RunNotFoundError, match="no field 'y'"):
        images.frames("y")


def test_frames_of_several_shapes_are_objects(record) -> None:
    events = [{"img": frame(0)}, {"img": frame(1)[:1]}]
    stream = record(run_of({"img": IMAGE}, events)).primary
    for chunks in ("auto", None):
        values = stream.read(chunks=chunks)["img"].values
        assert [value.shape for value in values] == [(2, 3), (1, 3)]
    with pytest.raises(DocumentError, match="no frames of one shape"):
        stream.frames("img")


def test_a_value_in_the_event_of_a_field_that_was_to_be_streamed(record) -> None:
    keys = {
        "x": {**KEY, "external": "STREAM:"},
        "img": {**IMAGE, "external": "STREAM:"},
        "never": {**IMAGE, "external": "STREAM:"},
    }
    events = [{"x": n, "img": frame(n)} for n in range(2)]
    stream = record(run_of(keys, events)).primary
    dataset = stream.read()
    assert set(dataset.data_vars) == {"x", "img"}
    assert dataset["x"].values.tolist() == [0.0, 1.0]
    np.testing.assert_array_equal(dataset["img"][1], frame(1))


def test_configuration_has_plain_values_and_their_units(record) -> None:
    configuration = {
        "dev": {
            "data": {"gain": 2, "exposure": 0.1},
            "timestamps": {"gain": 1.0, "exposure": 1.0},
            "data_keys": {
                "gain": {"source": "s", "dtype": "integer", "shape": []},
                "exposure": {**KEY, "units": "s"},
            },
        }
    }
    stream = record(
        run_of(
            {"x": KEY},
            [{"x": 1}],
            configuration=configuration,
            object_keys={"dev": ["x"]},
        )
    ).primary
    assert stream.configuration == {"dev": {"gain": 2, "exposure": 0.1}}
    assert stream.configuration_units == {"dev": {"exposure": "s"}}


def test_a_stream_shows_its_fields_in_a_notebook(images) -> None:
    page = images._repr_html_()
    for word in ("5 events", "img", "mm", "2 × 3", "PV:&lt;x&gt;"):
        assert word in page


def test_a_grid_of_one_field_has_its_axes(record) -> None:
    metadata = {
        "shape": [2, 3],
        "snaking": [False, True],
        "hints": {"dimensions": [[["a"], "primary"], [["b"], "primary"]]},
        "extents": [[0, 1], [10, 12]],
    }
    points = [(0, 10), (0, 11), (0, 12), (1, 12)]
    keys = {"a": KEY, "b": KEY, "det": {**KEY, "dtype": "integer"}, "img": IMAGE}
    events = [
        {"a": a, "b": b, "det": n, "img": frame(n)} for n, (a, b) in enumerate(points)
    ]
    stream = record(run_of(keys, events, metadata)).primary
    grid = stream.to_grid("det", fill=-1)
    assert grid["a"].values.tolist() == [0.0, 1.0]
    assert grid["b"].values.tolist() == [10.0, 11.0, 12.0]
    assert grid["det"].values.tolist() == [[0, 1, 2], [-1, -1, 3]]
    assert "img" not in grid
    images = stream.to_grid(["img"])["img"]
    assert images.shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(images[1, 2], frame(3))
    assert np.isnan(images[1, 0]).all()


def test_a_datum_without_frames_says_nothing(record) -> None:
    bundle = compose_run(metadata={})
    keys = {"x": KEY, "cam": {**IMAGE, "external": "STREAM:"}}
    stream = bundle.compose_descriptor(name="primary", data_keys=keys)
    resource = bundle.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri="file://localhost/nowhere.h5",
        data_key="cam",
        parameters={},
    )
    datum = resource.compose_stream_datum(
        seq_nums={"start": 1, "stop": 1},
        indices={"start": 0, "stop": 0},
        descriptor=stream.descriptor_doc,
    )
    event = stream.compose_event(data={"x": 1}, timestamps={"x": 1.0}, validate=False)
    docs = [
        ("start", bundle.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("stream_resource", resource.stream_resource_doc),
        ("stream_datum", datum),
        ("event", event),
    ]
    dataset = record(docs).primary.read()
    assert dataset["x"].values.tolist() == [1.0]
    assert "cam" not in dataset
