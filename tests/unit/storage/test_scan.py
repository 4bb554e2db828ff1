"""What a ScanStorage promises, L-01 to L-26."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from psygnal import Signal

from bluesky_beamtime.errors import (
    MetadataError,
    PathError,
    ScanMismatchError,
    StoreStateError,
)
from bluesky_beamtime.storage import ScanStorage, scan_files, scan_saving


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[ScanStorage]:
    made = ScanStorage(tmp_path, format="npz")
    yield made
    assert made.wait(60)


def files(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "folder").iterdir())


def take(storage: ScanStorage, value: float = 1.0) -> None:
    storage.reserve((2,))
    storage.update({(0,): value})
    storage.save()


def read(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
        found["tags"] = json.loads(str(found["tags"]))
    elif path.suffix == ".h5":
        with h5py.File(path) as file:
            found = {key: file[key][()] for key in file}
        found["tags"] = json.loads(found["tags"])
    else:
        group: Any = zarr.open_group(str(path), mode="r")
        found = {key: array[...] for key, array in group.arrays()}
        found["tags"] = group.attrs["tags"]
    return found


def test_defaults_without_a_window() -> None:
    """L-01, L-02, L-30: none is needed, nor is Qt; unknown words are refused."""
    script = (
        "import sys; from bluesky_beamtime.storage import ScanStorage as S; s = S();"
        "assert (s.base, s.folder, s.name) == ('.', 'folder', 'data');"
        "assert s.enabled and s.numbered and not s.saving;"
        "assert not any('Qt' in n or n == 'qtpy' for n in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)
    with pytest.raises(TypeError):
        ScanStorage(nonsense=1)  # type: ignore[call-arg]


def test_base_folder_and_name_say_where(storage: ScanStorage, tmp_path: Path) -> None:
    """L-02, L-03, L-04, L-08: and no name leads out of the base."""
    storage.base = tmp_path / "other"
    storage.folder, storage.name = "2026/LaB6", "map"
    assert not (tmp_path / "other").exists()
    take(storage)
    assert storage.wait(60)
    assert (tmp_path / "other/2026/LaB6/map_0.npz").exists()
    for attribute, value in (("name", "../x"), ("folder", "a/../.."), ("folder", "/x")):
        with pytest.raises(PathError):
            setattr(storage, attribute, value)
    assert (storage.folder, storage.name) == ("2026/LaB6", "map")


@pytest.mark.parametrize("numbered", [True, False])
def test_a_file_is_no_folder_for_scans(
    storage: ScanStorage, tmp_path: Path, numbered: bool
) -> None:
    """L-02, L-03: that is told at once, and nothing changes."""
    storage.numbered = numbered
    (tmp_path / "notes.txt").touch()
    for base in ("notes.txt", "notes.txt/below"):
        with pytest.raises(PathError, match="is no folder"):
            storage.base = tmp_path / base
        with pytest.raises(PathError, match="is no folder"):
            storage.folder = base
        with pytest.raises(PathError, match="is no folder"):
            ScanStorage(tmp_path, base)
    assert (storage.base, storage.folder) == (str(tmp_path), "folder")
    storage.folder = "not/yet/there"


def test_a_current_folder_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-02: and nothing changes."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    storage = ScanStorage()
    (tmp_path / "gone").rmdir()
    with pytest.raises(PathError, match="is gone; write the folder in full"):
        storage.reserve((2,))
    with pytest.raises(PathError, match="is gone"):
        storage.name = "other"
    assert storage.name == "data" and not storage.reserved
    storage.base = tmp_path
    assert storage.base == str(tmp_path)


def test_without_numbering_no_file_is_overwritten(
    storage: ScanStorage, tmp_path: Path
) -> None:
    """L-05, L-07."""
    storage.numbered = False
    assert storage.getNumber() is None
    take(storage, 1)
    assert storage.wait(60)
    with pytest.raises(PathError, match="numbering is off"):
        storage.reserve((2,))
    assert read(tmp_path / "folder/data.npz")["data"][0] == 1
    assert files(tmp_path) == ["data.npz"]


def test_switched_off_nothing_happens_and_nothing_stays_reserved(
    storage: ScanStorage, tmp_path: Path
) -> None:
    """L-06, L-14: and what was measured before is saved."""
    states: list[bool] = []
    storage.savingStateChanged.connect(states.append)
    storage.enabled = False
    storage.reserve((2,))
    storage.update({(0,): 1})
    storage.save()
    assert states == [] and not (tmp_path / "folder").exists()
    storage.enabled = True
    storage.reserve((2,))
    storage.update({(1,): 3})
    storage.enabled = False
    assert storage.wait(60) and not storage.saving and states == [True, False]
    assert read(tmp_path / "folder/data_0.npz")["data"][1] == 3


def test_numbers_are_the_highest_plus_one(storage: ScanStorage, tmp_path: Path) -> None:
    """L-07, L-08: no gap is used again, reserved ones count, in every format."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data_4.h5").touch()
    (folder / "data_x.npz").touch()
    (folder / "mydata_9.npz").touch()
    assert storage.getNumber() == 5
    storage.reserve((2,))
    assert storage.get_number() == 6


