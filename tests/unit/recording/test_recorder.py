"""Documents into the database, good ones and bad ones."""

from __future__ import annotations

import copy
import logging
import os
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import (
    DocumentNames,
    compose_resource,
    compose_run,
    compose_stream_resource,
    pack_datum_page,
    pack_event_page,
)

from bluesky_beamtime.database import Database, statements
from bluesky_beamtime.database.event_arrays import EventArrays
from bluesky_beamtime.errors import (
    BeamtimeError,
    BeamtimeWarning,
    DatabaseError,
    DatabaseWriteError,
    DocumentError,
)
from bluesky_beamtime.recording import DocumentRecorder
from bluesky_beamtime.testing import assert_documents_equal

KEY = {"source": "s", "dtype": "number", "shape": []}


def plain(path: Path, query: str, *values: Any) -> list[Any]:
    """Ask the file with nothing but Python's own sqlite3."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, values).fetchall()


def test_what_goes_in_comes_out(recording, documents) -> None:
    run = recording(documents)
    assert_documents_equal(run.documents(), documents)
    assert run.exit_status == "success"
    assert run.complete
    assert recording.journaled() == []


def test_each_document_is_there_when_the_call_returns(recording, documents) -> None:
    for number, (name, doc) in enumerate(documents, start=1):
        recording.recorder(name, doc)
        run = recording.run(documents[0][1]["uid"])
        assert_documents_equal(run.documents(), documents[:number])


def test_a_plain_user_finds_runs_samples_and_values(recording, documents) -> None:
    documents[0][1]["sample"] = {"name": "LaB6", "formula": "LaB6"}
    recording(documents)
    path = recording.database.path
    uid = documents[0][1]["uid"]
    rows = plain(
        path,
        "SELECT runs.uid, runs.scan_id, runs.plan_name, samples.name, exit_status, "
        "num_events, time_start, time_stop FROM runs "
        "JOIN samples ON samples.id = runs.sample_id",
    )
    start, stop = documents[0][1]["time"], documents[-1][1]["time"]
    assert rows == [(uid, 7, "count", "LaB6", "success", 8, start, stop)]
    values = plain(
        path,
        "SELECT seq_num, json_extract(data, '$.primary_x') FROM events "
        "JOIN streams ON streams.uid = events.stream_uid "
        "WHERE streams.name = 'primary' AND streams.run_uid = ? ORDER BY seq_num",
        uid,
    )
    assert values == [(1, 0.0), (2, 1 / 3), (3, 2 / 3), (4, 1.0)]
    assert plain(path, "SELECT json_extract(metadata, '$.scan_id') FROM runs") == [(7,)]


def test_names_may_be_members_of_the_enumeration(recording, documents) -> None:
    for name, doc in documents:
        recording.recorder(DocumentNames[name], doc)
    run = recording.run(documents[0][1]["uid"])
    assert_documents_equal(run.documents(), documents)


def test_a_document_that_comes_twice_is_stored_once(recording, documents) -> None:
    doubled = [pair for pair in documents for _ in range(2)]
    run = recording(doubled)
    assert_documents_equal(run.documents(), documents)
    # The whole run once more, when it is over.
    recording(documents)
    assert_documents_equal(run.documents(), documents)
    assert recording.journaled() == []


def test_two_recorders_of_one_file_store_each_document_once(
    recording, documents
) -> None:
    other = DocumentRecorder(recording.database)
    for name, doc in documents[:5]:
        recording.recorder(name, doc)
        other(name, doc)
    for name, doc in documents[5:]:
        other(name, doc)
        recording.recorder(name, doc)
    other.close()
    run = recording.run(documents[0][1]["uid"])
    assert_documents_equal(run.documents(), documents)


def test_another_recorder_goes_on_with_a_run(recording, documents) -> None:
    for name, doc in documents[:6]:
        recording.recorder(name, doc)
    recording.recorder.close()
    other = DocumentRecorder(recording.database)
    for name, doc in documents[6:]:
        other(name, doc)
    run = recording.run(documents[0][1]["uid"])
    assert_documents_equal(run.documents(), documents)
    assert run.exit_status == "success"
    assert run.num_events == 8
    other.close()


def test_runs_may_be_nested_and_interleaved(recording, make_documents) -> None:
    outer, inner, third = (make_documents(n, scan_id=n) for n in (3, 4, 5))
    queues = [outer, inner, third]
    order: list[Any] = []
    while any(queues):
        for queue, count in zip(queues, (1, 3, 2), strict=True):
            order += queue[:count]
            del queue[:count]
    for name, doc in order:
        recording.recorder(name, doc)
    for scan_id in (3, 4, 5):
        (start,) = (d for n, d in order if n == "start" and d["scan_id"] == scan_id)
        mine = [start["uid"]]
        expected = []
        for name, doc in order:
            if doc.get("run_start", doc.get("descriptor", doc["uid"])) in mine:
                expected.append((name, doc))
                mine.append(doc["uid"])
        run = recording.run(start["uid"])
        assert_documents_equal(run.documents(), expected)
        assert run.num_events == 2 * scan_id
    assert recording.recorder.open_runs == []


def test_pages_come_back_as_what_is_in_them(recording, documents) -> None:
    events = [doc for name, doc in documents if name == "event"]
    primary, baseline = events[::2], events[1::2]
    paged = [
        *documents[:3],
        ("event_page", pack_event_page(*primary)),
        ("bulk_events", {baseline[0]["descriptor"]: baseline}),
        documents[-1],
    ]
    run = recording(paged)
    assert_documents_equal(run.documents(), paged)
    names = [name for name, _ in run.documents()]
    assert names == ["start", "descriptor", "descriptor", *["event"] * 8, "stop"]
    recording(paged)
    assert_documents_equal(run.documents(), paged)
    assert recording.journaled() == []


def test_a_page_with_columns_of_arrays(recording) -> None:
    bundle = compose_run()
    stream = bundle.compose_descriptor(name="fly", data_keys={"a": KEY, "b": KEY})
    page = {
        "time": np.array([1.0, 2.0]),
        "uid": ["e1", "e2"],
        "seq_num": np.array([1, 2]),
        "descriptor": stream.descriptor_doc["uid"],
        "data": {"a": np.array([1.5, np.nan]), "b": np.arange(6).reshape(2, 3)},
        "timestamps": {"a": [1.0, 2.0], "b": [1.0, 2.0]},
        "filled": {},
    }
    documents = [
        ("start", bundle.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("event_page", page),
        ("stop", bundle.compose_stop()),
    ]
    run = recording(documents)
    assert_documents_equal(run.documents(), documents)
    (_, first), (_, second) = list(run.documents())[2:4]
    assert (first["data"]["a"], first["seq_num"]) == (1.5, 1)
    assert second["data"]["b"].tolist() == [3, 4, 5]


def test_legacy_resources_and_datums(recording) -> None:
    bundle = compose_run()
    external = {**KEY, "external": "FILESTORE:"}
    stream = bundle.compose_descriptor(name="primary", data_keys={"img": external})
    resource = bundle.compose_resource(
        spec="AD_TIFF",
        root="/data",
        resource_path="a/b",
        resource_kwargs={"n": float("inf")},
    )
    datums = [resource.compose_datum(datum_kwargs={"point": n}) for n in range(6)]
    event = stream.compose_event(
        data={"img": datums[0]["datum_id"]},
        timestamps={"img": 1.0},
        filled={"img": False},
    )
    bulk = {
        "resource": resource.resource_doc["uid"],
        "datum_ids": [datum["datum_id"] for datum in datums[4:]],
        "datum_kwarg_list": [datum["datum_kwargs"] for datum in datums[4:]],
    }
    documents = [
        ("start", bundle.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("resource", resource.resource_doc),
        ("datum", datums[0]),
        ("event", event),
        ("datum", dict(reversed(list(datums[1].items())))),
        ("datum_page", pack_datum_page(*datums[2:4])),
        ("bulk_datum", bulk),
        ("stop", bundle.compose_stop()),
    ]
    run = recording(documents)
    assert_documents_equal(run.documents(), documents)
    recording(documents)
    assert_documents_equal(run.documents(), documents)
    assert run.primary.read()["img"].values.tolist() == [datums[0]["datum_id"]]


def test_a_resource_without_a_run_belongs_to_the_newest(recording) -> None:
    resource = compose_resource(
        spec="S", root="/", resource_path="a", resource_kwargs={}
    )
    first, second = compose_run(), compose_run()
    doc = {key: v for key, v in resource.resource_doc.items() if key != "run_start"}
    stream = compose_stream_resource(
        mimetype="application/x-zarr",
        uri="file://localhost/a",
        data_key="cam",
        parameters={},
    )
    stream_doc = {
        k: v for k, v in stream.stream_resource_doc.items() if k != "run_start"
    }
    documents = [
        ("start", first.start_doc),
        ("start", second.start_doc),
        ("resource", doc),
        ("stream_resource", stream_doc),
        ("stop", second.compose_stop()),
    ]
    for name, document in documents:
        recording.recorder(name, document)
    run = recording.run(second.start_doc["uid"])
    assert_documents_equal(run.documents(), documents[1:])


def test_stream_documents(recording) -> None:
    bundle = compose_run()
    stream = bundle.compose_descriptor(
        name="primary", data_keys={"cam": {**KEY, "external": "STREAM:"}}
    )
    resource = bundle.compose_stream_resource(
        mimetype="application/x-zarr",
        uri="file://localhost/elsewhere/cam",
        data_key="cam",
        parameters={"chunk_shape": (1, 2), "nan": float("nan")},
    )
    datums = [
        resource.compose_stream_datum(
            seq_nums={"start": n + 1, "stop": n + 2},
            indices={"start": n, "stop": n + 1},
            descriptor=stream.descriptor_doc,
        )
        for n in range(4)
    ]
    datums[1] = dict(reversed(list(datums[1].items())))
    datums[2]["indices"] = {"stop": 3, "start": 2}
    datums[3]["more"] = float("inf")
    documents = [
        ("start", bundle.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("stream_resource", resource.stream_resource_doc),
        *(("stream_datum", datum) for datum in datums),
        ("stop", bundle.compose_stop()),
    ]
    run = recording(documents)
    assert_documents_equal(run.documents(), documents)
    recording(documents)
    assert_documents_equal(run.documents(), documents)


@pytest.mark.parametrize(
    "change",
    [
        {"time": 5},
        {"time": float("nan")},
        {"time": float("inf")},
        {"time": -0.0},
        {"time": np.float32(1.5)},
        {"seq_num": np.int32(1)},
        {"more": {"$x": None}, "and": [np.arange(3)]},
        {"filled": {"primary_x": "other"}},
        {"data": {}},
        {"data": {"\ud800": np.zeros(2), "": np.zeros(2), "..": np.zeros(2)}},
        {"data": {"a": np.zeros((2, 2)), "b": np.zeros((2, 2)), "c": "$"}},
        {"timestamps": {"primary_x": float("nan")}},
        {"uid": "ü'\"; DROP TABLE runs"},
    ],
)
def test_unusual_events_come_back(recording, documents, change) -> None:
    documents[3][1].update(change)
    run = recording(documents)
    assert_documents_equal(run.documents(), documents)
    assert recording.journaled() == []


def test_keys_in_any_order_or_missing_come_back(recording, documents) -> None:
    documents = [(n, dict(sorted(d.items(), reverse=True))) for n, d in documents]
    del documents[3][1]["filled"]
    run = recording(documents)
    assert_documents_equal(run.documents(), documents)


def test_the_recorder_keeps_nothing_of_what_it_was_given(recording, documents) -> None:
    frame = np.zeros((2, 2))
    documents[3][1]["data"]["img"] = frame
    expected = copy.deepcopy(documents)
    for name, doc in documents:
        recording.recorder(name, doc)
        doc.pop("uid")
        doc.clear()
    frame[:] = 1
    run = recording.run(expected[0][1]["uid"])
    assert_documents_equal(run.documents(), expected)


def test_numpy_inside_metadata_comes_back(recording, documents) -> None:
    documents[0][1]["mask"] = np.eye(3, dtype=bool)
    documents[0][1]["limits"] = (np.float64("nan"), np.int8(3))
    documents[1][1]["configuration"] = {"det": {"data": {"roi": np.arange(4)}}}
    documents[-1][1]["more"] = {1: 2}
    run = recording(documents)
    assert_documents_equal(run.documents(), documents)


def test_an_object_without_a_form_is_kept_as_text_loudly(recording, documents) -> None:
    documents[0][1]["motor"] = object
    with pytest.warns(
        BeamtimeWarning, match=r"1 objects.*kept as text.*class 'object'"
    ):
        run = recording(documents)
    assert run.start["motor"] == "<class 'object'>"
    assert run.complete


def test_an_array_does_not_lose_its_mask_silently(recording) -> None:
    """NaN is in its place, in the store and in what is read, and a warning says so."""
    run = compose_run()
    key = {"dtype": "array", "shape": [2], "source": "s"}
    stream = run.compose_descriptor(name="primary", data_keys={"m": key})
    docs = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for mask in ([False, True], [False, False]):
        data = {"m": np.ma.array([1, 999], mask=mask)}
        event = stream.compose_event(data=data, timestamps={"m": 0.0}, validate=False)
        docs.append(("event", event))
    with pytest.warns(BeamtimeWarning, match=r"NaN .*masked: 1 of int64 \(2,\)"):
        recorded = recording([*docs, ("stop", run.compose_stop())])
    found = recorded.primary.read()["m"].values
    np.testing.assert_array_equal(found, [[1, np.nan], [1, 999]])
    assert recorded.complete


def test_a_sample_that_is_none_does_not_cost_the_run(recording, documents) -> None:
    documents[0][1]["sample"] = 3
    with pytest.warns(BeamtimeWarning, match="without a sample"):
        run = recording(documents)
    assert_documents_equal(run.documents(), documents)
    assert run.sample is None
    assert run.complete


# ---------------------------------------------------------------------- malformed ones


def without(doc: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in doc.items() if name != key}


MALFORMED = [
    ("event", lambda event: without(event, "uid")),
    ("event", lambda event: without(event, "data")),
    ("event", lambda event: without(event, "timestamps")),
    ("event", lambda event: without(event, "seq_num")),
    ("event", lambda event: without(event, "time")),
    ("event", lambda event: without(event, "descriptor")),
    ("event", lambda event: {**event, "descriptor": "nobody"}),
    ("event", lambda event: {**event, "descriptor": []}),
    ("event", lambda event: {**event, "descriptor": None}),
    ("event", lambda event: {**event, "uid": 3}),
    ("event", lambda event: {**event, "uid": ""}),
    ("event", lambda event: {**event, "uid": "\ud800"}),
    ("event", lambda event: {**event, "seq_num": 1.0}),
    ("event", lambda event: {**event, "seq_num": True}),
    ("event", lambda event: {**event, "seq_num": 2**70}),
    ("event", lambda event: {**event, "time": "now"}),
    ("event", lambda event: {**event, "time": 10**400}),
    ("event", lambda event: {**event, "data": [1]}),
    ("event", lambda event: {**event, "data": None}),
    ("event", lambda event: {**event, "timestamps": 1}),
    ("event", lambda event: {**event, "filled": 1}),
    ("event", lambda event: {}),
    ("event", lambda event: None),
    ("event", lambda event: 3),
    ("event", lambda event: [event]),
    ("nothing", lambda event: event),
    (None, lambda event: event),
    ([], lambda event: event),
    ("start", lambda event: {}),
    ("start", lambda event: {"uid": "a"}),
    ("start", lambda event: {"uid": None, "time": 1.0}),
    ("descriptor", lambda event: {"uid": "a", "run_start": "nobody"}),
    ("descriptor", lambda event: {"uid": "a"}),
    ("stop", lambda event: {"run_start": "nobody"}),
    ("stream_resource", lambda event: {"uid": "a", "run_start": 3}),
    ("stream_datum", lambda event: {"uid": "a", "descriptor": ""}),
    ("stream_datum", lambda event: {"uid": "a", "descriptor": event["descriptor"]}),
    (
        "stream_datum",
        lambda event: {
            "uid": "a",
            "stream_resource": "nobody",
            "descriptor": event["descriptor"],
            "indices": {"start": 0, "stop": 1},
            "seq_nums": {"start": 1, "stop": 2},
        },
    ),
    ("resource", lambda event: {"run_start": "nobody", "uid": "a"}),
    (
        "datum",
        lambda event: {"resource": "nobody", "datum_id": "a", "datum_kwargs": {}},
    ),
    ("event_page", lambda event: {"descriptor": event["descriptor"]}),
    (
        "event_page",
        lambda event: {**pack_event_page(event, event), "uid": ["a", "b", "c"]},
    ),
    (
        "event_page",
        lambda event: {**pack_event_page(event), "data": {"primary_x": []}},
    ),
    ("bulk_events", lambda event: {}),
    ("bulk_events", lambda event: {"x": [event, {**event, "descriptor": "nobody"}]}),
    ("datum_page", lambda event: {"resource": "nobody"}),
    ("bulk_datum", lambda event: {"resource": "nobody"}),
]


@pytest.mark.parametrize(("name", "make"), MALFORMED)
def test_a_malformed_document_is_put_aside_and_the_run_goes_on(
    recording, documents, name, make, caplog
) -> None:
    bad = make(copy.deepcopy(documents[3][1]))
    for good_name, good in documents[:5]:
        recording.recorder(good_name, good)
    with pytest.warns(BeamtimeWarning, match=r"malformed and was put aside.*journal"):
        recording.recorder(name, bad)
    assert any(r.levelno == logging.ERROR for r in caplog.records)
    for good_name, good in documents[5:]:
        recording.recorder(good_name, good)
    run = recording.run(documents[0][1]["uid"])
    assert_documents_equal(run.documents(), documents)
    (line,) = recording.journaled()
    assert line["kind"] == "quarantined"
    assert line["reason"]
    assert_documents_equal([("x", {"v": line["doc"]})], [("x", {"v": bad})])
    assert run.complete is (line["run"] is None)


def test_a_document_that_contains_itself_is_put_aside(recording, documents) -> None:
    bad: dict[str, Any] = {**documents[3][1]}
    bad["data"] = {"a": bad}
    for name, doc in documents[:3]:
        recording.recorder(name, doc)
    with pytest.warns(BeamtimeWarning, match="contains itself"):
        recording.recorder("event", bad)
    (line,) = recording.journaled()
    assert bad["uid"] in line["doc"]["repr"]
    assert not recording.run(documents[0][1]["uid"]).complete


class Hostile:
    """Raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("place", ["uid", "time", "document", "name"])
