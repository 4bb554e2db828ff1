"""Bit flips and cuts anywhere: named errors, no wrong frame, found by verify (R5).

Each round damages one file of a copy: the database, a shard, a JSON file of the store.
Then everything is read through this package. A crash is any error that is none of its
own; wrong data are checksummed frames that differ from what was written.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import migrate
from bluesky_beamtime.errors import BeamtimeError

SCALE = int(os.environ.get("BEAMTIME_TEST_SCALE", "1"))
ROUNDS = 45 * SCALE
FROZEN = Path(__file__).parents[1] / "data" / "databases" / "v1"


def read_all(path: Path, total: Counter[str], kind: str) -> dict[str, Any]:
    """Read what can be read; return the frames of each run and field."""
    frames: dict[str, Any] = {}
    try:
        with Beamtime(path, mode="r") as beamtime:
            try:
                uids = [run.uid for run in beamtime]
            except BeamtimeError:
                return frames
            for uid in uids:
                run = beamtime[uid]
                attempts: list[Any] = [
                    lambda run=run: list(run.documents()),
                    lambda run=run: run.summary(),
                    lambda run=run: frames.update(frames_of(run)),
                ]
                for attempt in attempts:
                    try:
                        attempt()
                    except BeamtimeError:
                        total[f"{kind}: named errors"] += 1
    except BeamtimeError:
        total[f"{kind}: named errors"] += 1
    return frames


def frames_of(run: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, stream in run.streams.items():
        with warnings.catch_warnings():
            # Fields that cannot be read are left out, and told of.
            warnings.simplefilter("ignore")
            dataset = stream.read()
        for field, array in dataset.items():
            if array.ndim < 3:
                continue
            for index in range(len(array)):
                try:
                    frame = np.asarray(array[index])
                except BeamtimeError:
                    continue
                found[f"{run.uid} {name} {field} {index}"] = frame
    return found


def damage(path: Path, chance: random.Random) -> str:
    """Flip bits of a file, or cut it; return what was done."""
    data = bytearray(path.read_bytes())
    if chance.random() < 0.25:
        path.write_bytes(data[: chance.randrange(len(data))])
        return "cut"
    for _ in range(chance.choice([1, 1, 1, 8])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return "flipped"


@pytest.mark.timeout(300 * SCALE)
def test_damage_is_named_and_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(5)
    whole = tmp_path / "whole"
    shutil.copytree(FROZEN, whole)
    migrate(whole / "beamtime.db", backup=False)
    total: Counter[str] = Counter()
    right = read_all(whole / "beamtime.db", total, "whole")
    assert len(right) > 5
    store = whole / "beamtime.zarr"
    kinds = {
        "database": [whole / "beamtime.db"],
        "shard": [p for p in store.rglob("c.*") if p.stat().st_size > 64],
        "JSON": [*store.rglob("zarr.json"), *store.rglob(".layout.json")],
    }
    assert all(kinds.values())
    folder = tmp_path / "damaged"
    for number in range(ROUNDS):
        kind = list(kinds)[number % 3]
        victim = chance.choice(kinds[kind])
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        path = folder / "beamtime.db"
        how = damage(folder / victim.relative_to(whole), chance)
        total[f"{kind}: rounds"] += 1
        try:
            frames = read_all(path, total, kind)
            wrong = [
                key
                for key, frame in frames.items()
                if key in right and not np.array_equal(frame, right[key])
            ]
            total[f"{kind}: wrong frames"] += len(wrong)
            # A frame that exists must not turn up as another one either.
            total[f"{kind}: wrong frames"] += len(set(frames) - set(right))
            try:
                with Beamtime(path, mode="r") as beamtime:
                    report = beamtime.verify()
                ok = report.ok
            except BeamtimeError:
                ok = False
            total[f"{kind}: found by verify"] += not ok
            if kind == "shard" and ok and len(frames) < len(right):
                total["shard: missed"] += 1
        except Exception as error:
            total[f"{kind}: crashes"] += 1
            print(number, kind, victim.relative_to(whole), how, repr(error)[:300])
            if os.environ.get("BEAMTIME_TEST_RAISE"):
                raise
    with capsys.disabled():
        print("\n" + "\n".join(f"{k}: {v}" for k, v in sorted(total.items())))
    for kind in kinds:
        assert total[f"{kind}: crashes"] == 0
    assert total["shard: wrong frames"] == total["JSON: wrong frames"] == 0
    assert total["shard: missed"] == 0
    # Many bits of a shard that is not full belong to no frame.
    assert total["shard: found by verify"] > 0
