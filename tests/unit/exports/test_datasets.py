"""netCDF and Zarr, read back by xarray, by h5netcdf and by zarr."""

from __future__ import annotations

from pathlib import Path

import h5netcdf
import numpy as np
import pytest
import xarray as xr
import zarr

from bluesky_beamtime.database import Run

from . import conftest as sent


@pytest.mark.parametrize(
    ("to", "ending", "engine"), [("netcdf", "nc", "h5netcdf"), ("zarr", "zarr", "zarr")]
)
def test_everything_comes_back_with_names_and_units(
    run: Run, tmp_path: Path, to: str, ending: str, engine: str
) -> None:
    (path,) = run.export(tmp_path / f"run.{ending}", to)
    with xr.open_dataset(path, engine=engine) as found:
        assert set(found.data_vars) == set(sent.DATA_KEYS)
        for key, expected in sent.EXPECTED.items():
            if key == "word":
                assert found[key].values.tolist() == expected
            else:
                np.testing.assert_array_equal(found[key].values, expected)
                assert found[key].dtype == expected.dtype
            assert found[key].attrs.get("units") == sent.DATA_KEYS[key].get("units")
        np.testing.assert_array_equal(found["time"], 200.0 + np.arange(5))
        assert found.attrs["uid"] == run.uid
    assert run.export(path, to, overwrite=True) == [path]


def test_netcdf_without_xarray(run: Run, tmp_path: Path) -> None:
    (path,) = run.export(tmp_path / "run.nc", "netcdf")
    with h5netcdf.File(path) as file:
        np.testing.assert_array_equal(file["cam1"][...], sent.CAM1)
        assert file["cam1"].dimensions == ("time", "cam1_y", "cam1_x")


def test_zarr_without_xarray(run: Run, tmp_path: Path) -> None:
    (path,) = run.export(tmp_path / "run.zarr", "zarr")
    group = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(group["cam2"][...], sent.CAM2)