@pytest.mark.filterwarnings("ignore::bluesky_beamtime.errors.BeamtimeWarning")
def test_an_object_that_raises_when_it_is_shown_is_put_aside(
    recording, documents, place
) -> None:
    name, doc = "start", dict(documents[0][1], uid="another")
    if place == "document":
        doc = Hostile()
    elif place == "name":
        name = Hostile()
    else:
        doc[place] = Hostile()
    recording.recorder(name, doc)
    (entry,) = recording.journaled()
    assert "Hostile" in str(entry)
    # Nothing of it sticks to what comes after.
    run = recording(documents)
    assert_documents_equal(run.documents(), documents)


@pytest.mark.parametrize(
    "other",
    [
        np.full((2, 2), 8.0),
        np.full((2, 2), 7),
        np.full(4, 7.0),
        [[7.0, 7.0], [7.0, 8.0]],
        "an image",
        None,
    ],
)
def test_a_second_event_with_another_array_is_put_aside(recording, other) -> None:
    bundle = compose_run()
    key = {"source": "s", "dtype": "array", "shape": [2, 2]}
    stream = bundle.compose_descriptor(name="primary", data_keys={"img": key})
    image = np.array([[7.0, np.nan], [np.inf, -0.0]])
    event = stream.compose_event(data={"img": image}, timestamps={"img": 0.0})
    recorder = recording.recorder
    recorder("start", bundle.start_doc)
    recorder("descriptor", stream.descriptor_doc)
    recorder("event", event)
    # The same, also as JSON has it, is there already.
    recorder("event", event | {"data": {"img": image.copy()}})
    recorder("event", event | {"data": {"img": image.tolist()}})
    assert recording.journaled() == []
    with pytest.warns(BeamtimeWarning, match="has another value in 'data'"):
        recorder("event", event | {"data": {"img": other}})
    (entry,) = recording.journaled()
    assert (entry["name"], entry["kind"]) == ("event", "quarantined")
    (stored,) = [
        doc
        for name, doc in recording.run(bundle.start_doc["uid"]).documents()
        if name == "event"
    ]
    np.testing.assert_array_equal(stored["data"]["img"], image)


