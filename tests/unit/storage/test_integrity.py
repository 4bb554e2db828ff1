"""verify_store finds what is wrong, repair_store mends what can be mended."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bluesky_beamtime.errors import (
    FrameReadError,
    StorageError,
    StoreReadError,
    StoreStateError,
)
from bluesky_beamtime.storage import (
    FrameStore,
    SessionPathProvider,
    ShardedArray,
    create_group,
    open_frames,
    repair_store,
    verify_store,
)

SCALE = int(os.environ.get("BEAMTIME_TEST_SCALE", "1"))
Frames = Callable[..., np.ndarray[Any, Any]]
COUNT = 7
CODECS = list(itertools.product(("none", "lz4", "zstd"), (True, False)))


@pytest.fixture
def store(tmp_path: Path, frames: Frames) -> Path:
    """Make a group with two arrays of seven frames, three in a file."""
    root = tmp_path / "store"
    create_group(root, {"sample": "LaB6"})
    for name in ("one", "two"):
        with ShardedArray.create(
            root / name, dtype="<u2", shape=(4, 6), frames_per_shard=3
        ) as array:
            for frame in frames(COUNT):
                array.append(frame)
    return root


def change(path: Path, offset: int, mask: int = 0xFF) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= mask
    path.write_bytes(content)


def set_length(array: Path, length: int) -> None:
    metadata = json.loads((array / "zarr.json").read_bytes())
    metadata["shape"][0] = length
    (array / "zarr.json").write_text(json.dumps(metadata))


def everything(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


class TestVerify:
    def test_a_whole_store_is_whole(self, store: Path):
        """Nothing is changed by looking."""
        before = everything(store)
        report = verify_store(store)
        assert report.ok and report.problems == []
        assert set(report.arrays) == {"one", "two"}
        for array in report.arrays.values():
            assert (array.published, array.written) == (COUNT, COUNT)
            assert array.missing == array.damaged == []
        assert everything(store) == before

    def test_a_flipped_bit_in_a_frame(self, store: Path):
        change(store / "one" / "c.1.0.0", 48 + 60, 0x01)
        report = verify_store(store)
        assert report.arrays["one"].damaged == [4]
        assert report.arrays["two"].damaged == []
        assert not report.ok
        assert len(report.problems) == 1
        assert "one" in report.problems[0] and "4" in report.problems[0]
        assert verify_store(store, checksums=False).ok

    def test_a_flipped_bit_in_a_checksum(self, store: Path):
        change(store / "one" / "c.2.0.0", -1, 0x80)
        assert verify_store(store).arrays["one"].damaged == [6]

    def test_a_file_that_is_cut_short(self, store: Path):
        path = store / "two" / "c.1.0.0"
        os.truncate(path, path.stat().st_size - 60)
        report = verify_store(store)
        assert report.arrays["two"].missing == [4, 5]
        assert report.arrays["two"].damaged == []
        assert not report.ok

    def test_a_file_that_is_cut_inside_its_index(self, store: Path):
        os.truncate(store / "one" / "c.0.0.0", 20)
        assert verify_store(store).arrays["one"].missing == [0, 1, 2]

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_a_file_that_is_gone(self, store: Path, number: int):
        (store / "one" / f"c.{number}.0.0").unlink()
        report = verify_store(store)
        expected = [n for n in range(COUNT) if n // 3 == number]
        assert report.arrays["one"].missing == expected

    @pytest.mark.parametrize("lost", ["damaged", "empty", "removed"])
    def test_metadata_of_an_array_that_is_lost(self, store: Path, lost: str):
        """Also when nothing but the shards is left."""
        path = store / "one" / "zarr.json"
        if lost == "damaged":
            change(path, 0)
        elif lost == "empty":
            path.write_bytes(b"")
        else:
            path.unlink()
        assert not verify_store(store).ok
        (store / "one" / ".layout.json").unlink()
        report = verify_store(store)
        assert not report.ok
        assert report.arrays["two"].written == COUNT

    @pytest.mark.parametrize("lost", ["damaged", "removed"])
    def test_metadata_of_a_group_that_is_lost(self, store: Path, lost: str):
        """The arrays below it are looked at all the same."""
        path = store / "zarr.json"
        path.write_text("{") if lost == "damaged" else path.unlink()
        for uri in (store, store.parent):
            report = verify_store(uri)
            assert not report.ok
            assert len(report.arrays) == 2
            assert all(array.written == COUNT for array in report.arrays.values())
            assert len(report.problems) == 1

    def test_frames_that_were_not_published(self, store: Path):
        """What a kill leaves: said, and how to mend it."""
        set_length(store / "one", 2)
        report = verify_store(store)
        assert (report.arrays["one"].published, report.arrays["one"].written) == (2, 7)
        assert "repair_store" in report.problems[0]

    def test_a_length_that_is_too_long(self, store: Path):
        set_length(store / "one", 9)
        assert verify_store(store).arrays["one"].missing == [7, 8]

    def test_a_uri_an_array_and_a_folder_above(self, store: Path, tmp_path: Path):
        assert verify_store(store.as_uri()).ok
        assert set(verify_store(store / "one").arrays) == {"."}
        assert set(verify_store(tmp_path).arrays) == {"store/one", "store/two"}

    @pytest.mark.parametrize("name", ["nothing", "empty"])
    def test_what_is_no_store_is_an_error(self, tmp_path: Path, name: str):
        (tmp_path / "empty").mkdir()
        with pytest.raises(StoreReadError):
            verify_store(tmp_path / name)
        with pytest.raises(StorageError):
            repair_store(tmp_path / name)
        assert os.listdir(tmp_path / "empty") == []

    def test_a_file_that_is_no_store_is_left_alone(self, tmp_path: Path):
        file = tmp_path / "file"
        file.write_text("notes")
        for look in (verify_store, repair_store):
            with pytest.raises(StoreReadError):
                look(file)
        assert file.read_text() == "notes"

    def test_a_folder_of_sessions_need_not_be_a_group(self, tmp_path: Path):
        """Plain folders above the stores are no problem, and stay plain folders."""
        stores = FrameStore(SessionPathProvider(tmp_path))
        sink = stores.attach("cam", dtype="<u2", shape=())
        sink.write(1)
        stores.detach(sink)
        assert verify_store(tmp_path).ok
        assert repair_store(tmp_path).repaired == []
        assert not (tmp_path / "zarr.json").exists()

    def test_a_live_store_is_not_called_broken(self, tmp_path: Path):
        """Its length may lag; seen from the folders above as well."""
        frame_store = FrameStore(tmp_path / "x.zarr", name=lambda: "run")
        sink = frame_store.attach("cam", dtype="<u2", shape=())
        writer = frame_store.writer
        sink.write(1)
        for _ in range(20):
            sink.write(1)
            assert verify_store(tmp_path / "x.zarr").ok
        frame_store.detach(sink)
        assert not writer.is_open

    def test_what_cannot_be_read_is_a_problem_not_a_crash(
        self, store: Path, monkeypatch: pytest.MonkeyPatch
    ):
        real = os.open

        def refuse(path: Any, *args: Any, **options: Any) -> int:
            if str(path).endswith("one/c.1.0.0"):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return real(path, *args, **options)

        monkeypatch.setattr(os, "open", refuse)
        report = verify_store(store)
        assert not report.ok
        assert report.arrays["two"].damaged == []


class TestRepair:
    def test_the_length_comes_up_to_the_frames(self, store: Path, frames: Frames):
        for name, length in (("one", 0), ("two", 6)):
            set_length(store / name, length)
        report = repair_store(store)
        assert report.ok
        assert len(report.repaired) == 2
        for name in ("one", "two"):
            stock = zarr.open_array(store / name, mode="r")
            np.testing.assert_array_equal(np.asarray(stock[...]), frames(COUNT))
        assert verify_store(store).ok
        assert repair_store(store).repaired == []

    @pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "index"])
    def test_no_frame_is_ever_removed(self, store: Path, frames: Frames, damage: str):
        """What cannot be mended is said, and everything else stays readable."""
        path = store / "one" / "c.2.0.0"
        if damage == "flip":
            change(path, 60)
        elif damage == "truncate":
            os.truncate(path, path.stat().st_size - 1)
        elif damage == "index":
            change(path, 7)
        else:
            path.unlink()
        before = everything(store)
        repair_store(store)
        array = open_frames(store / "one")
        assert len(array) == COUNT
        np.testing.assert_array_equal(array[:6], frames(6))
        with pytest.raises(FrameReadError):
            array[6]
        assert not verify_store(store).ok
        assert everything(store) == before

    def test_metadata_comes_back_from_its_copy(self, store: Path, frames: Frames):
        """An array that lost its zarr.json has it again, with every frame."""
        for name, lost in (("one", b""), ("two", b'{"zarr_format": 3}')):
            (store / name / "zarr.json").write_bytes(lost)
        report = repair_store(store)
        assert report.ok, report.problems
        for name in ("one", "two"):
            stock = zarr.open_array(store / name, mode="r")
            np.testing.assert_array_equal(np.asarray(stock[...]), frames(COUNT))
        assert verify_store(store).ok

    @pytest.mark.parametrize("lost", ["damaged", "removed"])
    def test_groups_come_back(self, tmp_path: Path, frames: Frames, lost: str):
        """Every level between the top and the arrays."""
        place = tmp_path / "x.zarr" / "frames" / "day" / "scan"
        create_group(place, root=tmp_path / "x.zarr")
        with ShardedArray.create(place / "cam", dtype="<u2", shape=(4, 6)) as array:
            array.append(frames(1)[0])
        for folder in (place, place.parent, place.parent.parent):
            path = folder / "zarr.json"
            path.write_text("{") if lost == "damaged" else path.unlink()
        assert len(verify_store(tmp_path / "x.zarr").problems) == 3
        report = repair_store(tmp_path / "x.zarr")
        assert report.ok and len(report.repaired) == 3
        group = zarr.open_group(tmp_path / "x.zarr", mode="r")
        assert group["frames/day/scan/cam"].shape == (1, 4, 6)
        assert verify_store(tmp_path / "x.zarr").ok

    def test_attributes_of_a_good_group_stay(self, store: Path):
        repair_store(store)
        assert zarr.open_group(store, mode="r").attrs["sample"] == "LaB6"

    def test_metadata_that_only_cannot_be_read_is_left_alone(
        self, store: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """A permission or a bad cable is no reason to write anything anew."""
        real = Path.read_bytes

        def refuse(path: Path) -> bytes:
            if path == store / "zarr.json":
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path)

        before = everything(store)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", refuse)
            assert not repair_store(store).ok
        assert everything(store) == before

    def test_what_dead_writers_left_is_removed(self, store: Path):
        for name in (".writer.lock", ".reserve"):
            (store / "one" / name).write_bytes(b"")
        old, young = store / ".zarr.json.1-2.partial", store / ".zarr.json.3-4.partial"
        for path in (old, young):
            path.write_bytes(b"{")
        os.utime(old, (time.time() - 3600,) * 2)
        repair_store(store)
        left = {path.name for path in everything(store)}
        assert left == {
            *("zarr.json", ".layout.json", "c.0.0.0", "c.1.0.0", "c.2.0.0"),
            # Somebody may be writing it just now.
            young.name,
        }

    def test_a_live_store_is_refused_and_left_alone(self, tmp_path: Path):
        """From every folder above it, before anything is changed."""
        frame_store = FrameStore(tmp_path / "x.zarr", name=lambda: "run")
        sink = frame_store.attach("cam", dtype="<u2", shape=())
        other = frame_store.attach("other", dtype="<u2", shape=())
        sink.write(1)
        sink.publish()
        for place in (sink.uri, other.uri, frame_store.uri, str(tmp_path / "x.zarr")):
            with pytest.raises(StoreStateError, match="live"):
                repair_store(place or "")
        sink.write(2)
        frame_store.detach(sink)
        # The store is live until its last array is closed.
        other.write(1)
        with pytest.raises(StoreStateError, match="live"):
            repair_store(sink.uri)
        frame_store.detach(other)
        assert repair_store(tmp_path / "x.zarr").ok
        assert list(open_frames(sink.uri)) == [1, 2]


def small_array(path: Path, compression: str, checksum: bool) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(1)
    data = rng.poisson(3, (5, 6, 8)).astype("<u2")
    with ShardedArray.create(
        path,
        dtype="<u2",
        shape=(6, 8),
        frames_per_shard=3,
        compression=compression,  # type: ignore[arg-type]
        checksum=checksum,
    ) as array:
        for frame in data:
            array.append(frame)
    return data


@pytest.mark.parametrize(("compression", "checksum"), CODECS)
def test_flips_and_truncations(tmp_path: Path, compression: str, checksum: bool):
    """R5: no crash, no wrong checksummed frame; verify knows what is refused."""
    path = tmp_path / "array"
    data = small_array(path, compression, checksum)
    whole = {name: (path / name).read_bytes() for name in os.listdir(path)}
    files = [name for name in whole if name.startswith("c.")] + ["zarr.json"]
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(60 * SCALE):
        name = files[rng.integers(len(files))]
        content = bytearray(whole[name])
        if rng.integers(4):
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        else:
            del content[rng.integers(len(content)) :]
        (path / name).write_bytes(content)
        report = verify_store(path)
        wrong = False
        try:
            array = open_frames(path)
            assert isinstance(array[:0], np.ndarray)
            for number in range(min(len(array), 5)):
                try:
                    frame = array[number]
                except StoreReadError:
                    wrong = True
                else:
                    same = frame.shape == (6, 8) and (frame == data[number]).all()
                    # Damage without a checksum, and what the metadata says of the
                    # values, is what nobody can know.
                    assert same or not checksum or name == "zarr.json"
        except StorageError:
            wrong = True
        except (ValueError, TypeError, KeyError):
            # Metadata that has become that of a stock array.
            assert name == "zarr.json"
            wrong = True
        if wrong:
            found += 1
            assert not report.ok
        (path / name).write_bytes(whole[name])
    assert found > 20
    assert verify_store(path).ok


WRITE = """
import sys
import numpy as np
from bluesky_beamtime.storage import FrameStore
compression, checksum, per_shard = sys.argv[2], sys.argv[3] == "True", int(sys.argv[4])
store = FrameStore(sys.argv[1], name=lambda: "run", compression=compression,
                   checksum=checksum, frames_per_shard=per_shard)
