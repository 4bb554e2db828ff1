"""Tables of text, read back by pandas and by the csv module."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import event_model
import numpy as np
import openpyxl
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


def two_streams(beamtime: Beamtime, **metadata: str) -> Run:
    """Emit a run with two streams; of one an event has nan."""
    composed = event_model.compose_run(
        metadata={"plan_name": "odd", "scan_id": 8, **metadata}
    )
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


def test_xlsx_has_every_value_and_units(run: Run, tmp_path: Path) -> None:
    (path,) = export(run, tmp_path / "run.xlsx", "xlsx")
    book = openpyxl.load_workbook(path, read_only=True)
    rows = list(book["primary"].iter_rows(values_only=True))
    about = dict(book["run"].iter_rows(values_only=True))
    book.close()
    table = {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}
    assert table["x"] == sent.X.tolist()
    assert table["counts"] == sent.COUNTS.tolist()
    assert [word or "" for word in table["word"]] == sent.WORDS
    assert [json.loads(text) for text in table["spectrum"]] == sent.SPECTRA.tolist()
    assert table["time"] == [200, 201, 202, 203, 204]
    for key in ("x", "counts", "spectrum"):
        assert set(table[f"{key}_unit"]) == {sent.DATA_KEYS[key]["units"]}
    assert (about["uid"], about["energy"]) == (run.uid, 12.4)


def test_xlsx_has_a_sheet_for_each_stream_and_no_formulas(tmp_path: Path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = two_streams(beamtime, title="=1+1")
        (path,) = run.export(tmp_path / "run.xlsx", "xlsx")
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["primary", "base_line", "run"]
    assert [cell.value for cell in book["primary"]["C"]] == ["t", 1.5, "nan"]
    cell = next(row[1] for row in book["run"].iter_rows() if row[0].value == "title")
    assert (cell.value, cell.data_type) == ("=1+1", "s")


@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f600"])
def test_xlsx_has_long_metadata_in_several_cells(tmp_path: Path, letter: str) -> None:
    """As the positions of a list_scan are: they cost nothing of what was measured."""
    text = letter * (90_000 // len(letter))
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = two_streams(beamtime, text=text, fits="y" * 32_767, empty="")
        with pytest.warns(BeamtimeWarning, match="'text' in one cell") as told:
            (path,) = run.export(tmp_path / "run.xlsx", "xlsx")
    assert "'fits'" not in str(told[0].message)
    rows = list(openpyxl.load_workbook(path)["run"].iter_rows(values_only=True))
    about = {row[0]: [cell for cell in row[1:] if cell is not None] for row in rows}
    assert "".join(about["text"]) == text
    assert max(len(part.encode("utf-16-le")) for part in about["text"]) <= 2 * 32_767
    assert about["fits"] == ["y" * 32_767]
    assert about["uid"] == [run.uid]