@pytest.mark.parametrize("same", [True, False])
def test_two_recorders_of_one_event_compare_their_arrays(
    recording, tmp_path, monkeypatch, same
) -> None:
    """Both have written the array when the first of them stores the event."""
    bundle = compose_run()
    key = {"source": "s", "dtype": "array", "shape": [2, 2]}
    stream = bundle.compose_descriptor(name="primary", data_keys={"img": key})
    image = np.array([[7.0, np.nan], [np.inf, -0.0]])
    event = stream.compose_event(data={"img": image}, timestamps={"img": 0.0})
    other = event if same else event | {"data": {"img": image[::-1]}}
    second = DocumentRecorder(Database(tmp_path / "x.db"))
    write, meanwhile = EventArrays.write, [lambda: recording.recorder("event", event)]

    def written(*arguments: Any) -> Any:
        stored = write(*arguments)
        while meanwhile:
            meanwhile.pop()()
        return stored

    for recorder in (recording.recorder, second):
        recorder("start", bundle.start_doc)
        recorder("descriptor", stream.descriptor_doc)
    monkeypatch.setattr(EventArrays, "write", written)
    if same:
        second("event", other)
        assert recording.journaled() == []
    else:
        with pytest.warns(BeamtimeWarning, match="has another value in 'data'"):
            second("event", other)
        assert len(recording.journaled()) == 1
    second.close()
    second._database.close()


