"""A device that was configured within a run: no setting and no unit is wrong."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import openpyxl
import pyarrow.parquet as pq
import pytest
import xarray as xr
from nexusformat.nexus.validate import validate_file

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import BeamtimeWarning
from tests.exported import FORMATS, emit_reconfigured

CHANGED = r"units of 'det' changed .*: V from seq_num 1, mV from seq_num 3\."
CONFIGURATION = {
    "hdf5": "streams/primary/configuration/det",
    "nexus": "entry/instrument/det/configuration",
}
DATA = {"hdf5": "streams/primary/data/det", "nexus": "entry/instrument/det/det"}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """The exposure changes, and with it the units of the readings."""
    told = ({"exposure": 0.1, "units": "V"}, {"exposure": 0.5, "units": "mV"})
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime[emit_reconfigured(beamtime, *told)]


def export(run: Run, folder: Path, to: str) -> Path:
    with pytest.warns(BeamtimeWarning, match=CHANGED) as caught:
        (path,) = run.export(folder / f"run.{FORMATS[to]}", to)
    assert caught[0].filename == __file__
    return path


@pytest.mark.parametrize("to", ["hdf5", "nexus"])
def test_every_setting_is_there_with_its_first_event(
    run: Run, tmp_path: Path, to: str
) -> None:
    with h5py.File(export(run, tmp_path, to)) as root:
        settings = root[CONFIGURATION[to]]
        exposure = settings["exposure"]
        assert exposure[...].tolist() == [0.1, 0.5]
        assert exposure.attrs["units"] == "s"
        assert exposure.attrs["seq_num"] == "exposure_seq_num"
        assert settings["exposure_seq_num"][...].tolist() == [1, 3]
        assert settings["mode"].asstr()[()] == "a"


@pytest.mark.parametrize("to", ["hdf5", "nexus"])
def test_a_setting_may_change_its_type_and_units(tmp_path: Path, to: str) -> None:
    in_ms = {"exposure": "auto", "exposure_units": "ms"}
    with Beamtime(tmp_path / "x.db") as beamtime:
        uid = emit_reconfigured(beamtime, {"exposure": 0.1}, in_ms)
        (path,) = beamtime[uid].export(tmp_path / "run.h5", to)
    with h5py.File(path) as root:
        exposure = root[CONFIGURATION[to]]["exposure"]
        assert [json.loads(text) for text in exposure.asstr()] == [0.1, "auto"]
        assert exposure.attrs["encoding"] == "json"
        assert "units" not in exposure.attrs
        assert json.loads(exposure.attrs["units_of_rows"]) == [[1, "s"], [3, "ms"]]
        assert root[DATA[to]].attrs["units"] == "V"


@pytest.mark.parametrize("to", ["hdf5", "nexus", "netcdf", "zarr"])
def test_no_attribute_says_units_that_only_some_rows_have(
    run: Run, tmp_path: Path, to: str
) -> None:
    path = export(run, tmp_path, to)
    if to in DATA:
        with h5py.File(path) as root:
            values, told = root[DATA[to]][...], dict(root[DATA[to]].attrs)
    else:
        engine = {"netcdf": "h5netcdf", "zarr": "zarr"}[to]
        with xr.open_dataset(path, engine=engine) as dataset:
            values, told = dataset["det"].values, dataset["det"].attrs
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert "units" not in told
    assert json.loads(told["units_of_rows"]) == [[1, "V"], [3, "mV"]]
    if to == "nexus":
        assert validate_file(path)[1] == 0


def columns(path: Path, to: str) -> dict[str, list[Any]]:
    if to == "parquet":
        return pq.read_table(path).to_pydict()
    if to == "csv":
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
    else:
        book = openpyxl.load_workbook(path)
        rows = list(book["primary"].iter_rows(values_only=True))
        book.close()
    return {str(name): [row[n] for row in rows[1:]] for n, name in enumerate(rows[0])}


@pytest.mark.parametrize("to", ["csv", "xlsx", "parquet"])
def test_tables_have_the_units_of_each_row(run: Run, tmp_path: Path, to: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", BeamtimeWarning)
        (path,) = run.export(tmp_path / f"run.{FORMATS[to]}", to)
    found = columns(path, to)
    assert list(found) == ["seq_num", "time", "det", "det_unit"]
    assert list(map(float, found["det"])) == [1.0, 2.0, 3.0, 4.0]
    assert found["det_unit"] == ["V", "V", "mV", "mV"]


def test_spec_says_where_units_changed(run: Run, tmp_path: Path) -> None:
    lines = export(run, tmp_path, "spec").read_text().splitlines()
    assert '#C units_of_rows det = [[1,"V"],[3,"mV"]]' in lines
    assert not any(line.startswith("#C unit det") for line in lines)
