"""Runs that were cut off."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import zarr

from bluesky_beamtime.recording import (
    InterruptedRun,
    acquisition_name,
    label_interrupted,
)
from bluesky_beamtime.storage import FrameStore, ShardedArray
from bluesky_beamtime.testing import assert_documents_equal

KEY = {"source": "s", "dtype": "number", "shape": []}


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (
            InterruptedRun("u", 214, 311, 500, 311, 311),
            "run 214 was interrupted at point 311 of 500; 311 events and 311 frames "
            "are safe",
        ),
        (
            InterruptedRun("u", 1, 1, 2, 1, 0),
            "run 1 was interrupted at point 1 of 2; 1 event is safe",
        ),
        (
            InterruptedRun("u", 1, 0, None, 0, 1),
            "run 1 was interrupted at point 0; 0 events and 1 frame are safe",
        ),
        (
            InterruptedRun("0123456789", None, 3, None, 3, 0),
            "run 01234567 was interrupted at point 3; 3 events are safe",
        ),
    ],
)
def test_a_line_says_what_is_safe(run, sentence) -> None:
    assert str(run) == sentence


def cut_off(recording, documents, number: int):
    """Record the first documents and end as a process does that is killed."""
    for name, doc in documents[:number]:
        recording.recorder(name, doc)
    recording.recorder.close()
    return recording.run(documents[0][1]["uid"])


def test_a_run_that_was_cut_off_is_labelled_once(
    recording, make_documents, caplog
) -> None:
    documents = make_documents(5, num_points=5, scan_id=214)
    run = cut_off(recording, documents, 9)
    caplog.set_level(logging.INFO)
    (found,) = label_interrupted(recording.database)
    assert (found.scan_id, found.point, found.num_points, found.events) == (
        214,
        3,
        5,
        6,
    )
    assert caplog.messages == [
        "run 214 was interrupted at point 3 of 5; 6 events are safe"
    ]
    assert label_interrupted(recording.database) == []
    assert run.exit_status == "interrupted"
    assert run.stop is None
    assert run.num_events == 6
    # No document was made up.
    assert_documents_equal(run.documents(), documents[:9])


def test_runs_that_ended_or_go_on_are_left_alone(recording, make_documents) -> None:
    over, going = make_documents(2), make_documents(2)
    recording(over)
    for name, doc in going[:5]:
        recording.recorder(name, doc)
    assert label_interrupted(recording.database) == []
    run = recording.run(going[0][1]["uid"])
    assert run.exit_status is None
    recording(going)
    assert run.exit_status == "success"


def test_a_run_that_turns_out_to_go_on_gets_its_own_end(
    recording, make_documents
) -> None:
    from bluesky_beamtime.recording import DocumentRecorder

    documents = make_documents(3)
    run = cut_off(recording, documents, 5)
    assert len(label_interrupted(recording.database)) == 1
    other = DocumentRecorder(recording.database)
    other(*documents[5])
    assert run.exit_status is None
    for name, doc in documents[6:]:
        other(name, doc)
    other.close()
    assert run.exit_status == "success"
    assert_documents_equal(run.documents(), documents)


def test_frames_that_nobody_published_are_brought_back(
    recording, make_documents
) -> None:
    database = recording.database
    documents = make_documents(2, scan_id=7, plan_name="grid scan/1")
    name = acquisition_name("grid scan/1", 7)
    store = FrameStore(database.store / "frames", name=lambda: name)
    sink = store.attach("cam", dtype="<u2", shape=(2, 3))
    for number in range(5):
        sink.write(np.full((2, 3), number, "<u2"))
    sink.publish()
    uri = sink.uri
    store.detach(sink)
    # As a process leaves it that is killed before it published the last frames.
    import json
    from pathlib import Path

    from bluesky_beamtime.storage import from_uri
    from bluesky_beamtime.storage.layout import METADATA_FILE, read_metadata

    folder = Path(from_uri(uri))
    metadata = read_metadata(folder)
    metadata["shape"][0] = 2
    (folder / METADATA_FILE).write_text(json.dumps(metadata))
    cut_off(recording, documents, 4)
    (found,) = label_interrupted(database)
    assert found.frames == 5
    array = zarr.open_array(folder, mode="r")
    assert array[:, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_frames_are_counted(recording, make_documents) -> None:
    from event_model import compose_run

    database = recording.database
    bundle = compose_run(metadata={"scan_id": 3})
    stream = bundle.compose_descriptor(
        name="primary",
        data_keys={"cam": {**KEY, "external": "STREAM:"}, "img": KEY, "wave": KEY},
    )
    documents = [("start", bundle.start_doc), ("descriptor", stream.descriptor_doc)]
    for key, shape in (("cam", (2, 3)), ("cam_time", ())):
        folder = database.store / "frames" / "today" / "scan_00003" / key
        with ShardedArray.create(folder, dtype="<u2", shape=shape) as array:
            for _ in range(4):
                array.append(np.zeros(shape, "<u2"))
        resource = bundle.compose_stream_resource(
            mimetype="application/x-zarr",
            uri=f"file://localhost{folder}",
            data_key="cam",
            parameters={},
        )
        documents.append(("stream_resource", resource.stream_resource_doc))
    event = stream.compose_event(
        data={"img": np.zeros((2, 2)), "wave": np.zeros(4)},
        timestamps={"img": 1.0, "wave": 1.0},
    )
    documents.append(("event", event))
    cut_off(recording, documents, len(documents))
    (found,) = label_interrupted(database)
    assert (found.events, found.frames, found.point) == (1, 5, 1)


def test_damage_does_not_keep_a_beamtime_from_opening(
    recording, make_documents, caplog
) -> None:
    documents = make_documents(2)
    cut_off(recording, documents, 5)
    folder = recording.database.store / "runs" / documents[0][1]["uid"]
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_text("junk")
    assert len(label_interrupted(recording.database)) == 1
    assert "could not be checked" in caplog.text


@pytest.mark.parametrize(
    ("plan", "scan_id", "name"),
    [
        ("count", 7, "count_00007"),
        ("count", np.int64(7), "count_00007"),
        ("en_scan", 1234567, "en_scan_1234567"),
        ("../x", 1, "%2E./x_00001"),
        (None, 1, "run_00001"),
        ("", 1, "run_00001"),
        ("count", None, None),
        ("count", "7", None),
        ("count", True, None),
    ],
)
def test_folders_have_names_that_people_can_read(plan, scan_id, name) -> None:
    found = acquisition_name(plan, scan_id)
    if name is not None and "/" in name:
        assert found is not None and "/" not in found and not found.startswith(".")
    else:
        assert found == name
