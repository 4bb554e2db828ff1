"""HDF5 files, read back by h5py."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from bluesky_beamtime.database import Run

from . import conftest as sent


def test_everything_comes_back_with_names_and_units(run: Run, tmp_path: Path) -> None:
    (path,) = run.export(tmp_path / "run.h5", "hdf5")
    with h5py.File(path) as root:
        primary = root["streams/primary"]
        data = primary["data"]
        assert set(data) == set(sent.DATA_KEYS)
        for key, expected in sent.EXPECTED.items():
            if key == "word":
                assert data[key].asstr()[...].tolist() == expected
            else:
                np.testing.assert_array_equal(data[key][...], expected)
                assert data[key].dtype == expected.dtype
            assert data[key].attrs.get("units") == sent.DATA_KEYS[key].get("units")
        for key in ("x", "counts", "word"):
            stamps = primary["timestamps"][key][...]
            np.testing.assert_array_equal(stamps, 100.0 + np.arange(5))
        np.testing.assert_array_equal(primary["time"], 200.0 + np.arange(5))
        np.testing.assert_array_equal(primary["seq_num"], np.arange(1, 6))
        gain = primary["configuration/det/gain"]
        assert (gain[()], gain.attrs["units"]) == (2.5, "dB")
        assert root["start/uid"].asstr()[()] == run.uid
        assert root["start/energy"][()] == 12.4
        assert json.loads(root["start/motors"].asstr()[()]) == ["x"]
        assert root["stop/exit_status"].asstr()[()] == "success"
        assert root["sample/name"].asstr()[()] == "LaB6"
