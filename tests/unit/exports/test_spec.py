"""SPEC files, read back by spec2nexus."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spec2nexus.spec import SpecDataFile

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import BeamtimeWarning

from . import conftest as sent
from .test_tables import two_streams


def read(path: Path, number: int) -> Any:
    """Read a scan; the reader leaves its file open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        scan = SpecDataFile(str(path)).getScan(number)
        scan.interpret()
        gc.collect()
    return scan


def test_numbers_come_back_with_names_and_units(run: Run, tmp_path: Path) -> None:
    with pytest.warns(BeamtimeWarning, match="of word, spectrum, map, cam1, cam2"):
        (path,) = run.export(tmp_path / "run.spec", "spec")
    scan = read(path, 7)
    assert scan.scanCmd == "scan primary"
    assert scan.L == ["x", "seq_num", "time", "counts"]
    np.testing.assert_array_equal(scan.data["x"], sent.X)
    np.testing.assert_array_equal(scan.data["seq_num"], np.arange(1, 6))
    np.testing.assert_array_equal(scan.data["time"], 200.0 + np.arange(5))
    # The reader knows floats only; the file has every digit.
    np.testing.assert_array_equal(scan.data["counts"], sent.COUNTS.astype(float))
    lines = path.read_text().splitlines()
    assert [row.split()[3] for row in lines if row[:1].isdigit()] == [
        str(count) for count in sent.COUNTS
    ]
    assert "#C unit x = mm" in lines
    assert "#C unit counts = counts" in lines


def test_each_stream_is_a_scan_of_its_own(tmp_path: Path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        paths = two_streams(beamtime).export(tmp_path / "run.spec", "spec")
    assert [path.name for path in paths] == ["run-primary.spec", "run-base_line.spec"]
    scans = [read(path, 8) for path in paths]
    np.testing.assert_array_equal(scans[0].data["t"], [1.5, np.nan])
    np.testing.assert_array_equal(scans[1].data["t"], [2.0])
