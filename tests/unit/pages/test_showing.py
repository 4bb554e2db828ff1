"""What is drawn of a run: against which axis, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import RunNotFoundError
from bluesky_beamtime.pages import plot_svg, stream_facts, thumbnail_png
from bluesky_beamtime.pages.curves import scan_axis
from tests.exported import emit_reconfigured

NUMBER = {"source": "s", "dtype": "number", "shape": [], "units": "mm"}
IMAGE = {"source": "s", "dtype": "array", "shape": [4, 3], "dtype_numpy": "<u2"}


@pytest.fixture
def beamtime(tmp_path: Path) -> Iterator[Beamtime]:
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime


def emit(beamtime: Beamtime, rows: list[dict[str, Any]], **metadata: Any) -> Run:
    composed = event_model.compose_run(metadata=metadata, validate=False)
    beamtime("start", composed.start_doc)
    keys = {k: IMAGE if np.ndim(v) else NUMBER for k, v in rows[0].items()}
    stream = composed.compose_descriptor(
        name="primary",
        data_keys=keys,
        hints={"d": {"fields": ["signal"]}},
        object_keys={"d": list(keys)},
        validate=False,
    )
    beamtime("descriptor", stream.descriptor_doc)
    for row in rows:
        stamps = dict.fromkeys(row, 1.0)
        event = stream.compose_event(data=row, timestamps=stamps, validate=False)
        beamtime("event", event)
    beamtime("stop", composed.compose_stop())
    return beamtime[composed.start_doc["uid"]]


def grid(beamtime: Beamtime, points: int = 6) -> Run:
    rows = [
        {"y": float(n // 3), "x": float(n % 3), "signal": float(n)} for n in range(6)
    ]
    dimensions = [[["y"], "primary"], [["x"], "primary"]]
    return emit(
        beamtime,
        rows[:points],
        motors=["y", "x"],
        shape=[2, 3],
        hints={"dimensions": dimensions},
    )


def test_grid_of_two_axes_is_a_map(beamtime: Beamtime) -> None:
    for points in (6, 4):
        drawing = plot_svg(grid(beamtime, points).primary, "signal")
        assert "data:image/png;base64," in drawing
        assert f"signal (mm), 0 to {points - 1}" in drawing
        assert ">x (mm)<" in drawing
        assert ">y (mm)<" in drawing
    curve = plot_svg(grid(beamtime).primary, "signal", "y")
    assert "<polyline" in curve


def test_curve_is_against_the_axis_that_was_scanned(beamtime: Beamtime) -> None:
    rows = [{"signal": float(n), "m": 2.0 * n, "other": 1.0} for n in range(4)]
    for metadata, axis in (
        ({"hints": {"dimensions": [[["m"], "primary"]]}}, "m"),
        ({"motors": ["m"]}, "m"),
        ({"hints": {"dimensions": [[["time"], "primary"]]}}, ""),
        ({"hints": {"dimensions": "nonsense"}, "motors": None}, ""),
        ({"hints": {"dimensions": [[["m"], "baseline"]]}}, ""),
        ({"shape": 7}, ""),
    ):
        run = emit(beamtime, rows, **metadata)
        assert scan_axis(run.primary) == axis
        label = "m (mm)" if axis else "event"
        assert f">{label}<" in plot_svg(run.primary, "signal")
        facts = stream_facts(run.primary)
        assert facts["curves"][0] == "signal"
        assert axis not in facts["curves"]


@pytest.mark.filterwarnings("error")
def test_units_that_changed_are_all_told(beamtime: Beamtime) -> None:
    told = ({"exposure": 1, "units": "V"}, {"exposure": 2, "units": "mV"})
    stream = beamtime[emit_reconfigured(beamtime, *told)].primary
    assert stream_facts(stream)["units"] == {"det": "V, mV"}
    assert "det (V, mV)" in plot_svg(stream, "det")


def test_what_is_no_curve_is_refused(beamtime: Beamtime) -> None:
    run = emit(beamtime, [{"signal": 1.0, "image": np.zeros((4, 3), "u2")}])
    with pytest.raises(RunNotFoundError, match="no curve"):
        plot_svg(run.primary, "image")
    assert stream_facts(run.primary)["frames"][0]["shape"] == [1, 4, 3]


def test_damaged_images_leave_the_numbers(beamtime: Beamtime) -> None:
    rows = [{"signal": float(n), "image": np.full((4, 3), n, "u2")} for n in range(3)]
    run = emit(beamtime, rows)
    whole = thumbnail_png(run)
    array = beamtime.path.with_name("x.zarr") / "runs" / run.uid / "primary" / "image"
    assert array.is_dir()
    array.rename(array.with_name("gone"))
    facts = stream_facts(run.primary)
    assert "image" in facts["error"]
    assert facts["curves"] == ["signal"]
    assert [row[1] for row in facts["rows"]] == ["0", "1", "2"]
    curve = thumbnail_png(run)
    assert curve != whole
    assert curve.startswith(b"\x89PNG")
