"""Parquet files, read back by pyarrow alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.storage import ZarrWriter

from . import conftest as sent


def test_everything_comes_back_with_names_and_units(run: Run, tmp_path: Path) -> None:
    (path,) = run.export(tmp_path / "run.parquet", "parquet")
    table = pq.read_table(path)
    assert table.column_names == ["seq_num", "time", *sent.DATA_KEYS]
    for key, expected in sent.EXPECTED.items():
        column = table[key].combine_chunks()
        if key == "word":
            assert column.to_pylist() == expected
        elif expected.ndim == 1:
            got = column.to_numpy()
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype
        else:
            got = column.to_numpy_ndarray()
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype
        units = (table.schema.field(key).metadata or {}).get(b"units")
        assert (units and units.decode()) == sent.DATA_KEYS[key].get("units")
    assert json.loads(table.schema.metadata[b"start"])["uid"] == run.uid


def test_frames_that_are_not_there_are_null(tmp_path: Path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        uid = sent.emit_run(beamtime, tmp_path / "frames", (ZarrWriter,), stored=3)
        (path,) = beamtime[uid].export(tmp_path / "run.parquet", "parquet")
    rows = pq.read_table(path)["cam1"].to_pylist()
    assert [row is None for row in rows] == [False, False, False, True, True]
    np.testing.assert_array_equal(np.reshape(rows[:3], (3, 8, 6)), sent.CAM1[:3])