def test_no_number_is_given_twice(tmp_path: Path) -> None:
    """L-07: many threads, each with its own storage, as other processes have."""
    rounds, threads = 4, 4
    barrier = threading.Barrier(threads)

    def work() -> None:
        mine = ScanStorage(tmp_path, format="npz")
        barrier.wait(60)
        for _ in range(rounds):
            take(mine)
        assert mine.wait(60) and not mine.failed

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    assert len(files(tmp_path)) == rounds * threads


def test_signals_come_when_something_changed(storage: ScanStorage) -> None:
    """L-09, L-10, L-22: once each, and not for asking."""
    numbers: list[Any] = []
    states: list[bool] = []
    ended = threading.Event()
    storage.numberChanged.connect(numbers.append)
    storage.savingStateChanged.connect(states.append)
    storage.savingStateChanged.connect(lambda state: state or ended.set())
    storage.getNumber()
    storage.name = "data"
    assert numbers == []
    storage.reserve((2,))
    assert (numbers, states, storage.saving, storage.reserved) == ([1], [True], True, 1)
    storage.update({(0,): 1})
    storage.save()
    assert ended.wait(60) and states == [True, False] and numbers == [1]
    storage.numbered = False
    assert numbers == [1, None]


def test_tags_go_with_their_reservation(storage: ScanStorage, tmp_path: Path) -> None:
    """L-11, L-12: also those that a listener on another thread adds later."""
    dicts: list[dict[str, Any]] = []
    storage.tagRequest.connect(dicts.append)
    for number in range(2):
        storage.reserve((2,))
        storage.update({(0,): number})
        dicts[number]["sample"] = f"S{number}"
        storage.save()
    assert storage.wait(60)
    for number in range(2):
        tags = read(tmp_path / f"folder/data_{number}.npz")["tags"]
        assert tags == {"sample": f"S{number}"}
    with pytest.raises(MetadataError):
        storage.reserve((2,), tags={"bad": object()})
    assert not storage.saving


@pytest.mark.parametrize("dtype", ["f8", "u2", "c8", "?", "i8"])
@pytest.mark.parametrize("kind", ["zarr", "npz", "hdf5"])
def test_scan_keeps_its_type_in_every_format(
    kind: Any, dtype: str, tmp_path: Path
) -> None:
    """L-13, L-19, L-26: no pickles; what was not measured is marked."""
    storage = ScanStorage(tmp_path, format=kind)
    storage.reserve((2, 3, 4), dtype=dtype)
    buffer: Any = zarr.open_group(str(tmp_path / "folder/data_0.partial/scan.zarr"))
    frame = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    storage.update({(1,): frame})
    assert np.array_equal(buffer["data"][1], frame) and buffer["data"].dtype == dtype
    storage.save([[5.0, 6.0], None, [1, 2, 4, 8]])
    assert storage.wait(60) and storage.failed == []
    suffix = {"zarr": "zarr", "npz": "npz", "hdf5": "h5"}[kind]
    assert files(tmp_path) == [f"data_0.{suffix}"]
    found = read(tmp_path / f"folder/data_0.{suffix}")
    assert found["data"].dtype == dtype and np.array_equal(found["data"][1], frame)
    blank = found["data"][0]
    assert np.isnan(blank).all() if dtype in ("f8", "c8") else not blank.any()
    assert found["mask"].tolist() == [False, True]
    assert found["axis_0"].tolist() == [5.0, 6.0]
    assert found["axis_1"].tolist() == [0, 1, 2]


