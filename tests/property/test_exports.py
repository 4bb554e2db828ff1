"""Whatever a plan or a device says where names and units are wanted: it is exported."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import event_model
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import BeamtimeWarning, ExportError
from bluesky_beamtime.pages import stream_facts
from tests.exported import FORMATS

words = st.sampled_from(
    ["x", "y", "primary", "time", "\ud83d", "\0", "", "µm", "fields"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2)
    ),
    max_leaves=5,
)
dimensions = st.lists(st.lists(anything, min_size=2, max_size=2), max_size=2)
hints = st.dictionaries(words, st.fixed_dictionaries({"fields": anything}), max_size=2)


@pytest.fixture(scope="module")
def beamtime() -> Iterator[Beamtime]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Beamtime(Path(folder) / "x.db") as beamtime,
    ):
        yield beamtime


def emit(beamtime: Beamtime, said: dict[str, Any]) -> str:
    """Emit a run of two rows, in which documents say what was drawn."""
    composed = event_model.compose_run(
        metadata={"plan_name": "any", **said["start"]}, validate=False
    )
    beamtime("start", composed.start_doc)
    key = {"source": "sim", "dtype": "number", "shape": [], **said["data_key"]}
    stream = composed.compose_descriptor(
        name="primary",
        data_keys={"x": key, "y": {"source": "sim", "dtype": "number", "shape": []}},
        hints={},
        configuration={},
        object_keys={"x": ["x"], "y": ["y"]},
        validate=False,
    )
    beamtime("descriptor", {**stream.descriptor_doc, **said["descriptor"]})
    for value in (0.5, 1.5):
        event = stream.compose_event(
            data={"x": value, "y": value},
            timestamps={"x": 5.0, "y": 5.0},
            validate=False,
        )
        beamtime("event", event)
    beamtime("stop", composed.compose_stop())
    return composed.start_doc["uid"]


def said(
    start: Any = None, data_key: Any = None, descriptor: Any = None
) -> dict[str, Any]:
    given = {"start": start, "data_key": data_key, "descriptor": descriptor}
    return {place: told or {} for place, told in given.items()}


def export_all(beamtime: Beamtime, said: dict[str, Any]) -> Run:
    run = beamtime[emit(beamtime, said)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", BeamtimeWarning)
        for to, extension in FORMATS.items():
            try:
                paths = run.export(Path(folder) / f"run.{extension}", to)
            except ExportError:
                # No frames are in the run; msgpack has no integers of 70 bits.
                assert to in ("tiff", "ome-tiff", "msgpack")
                continue
            assert all(path.exists() for path in paths)
    return run


@pytest.mark.parametrize(
    "told",
    [
        said({"motors": None, "detectors": None}),
        said({"motors": 5, "detectors": [["x"], 5]}),
        said({"hints": {"dimensions": 5}}),
        said({"hints": {"dimensions": [[[["x"]], "primary"]]}}),
        said({"hints": {"dimensions": [[None, "primary"]]}}),
        said(descriptor={"hints": None}),
        said(descriptor={"hints": {"x": None}}),
        said(descriptor={"hints": {"x": {"fields": None}}}),
        said(descriptor={"hints": {"x": {"fields": [["x"]]}}}),
        said(data_key={"units": "\ud83d"}),
        said(data_key={"units": False, "precision": True}),
    ],
)
def test_a_wrong_word_costs_no_export_and_no_plot(
    beamtime: Beamtime, told: dict[str, Any]
) -> None:
    stream = export_all(beamtime, told).primary
    assert stream_facts(stream)["curves"]
    assert stream.plot("y").get_lines()


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.builds(
        said,
        start=st.fixed_dictionaries(
            {},
            optional={
                "motors": anything,
                "detectors": anything,
                "title": anything,
                "hints": anything
                | st.fixed_dictionaries({"dimensions": anything | dimensions}),
            },
        ),
        data_key=st.fixed_dictionaries(
            {}, optional={"units": anything, "precision": anything}
        ),
        descriptor=st.fixed_dictionaries({}, optional={"hints": anything | hints}),
    )
)
def test_anything_said_of_a_run_is_exported(
    beamtime: Beamtime, told: dict[str, Any]
) -> None:
    export_all(beamtime, told)
