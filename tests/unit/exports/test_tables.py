"""Tables of text, read back by pandas and by the csv module."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import event_model
import numpy as np
import pandas as pd
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import BeamtimeWarning

from . import conftest as sent


def export(run: Run, path: Path, to: str) -> list[Path]:
    with pytest.warns(BeamtimeWarning, match="no place for the frames of map, cam1"):
        return run.export(path, to)


def test_csv_has_every_digit_and_units(run: Run, tmp_path: Path) -> None:
    (path,) = export(run, tmp_path / "run.csv", "csv")
    table = pd.read_csv(path, keep_default_na=False)
    np.testing.assert_array_equal(table["x"], sent.X)
    np.testing.assert_array_equal(table["counts"], sent.COUNTS)
    assert table["word"].tolist() == sent.WORDS
    spectra = [json.loads(text) for text in table["spectrum"]]
    np.testing.assert_array_equal(spectra, sent.SPECTRA)
    np.testing.assert_array_equal(table["seq_num"], np.arange(1, 6))
    np.testing.assert_array_equal(table["time"], 200.0 + np.arange(5))
    for key in ("x", "counts", "spectrum"):
        assert set(table[f"{key}_unit"]) == {sent.DATA_KEYS[key]["units"]}
    assert not {"cam1", "cam2", "map"} & set(table)


def two_streams(beamtime: Beamtime) -> Run:
    """Emit a run with two streams; of one an event has nan."""
    composed = event_model.compose_run(metadata={"plan_name": "odd", "scan_id": 8})
    beamtime("start", composed.start_doc)
    for name, values in (("primary", [1.5, float("nan")]), ("base/line", [2.0])):
        stream = composed.compose_descriptor(
            name=name,
            data_keys={"t": sent.key("number", "K")},
            hints={},
            configuration={},
            object_keys={"t": ["t"]},
        )
        beamtime("descriptor", stream.descriptor_doc)
        for value in values:
            event = stream.compose_event(
                data={"t": value}, timestamps={"t": 1.0}, time=5.0
            )
            beamtime("event", event)
    beamtime("stop", composed.compose_stop())
    return beamtime[composed.start_doc["uid"]]


def test_each_stream_is_a_file_of_its_own(tmp_path: Path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        paths = two_streams(beamtime).export(tmp_path / "run.csv", "csv")
    assert [path.name for path in paths] == ["run-primary.csv", "run-base_line.csv"]
    with paths[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["t"] for row in rows] == ["1.5", "nan"]
    assert [row["t_unit"] for row in rows] == ["K", "K"]
    with paths[1].open(newline="") as file:
        assert [row["t"] for row in csv.DictReader(file)] == ["2.0"]