def test_fill_value_stands_where_nothing_was_measured(
    storage: ScanStorage, tmp_path: Path
) -> None:
    """L-13: if the type can hold it."""
    storage.reserve((2,), 7, dtype="u1")
    storage.update({(0,): 255})
    storage.save()
    assert storage.wait(60)
    assert read(tmp_path / "folder/data_0.npz")["data"].tolist() == [255, 7]
    with pytest.raises(ScanMismatchError):
        storage.reserve((2,), -1, dtype="u1")
    assert not storage.saving


def test_second_reservation_saves_the_first(
    storage: ScanStorage, tmp_path: Path
) -> None:
    """L-15: or gives it up, if it has nothing."""
    storage.reserve((2,))
    storage.update({(0,): 1})
    storage.reserve((2,))
    storage.reserve((2,))
    assert storage.reserved == 1
    storage.update({(0,): 2})
    storage.save()
    assert storage.wait(60) and not storage.saving
    found = [read(tmp_path / "folder" / name)["data"][0] for name in files(tmp_path)]
    assert found == [1, 2]


def test_points_come_in_any_order(storage: ScanStorage, tmp_path: Path) -> None:
    """L-16, L-18: revisits do not count; full saves by itself; wrong ones raise."""
    storage.reserve((2, 2))
    storage.update({(1, 1): 4.0})
    storage.update({(1, 1): 5.0, (0, 0): 1.0})
    storage.update({(0, 0): 1.5, (0, 1): 2.0})
    assert storage.reserved
    for wrong in ({(2, 0): 1}, {(-1, 0): 1}, {(0,): [1, 2]}, {(1, 0): [1]}):
        with pytest.raises(ScanMismatchError):
            storage.update(wrong)
    with pytest.raises(ScanMismatchError, match="complex"):
        storage.update({(1, 0): 1j})
    storage.update({(1, 0): 3.0})
    assert not storage.reserved and storage.wait(60)
    found = read(tmp_path / "folder/data_0.npz")
    assert found["data"].tolist() == [[1.5, 2.0], [3.0, 5.0]] and found["mask"].all()
    storage.reserve((2,))
    storage.update({(): [8, 9]})
    assert storage.wait(60)
    assert read(tmp_path / "folder/data_1.npz")["data"].tolist() == [8, 9]


@pytest.mark.parametrize(
    ("index", "value", "why"),
    [
        ((1.9, 0.7), 5.0, "is no index"),
        (1, 5.0, "is no index"),
        ((0, "1"), 5.0, "is no index"),
        ((0, 0), np.ma.masked, r"value at \(0, 0\) is masked"),
        ((1,), np.ma.masked_equal([1.0, 2.0], 2.0), "numpy.ma.filled"),
        ((1,), [[1.0], [2.0, 3.0]], "no array"),
    ],
)
def test_no_point_is_rounded_or_made_up(
    storage: ScanStorage, index: Any, value: Any, why: str
) -> None:
    """L-16, L-18: and nothing of that update is written."""
    storage.reserve((2, 2))
    with pytest.raises(ScanMismatchError, match=why):
        storage.update({index: value})
    storage.save()
    assert not storage.saving
    storage.reserve((2, 2))
    storage.update({(np.int64(1),): np.ma.masked_equal([1.0, 2.0], 9.0)})


