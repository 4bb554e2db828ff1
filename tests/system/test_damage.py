"""Bit flips and cuts anywhere: named errors, no wrong frame, found by verify (R5).

Each round damages one file of a copy: the database, a shard, a JSON file of the store.
Then everything is read through this package. A crash is any error that is none of its
own; wrong data are checksummed frames that differ from what was written.

Most bytes of a young shard are index entries of frames that are still to come. Damage
there changes nothing, and nobody can find it: so every other round aims at the bytes
that belong to frames. Damage there must be found each time, whatever it does.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import migrate
from bluesky_beamtime.errors import BeamtimeError
from bluesky_beamtime.storage.layout import ArrayLayout, read_metadata

SCALE = int(os.environ.get("BEAMTIME_TEST_SCALE", "1"))
ROUNDS = 45 * SCALE
FROZEN = Path(__file__).parents[1] / "data" / "databases" / "v1"


def read_all(path: Path, total: Counter[tuple[str, str]], kind: str) -> dict[str, Any]:
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
                        total[kind, "named errors"] += 1
    except BeamtimeError:
        total[kind, "named errors"] += 1
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


def bytes_of_frames(shard: Path) -> list[int]:
    """Return where in a shard the published frames are: their entries and chunks."""
    described = read_metadata(shard.parent)
    layout = ArrayLayout.from_json(described, str(shard.parent))
    data = shard.read_bytes()
    count = min(described["shape"][0], layout.frames_per_shard)
    index = np.frombuffer(data, "<u8", 2 * layout.entries_per_shard).reshape(-1, 2)
    places = list(range(16 * count * layout.chunks_per_frame))
    for offset, length in index[: count * layout.chunks_per_frame].tolist():
        places += range(offset, offset + length)
    assert places[-1] == len(data) - 1
    return places


def damage(path: Path, chance: random.Random, places: list[int] | None) -> str:
    """Flip bits of a file, or cut it; return what was done.

    Parameters
    ----------
    path
        The file.
    chance
        Chooses.
    places
        The bytes that hold something, None if all may. Every other round flips there.
    """
    data = bytearray(path.read_bytes())
    if chance.random() < 0.25:
        path.write_bytes(data[: chance.randrange(len(data))])
        return "cut"
    before = bytes(data)
    aim = places if places is not None and chance.random() < 0.5 else range(len(data))
    for _ in range(chance.choice([1, 1, 1, 8])):
        data[chance.choice(aim)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    if places is not None and all(data[n] == before[n] for n in places):
        return "flipped beside the frames"
    return "flipped"


def same_frames(found: dict[str, Any], right: dict[str, Any]) -> bool:
    return found.keys() == right.keys() and not wrong_of(found, right)


def wrong_of(found: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Return the frames that were handed out and are not what was written."""
    return [
        key
        for key, frame in found.items()
        # A frame that exists must not turn up as another one either.
        if key not in right or not np.array_equal(frame, right[key])
    ]


def show(total: Counter[tuple[str, str]], kinds: Iterable[str]) -> str:
    """Return the counts as a table."""
    columns = (
        "rounds",
        "cut",
        "flipped",
        "flipped beside the frames",
        "named errors",
        "frames unlike before",
        "found by verify",
        "missed by verify",
        "wrong frames",
        "crashes",
    )
    lines = [f"{'':26}" + "".join(f"{kind:>10}" for kind in kinds)]
    lines += [
        f"{column:26}" + "".join(f"{total[kind, column]:10}" for kind in kinds)
        for column in columns
    ]
    return "\n".join(lines)