@pytest.mark.parametrize("change", [{"timestamps": {"x": True}}, {"more": True}])
def test_true_is_not_one_in_a_second_event(recording, change) -> None:
    bundle = compose_run()
    stream = bundle.compose_descriptor(name="primary", data_keys={"x": KEY})
    event = stream.compose_event(data={"x": 1}, timestamps={"x": 1.0}) | {"more": 1}
    recording.recorder("start", bundle.start_doc)
    recording.recorder("descriptor", stream.descriptor_doc)
    recording.recorder("event", event)
    with pytest.warns(BeamtimeWarning, match="has another value in"):
        recording.recorder("event", event | change)
    assert len(recording.journaled()) == 1


def test_what_a_page_says_beyond_its_rows_stays(recording) -> None:
    bundle = compose_run()
    resource = bundle.compose_resource(
        spec="S", root="/r", resource_path="p", resource_kwargs={}
    )
    datums = [resource.compose_datum(datum_kwargs={"n": n}) for n in range(4)]
    page = pack_datum_page(*datums[:2]) | {"extra": [1]}
    bulk = {
        "resource": datums[2]["resource"],
        "datum_ids": [datum["datum_id"] for datum in datums[2:]],
        "datum_kwarg_list": [datum["datum_kwargs"] for datum in datums[2:]],
        "other": "x",
    }
    run = recording(
        [
            ("start", bundle.start_doc),
            ("resource", resource.resource_doc),
            ("datum_page", page),
            ("bulk_datum", bulk),
            ("stop", bundle.compose_stop()),
        ]
    )
    stored = [doc for name, doc in run.documents() if name == "datum"]
    assert stored == [
        *(datum | {"extra": [1]} for datum in datums[:2]),
        *(datum | {"other": "x"} for datum in datums[2:]),
    ]