@pytest.mark.skipif(np.dtype("g").itemsize == 8, reason="it has no more digits here")
def test_numbers_that_no_file_holds_are_refused(storage: ScanStorage) -> None:
    """L-13, L-19: others would not read them; a value may lose its last digits."""
    long = np.ones(2, np.longdouble)
    with pytest.raises(ScanMismatchError, match="make it float64"):
        storage.reserve((2,), dtype=np.longdouble)
    with pytest.raises(ScanMismatchError, match="make it complex128"):
        storage.reserve((2,), dtype=np.clongdouble)
    with pytest.raises(ScanMismatchError, match="axis 0 cannot be kept"):
        storage.reserve((2,), axes=[long])
    storage.reserve((2,))
    storage.update({(): long})
    assert not storage.reserved


def test_update_before_reserve_says_what_to_do(storage: ScanStorage) -> None:
    """L-17, L-20: and saving nothing is nothing."""
    with pytest.raises(StoreStateError, match="reserve"):
        storage.update({(0,): 1})
    storage.save()
    assert not storage.saving


@pytest.mark.parametrize("value", [2**53 + 1, 2**63 - 1, 2**64 - 1])
def test_no_integer_loses_its_last_digits(storage: ScanStorage, value: int) -> None:
    """L-18: as a float it would be another number."""
    for dtype in (None, "c16"):
        storage.reserve((2,), dtype=dtype)
        storage.update({(0,): -(2**53) if value < 2**63 else 2**63})
        with pytest.raises(ScanMismatchError, match="would not be the same"):
            storage.update({(1,): value})
        storage.save()


@pytest.mark.parametrize("format", ["npz", "hdf5"])
@pytest.mark.parametrize("slab", [1, 100, 300, 10000])
@pytest.mark.parametrize("shape", [(1, 3, 5, 4, 2), (1, 50), (2, 3, 4), (7,)])
def test_pieces_that_are_saved_make_the_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: Any,
    slab: int,
    shape: tuple[int, ...],
) -> None:
    """L-16: the first axis may have one step, and what is below it not fit."""
    monkeypatch.setattr(scan_files, "_SLAB", slab)
    largest = 0
    pieces_of = scan_files._slabs

    def watched(array: Any) -> Any:
        nonlocal largest
        for place, piece in pieces_of(array):
            largest = max(largest, piece.nbytes)
            yield place, piece

    monkeypatch.setattr(scan_files, "_slabs", watched)
    storage = ScanStorage(tmp_path, format=format)
    data = np.arange(np.prod(shape), dtype="i4").reshape(shape)
    storage.reserve(data.shape, dtype="i4")
    storage.update({(): data})
    assert storage.wait(60)
    suffix = {"npz": "npz", "hdf5": "h5"}[format]
    found = read(tmp_path / f"folder/data_0.{suffix}")["data"]
    np.testing.assert_array_equal(found, data)
    assert 0 < largest <= max(slab, 4 * 3 * 4)


def test_axes_are_checked_before_anything_is_saved(storage: ScanStorage) -> None:
    """L-19: the scan stays reserved."""
    storage.reserve((2, 3))
    storage.update({(0, 0): 1})
    for axes in ([[1, 2, 3]], [None, None, None], [["a", "b"]]):
        with pytest.raises(ScanMismatchError):
            storage.save(axes)
    assert storage.reserved == 1
    storage.save([[1, 2]])