sinks = [store.attach(name, dtype="<u4", shape=(16, 16)) for name in ("one", "two")]
ramp = np.arange(256, dtype="<u4").reshape(16, 16)
out = sys.stdout
number = 0
while True:
    for sink in sinks:
        sink.write(ramp + number)
    if number % 7 == 0:
        out.write(f"p {sinks[0].publish()}\\n")
    out.write(f"w {number}\\n")
    out.flush()
    number += 1
"""


@pytest.mark.parametrize("turn", range(len(CODECS) * SCALE))
def test_kill_9(tmp_path: Path, turn: int):
    """R2: nothing acknowledged is lost, no byte is wrong, the length is exact."""
    compression, checksum = CODECS[turn % len(CODECS)]
    rng = np.random.default_rng(turn)
    per_shard = (4, 64, 1)[turn % 3]
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", WRITE, str(tmp_path)),
            *(compression, str(checksum), str(per_shard)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    written = published = 0
    stop = int(rng.integers(1, 150))
    for line in process.stdout:
        kind, number = line.split()
        if kind == "w":
            written = int(number) + 1
        else:
            published = int(number)
        if written >= stop:
            break
    process.kill()
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(30) == -9
    # What it had said before it died counts as well.
    for line in rest.splitlines(keepends=True):
        if line.endswith("\n"):
            kind, number = line.split()
            if kind == "w":
                written = int(number) + 1
            else:
                published = int(number)

    (folder,) = tmp_path.glob("*/run")
    ramp = np.arange(256, dtype="<u4").reshape(16, 16)
    # Readers see at least what was published, before any repair.
    before = zarr.open_array(folder / "one", mode="r")
    assert published <= before.shape[0]
    if before.shape[0]:
        np.testing.assert_array_equal(before[-1], ramp + before.shape[0] - 1)
    report = repair_store(tmp_path)
    assert report.ok, report.problems
    assert verify_store(tmp_path).ok
    for name in ("one", "two"):
        stored = np.asarray(zarr.open_array(folder / name, mode="r")[...])
        assert written <= len(stored) <= written + 1
        assert len(stored) == report.arrays[f"{folder.parent.name}/run/{name}"].written
        expected = ramp + np.arange(len(stored), dtype="<u4")[:, None, None]
        np.testing.assert_array_equal(stored, expected)
        np.testing.assert_array_equal(open_frames(folder / name)[:], expected)
    # Nothing is locked, and another acquisition begins beside it.
    store = FrameStore(tmp_path, name=lambda: "run")
    sink = store.attach("one", dtype="<u4", shape=(16, 16))
    assert "/run_2/" in sink.uri
    store.detach(sink)