@pytest.mark.timeout(300 * SCALE)
def test_damage_is_named_and_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(5)
    whole = tmp_path / "whole"
    shutil.copytree(FROZEN, whole)
    migrate(whole / "beamtime.db", backup=False)
    total: Counter[tuple[str, str]] = Counter()
    right = read_all(whole / "beamtime.db", total, "whole")
    assert len(right) > 5
    with Beamtime(whole / "beamtime.db", mode="r") as beamtime:
        assert beamtime.verify().ok
    store = whole / "beamtime.zarr"
    shards = [path for path in store.rglob("c.*") if path.stat().st_size > 64]
    kinds = {
        "database": [whole / "beamtime.db"],
        "shard": shards,
        "JSON": [*store.rglob("zarr.json"), *store.rglob(".layout.json")],
    }
    assert all(kinds.values())
    holding = {shard: bytes_of_frames(shard) for shard in shards}
    folder = tmp_path / "damaged"
    for number in range(ROUNDS):
        kind = list(kinds)[number % 3]
        victim = chance.choice(kinds[kind])
        where = victim.relative_to(whole)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        how = damage(folder / where, chance, holding.get(victim))
        total[kind, "rounds"] += 1
        total[kind, how] += 1
        try:
            frames = read_all(folder / "beamtime.db", total, kind)
            wrong = wrong_of(frames, right)
            total[kind, "wrong frames"] += len(wrong)
            same = same_frames(frames, right)
            total[kind, "frames unlike before"] += not same
            ok = is_ok(folder / "beamtime.db")
            total[kind, "found by verify"] += not ok
            if kind == "shard":
                beside = how == "flipped beside the frames"
                assert same or not beside, f"{where} was damaged beside the frames"
                missed = ok and not beside
            else:
                missed = ok and not same
            if missed or (wrong and kind != "database"):
                print(number, where, how, "wrong:", wrong, "verify:", ok)
            total[kind, "missed by verify"] += missed
        except Exception as error:
            total[kind, "crashes"] += 1
            print(number, where, how, repr(error)[:300])
            if os.environ.get("BEAMTIME_TEST_RAISE"):
                raise
    with capsys.disabled():
        print("\n" + show(total, kinds))
    assert {kind: total[kind, "crashes"] for kind in kinds} == dict.fromkeys(kinds, 0)
    # SQLite has no checksums: a bit of a value in a row may say something else.
    for kind in ("shard", "JSON"):
        assert total[kind, "wrong frames"] == 0
        assert total[kind, "missed by verify"] == 0
    aimed = total["shard", "rounds"] - total["shard", "flipped beside the frames"]
    assert total["shard", "found by verify"] >= aimed > ROUNDS / 9


def is_ok(path: Path) -> bool:
    """Say whether verify finds nothing wrong."""
    try:
        with Beamtime(path, mode="r") as beamtime:
            return beamtime.verify().ok
    except BeamtimeError:
        return False


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        # SQLite's own message about it is no valid text.
        (
            "beamtime.db",
            b"sqlite_autoindex_samples_1",
            b"sqlite_autoindex_s\xe1mples_1",
        ),
        ("beamtime.db", b'"data_keys":', b'"dAta_keys":'),
        # What is no array of this package is read by zarr-python, if it can be.
        ("cam_id/zarr.json", b"sharding_indexed", b"sharding_indexee"),
        ("cam_id/zarr.json", b'"shape"', b'"shapd"'),
        ("cam_id/zarr.json", b'"start"', b'"stars"'),
        ("cam_id/zarr.json", b'"separator": "."', b'"separator": "/"'),
    ],
)
def test_damage_that_once_was_a_crash(
    file: str, old: bytes, new: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(FROZEN, folder)
    migrate(folder / "beamtime.db", backup=False)
    total: Counter[tuple[str, str]] = Counter()
    right = read_all(folder / "beamtime.db", total, "whole")
    for victim in folder.glob(f"**/{file}"):
        data = victim.read_bytes()
        assert old in data
        victim.write_bytes(data.replace(old, new))
    found = read_all(folder / "beamtime.db", total, "damaged")
    assert wrong_of(found, right) == []
    assert not is_ok(folder / "beamtime.db") or total["damaged", "named errors"]