def test_failed_save_is_told_and_tried_again(
    storage: ScanStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """L-21: nothing is lost, nothing of another program is overwritten."""
    failures: list[Any] = []
    storage.saveFailed.connect(lambda error, path: failures.append((error, path)))
    storage.reserve((2,))
    storage.update({(0,): 3})
    target = tmp_path / "folder/data_0.npz"
    target.write_text("of somebody else")
    storage.save()
    assert storage.wait(60) and not storage.saving
    [(error, path)] = failures
    assert isinstance(error, PathError) and path == str(target)
    assert storage.failed == [tmp_path / "folder/data_0.partial"]
    assert target.read_text() == "of somebody else"
    # Also who listens to no signal is told: what, why, where, and what to do.
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    for part in (str(target), str(error), str(storage.failed[0]), "retry()"):
        assert part in record.getMessage()
    target.unlink()
    storage.retry()
    assert storage.wait(60) and storage.failed == []
    assert read(target)["data"][0] == 3


def test_saving_does_not_wait_for_the_disk(
    storage: ScanStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-23, L-24: several wait for one thread, and the caller for none."""
    gate, threads = threading.Event(), set[str]()
    real = scan_saving.save_scan

    def slow(*args: Any) -> None:
        threads.add(threading.current_thread().name)
        assert gate.wait(60)
        real(*args)

    monkeypatch.setattr(scan_saving, "save_scan", slow)
    for value in range(3):
        take(storage, value)
    assert (storage.writing, storage.saving, storage.wait(0)) == (3, True, False)
    gate.set()
    assert storage.wait(60) and len(threads) == 1
    assert files(tmp_path) == ["data_0.npz", "data_1.npz", "data_2.npz"]


def test_python_ends_when_all_is_saved(tmp_path: Path) -> None:
    """L-23."""
    script = (
        "from bluesky_beamtime.storage import ScanStorage as S; s = S(format='npz');"
        "s.reserve((2, 500, 500)); s.update({(0,): [[1.0] * 500] * 500}); s.save()"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=99)
    assert read(tmp_path / "folder/data_0.npz")["data"][0].sum() == 250_000


class Detector:
    busyStateChanged = Signal(bool)
    dataAcquired = Signal(dict)
    stopped = Signal()
    dataShape = (2, 2)
    dtype = "u2"

    @property
    def axes(self) -> list[list[float]]:
        return [[0.5, 1.5], [10, 20]]


def test_detector_is_followed_until_it_is_let_go(
    storage: ScanStorage, tmp_path: Path
) -> None:
    """L-25, L-26: a full scan is saved once, a stopped one with what it has."""
    detector = Detector()
    disconnect = storage.connect(detector)
    detector.busyStateChanged.emit(True)
    for index in np.ndindex(2, 2):
        detector.dataAcquired.emit({index: 7})
    detector.busyStateChanged.emit(False)
    detector.busyStateChanged.emit(True)
    detector.dataAcquired.emit({(1,): [8, 9]})
    detector.stopped.emit()
    detector.busyStateChanged.emit(False)
    disconnect()
    detector.busyStateChanged.emit(True)
    assert storage.wait(60) and not storage.saving
    assert files(tmp_path) == ["data_0.npz", "data_1.npz"]
    full, half = (read(tmp_path / "folder" / name) for name in files(tmp_path))
    assert full["data"].dtype == np.uint16 and (full["data"] == 7).all()
    assert full["axis_0"].tolist() == [0.5, 1.5] and full["mask"].all()
    assert half["mask"].tolist() == [False, True]
    assert half["axis_1"].tolist() == [10, 20] and half["data"][1].tolist() == [8, 9]


def test_points_that_a_signal_of_pyside_drops_are_told(
    storage: ScanStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """L-25: its Signal(dict) brings {} for {(0, 1): 2.0}; once for each scan."""
    detector = Detector()
    storage.connect(detector)
    for number in (1, 2):
        detector.busyStateChanged.emit(True)
        for _ in range(3):
            detector.dataAcquired.emit({})
        detector.busyStateChanged.emit(False)
        told = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        assert len(told) == number and "Signal(object)" in told[0]


def test_what_a_killed_process_measured_is_there(tmp_path: Path) -> None:
    """L-13, L-26: the array is on disk, not in memory; its number is not used again."""
    child = """
import os, signal, sys
from bluesky_beamtime.storage import ScanStorage
scans = ScanStorage(sys.argv[1], "maps", "map")
scans.reserve((4, 5), dtype="f8")
for point in range(7):
    scans.update({divmod(point, 5): float(point)})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", child, str(tmp_path)], timeout=100)
    assert done.returncode == -signal.SIGKILL
    (store,) = tmp_path.glob("maps/map_*.partial/scan.zarr")
    group = zarr.open_group(store, mode="r")
    measured = np.asarray(group["mask"]).ravel()
    np.testing.assert_array_equal(measured, np.arange(20) < 7)
    np.testing.assert_array_equal(np.asarray(group["data"]).ravel()[:7], np.arange(7.0))
    # The next session takes another number.
    assert ScanStorage(tmp_path, "maps", "map").get_number() == 1