def test_a_second_stop_is_put_aside(recording, documents) -> None:
    run = recording(documents)
    with pytest.warns(BeamtimeWarning, match="second stop"):
        recording.recorder("stop", {**documents[-1][1], "uid": "other"})
    assert_documents_equal(run.documents(), documents)


def test_a_filter_that_raises_warnings_does_not_reach_the_caller(
    recording, caplog
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recording.recorder("event", {})
    assert "put aside" in caplog.text
    assert len(recording.journaled()) == 1


def test_a_late_document_of_a_run_that_stopped_is_stored(recording, documents) -> None:
    late = documents.pop(6)
    run = recording(documents)
    recording.recorder(*late)
    names = [name for name, _ in run.documents()]
    assert names.count("event") == 8
    assert run.exit_status == "success"
    assert recording.journaled() == []


# --------------------------------------------------------------- when the disk refuses


class Refusing:
    """Makes the database refuse a statement."""

    def __init__(self, recording: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = 0
        self.statement: str | None = None
        real = recording.database.insert

        def insert(sql: str, row: Any) -> bool:
            if sql == self.statement:
                self.refused += 1
                raise DatabaseWriteError("the disk reports an error", errno=5)
            return real(sql, row)

        monkeypatch.setattr(recording.database, "insert", insert)


def test_what_cannot_be_stored_is_journaled_with_the_rest_of_its_run(
    recording, documents, monkeypatch
) -> None:
    refusing = Refusing(recording, monkeypatch)
    other = [
        (name, {**doc, "uid": f"other-{doc['uid']}"})
        for name, doc in copy.deepcopy(documents)
    ]
    for _, doc in other:
        for key in ("descriptor", "run_start"):
            if key in doc:
                doc[key] = f"other-{doc[key]}"
    for name, doc in documents[:5]:
        recording.recorder(name, doc)
    refusing.statement = statements.INSERT_EVENT
    with pytest.warns(
        BeamtimeWarning, match=r"could not be stored, nor will.*disk reports"
    ):
        recording.recorder(*documents[5])
    refusing.statement = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, doc in documents[6:]:
            recording.recorder(name, doc)
        recording(other)
    run = recording.run(documents[0][1]["uid"])
    assert_documents_equal(run.documents(), documents[:5])
    assert not run.complete
    assert "incomplete" in repr(run)
    assert refusing.refused == 1
    lines = recording.journaled()
    assert_documents_equal([(x["name"], x["doc"]) for x in lines], documents[5:])
    assert {line["kind"] for line in lines} == {"unstored"}
    assert {line["run"] for line in lines} == {run.uid}
    assert [line["ordinal"] for line in lines] == list(range(5, 5 + len(lines)))
    # Another run is not touched by it.
    untouched = recording.run(other[0][1]["uid"])
    assert_documents_equal(untouched.documents(), other)
    assert untouched.complete


def test_a_run_whose_start_cannot_be_stored_is_journaled(
    recording, documents, monkeypatch
) -> None:
    def inserting() -> None:
        raise DatabaseWriteError("the disk reports an error", errno=5)

    documents[3][1]["data"]["img"] = np.arange(6.0).reshape(2, 3)
    monkeypatch.setattr(recording.database, "inserting", inserting)
    with pytest.warns(BeamtimeWarning, match="start document of run"):
        recording.recorder(*documents[0])
    assert recording.recorder.open_runs[-1].plan_name == "count"
    monkeypatch.undo()
    for name, doc in documents[1:]:
        recording.recorder(name, doc)
    lines = recording.journaled()
    assert_documents_equal([(line["name"], line["doc"]) for line in lines], documents)
    assert {line["run"] for line in lines} == {documents[0][1]["uid"]}
    assert recording.recorder.open_runs == []


def test_a_journal_that_cannot_be_written_stops_the_plan(
    recording, documents, monkeypatch
) -> None:
    recording.database.journal.mkdir()
    for name, doc in documents[:3]:
        recording.recorder(name, doc)
    Refusing(recording, monkeypatch).statement = statements.INSERT_EVENT
    for _ in range(2):
        with pytest.raises(DatabaseWriteError, match=r"lost.*journal"):
            recording.recorder(*documents[3])
    with pytest.raises(DatabaseWriteError, match=r"lost.*journal"):
        recording.recorder("event", {})


def test_raise_raises(recording, documents, monkeypatch) -> None:
    recorder = DocumentRecorder(recording.database, on_error="raise")
    for name, doc in documents[:3]:
        recorder(name, doc)
    with pytest.raises(DocumentError, match="malformed event"):
        recorder("event", {})
    with pytest.raises(DocumentError, match="no kind of document"):
        recorder("nothing", {})
    refusing = Refusing(recording, monkeypatch)
    refusing.statement = statements.INSERT_EVENT
    with pytest.raises(DatabaseWriteError, match="disk reports"):
        recorder(*documents[3])
    refusing.statement = None
    for name, doc in documents[3:]:
        recorder(name, doc)
    run = recording.run(documents[0][1]["uid"])
    assert_documents_equal(run.documents(), documents)
    assert recording.journaled() == []
    with pytest.raises(ValueError, match="on_error is"):
        DocumentRecorder(recording.database, on_error="ignore")
    recorder.close()


def test_anything_unforeseen_is_journaled_too(
    recording, documents, monkeypatch
) -> None:
    for name, doc in documents[:3]:
        recording.recorder(name, doc)

    def insert(sql: str, row: Any) -> bool:
        raise RuntimeError("never heard of")

    monkeypatch.setattr(recording.database, "insert", insert)
    with pytest.warns(BeamtimeWarning, match="never heard of"):
        recording.recorder(*documents[3])
    (line,) = recording.journaled()
    assert line["kind"] == "unstored"
    strict = DocumentRecorder(recording.database, on_error="raise")
    with pytest.raises(DatabaseError, match="never heard of") as caught:
        strict(*documents[4])
    assert isinstance(caught.value, BeamtimeError)
    strict.close()


def test_after_closing_documents_are_still_kept(recording, documents) -> None:
    recording.recorder(*documents[0])
    recording.recorder.close()
    recording.recorder.close()
    with pytest.warns(BeamtimeWarning, match="recorder is closed"):
        recording.recorder(*documents[1])
    assert len(recording.journaled()) == 1


def test_the_lock_shows_who_records(recording, documents) -> None:
    folder = recording.database.folder
    assert not any(name.endswith(".lock") for name in os.listdir(folder))
    for name, doc in documents[:4]:
        recording.recorder(name, doc)
    run = recording.run(documents[0][1]["uid"])
    assert run.exit_status is None
    assert run.stop is None
    assert run.complete
    assert "running" in repr(run)
    recording.recorder.close()
    assert run.exit_status == "interrupted"
    assert not run.complete
    assert not any(name.endswith(".lock") for name in os.listdir(folder))
