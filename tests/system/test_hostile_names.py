"""Names that lead elsewhere, as uid, stream, key or sample: all stays inside (R10)."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run

from bluesky_beamtime import Beamtime

SCALE = int(os.environ.get("BEAMTIME_TEST_SCALE", "1"))
NAMES = 1000 * SCALE

PARTS = [
    *("..", ".", "/", "\\", "\0", "~", "%2e%2e", "%2F", "~root", "$HOME", "c:", "\n"),
    *("é", "e\u0301", "\u202e", "\ud800", "A", "a", "x" * 300, "é" * 200, " ", "-rf"),
    *("*", "?", "zarr.json", ".layout.json", "c.0", "CON", "'", '"', ";", "file://"),
]


def name(chance: random.Random) -> str:
    return "".join(chance.choices(PARTS, k=chance.randrange(1, 6)))


def outside(folder: Path) -> dict[str, tuple[float, int]]:
    """Return what is beside the beamtime's own folder, up to the temporary root."""
    return {
        str(path): (path.lstat().st_mtime, path.lstat().st_size)
        for path in folder.rglob("*")
        if not path.is_relative_to(folder / "deep" / "inside")
    }


@pytest.mark.timeout(120 * SCALE)
def test_nothing_is_written_outside(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "inside"
    root.mkdir(parents=True)
    chance = random.Random(10)
    here = set(os.listdir())
    before = outside(tmp_path)
    named = 0
    with Beamtime(root / "x.db") as beamtime, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while named < NAMES:
            bundle = compose_run(metadata={"scan_id": 1, "sample": name(chance)})
            start: dict[str, Any] = {**bundle.start_doc, "uid": name(chance)}
            start["plan_name"] = name(chance)
            field, stream, uid = name(chance), name(chance), name(chance)
            key = {"source": "s", "dtype": "array", "shape": [2, 2]}
            descriptor = {
                "uid": uid,
                "run_start": start["uid"],
                "name": stream,
                "time": 1.0,
                "data_keys": {field: key},
                "configuration": {},
                "object_keys": {},
                "hints": {},
            }
            event = {
                "uid": name(chance),
                "time": 1.0,
                "data": {field: np.full((2, 2), named)},
                "timestamps": {field: 1.0},
                "seq_num": 1,
                "filled": {},
                "descriptor": uid,
            }
            beamtime("start", start)
            beamtime("descriptor", descriptor)
            beamtime("event", event)
            beamtime("stop", {**bundle.compose_stop(), "run_start": start["uid"]})
            named += 7
    assert outside(tmp_path) == before
    assert set(os.listdir()) == here
    # And much of it was really written.
    arrays = list((root / "x.zarr" / "runs").rglob("c.*"))
    assert len(arrays) > NAMES / 50
    assert set(os.listdir(root)) <= {"x.db", "x.zarr", "x.journal.jsonl"}
