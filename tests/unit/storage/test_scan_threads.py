"""Several threads at one ScanStorage: none hangs, and each scan is its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import ScanMismatchError, StoreStateError
from bluesky_beamtime.storage import ScanStorage
from bluesky_beamtime.storage.scan_buffer import ScanBuffer
from bluesky_beamtime.storage.scan_writers import Writers
from tests.unit.storage.test_scan import Detector, files, read


@pytest.fixture
def storage(tmp_path: Path) -> ScanStorage:
    return ScanStorage(tmp_path, format="npz")


def in_a_thread(call: Callable[[], Any]) -> bool:
    """Say whether a call ends, in another thread, while this one waits for it."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


def fails() -> Any:
    raise RuntimeError("the motor is gone")


# ------------------------------------------------------------- axes of somebody else


@pytest.mark.parametrize(
    "axes",
    [fails, lambda: [[0, 1, 2]], lambda: [[0, 1], [2]], lambda: 5, lambda: ["ab"]],
    ids=["raises", "long", "many", "number", "text"],
)
def test_axes_that_are_asked_for_never_keep_a_scan(
    storage: ScanStorage,
    tmp_path: Path,
    axes: Callable[[], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L-19, L-25: it is saved with those that were known, and the error told."""
    for value in range(2):
        storage.reserve((2,), axes=axes)
        storage.update({(0,): value})
    storage.set_axes([[5.0, 6.0]])
    storage.update({(1,): 1})
    assert storage.wait(60) and storage.failed == [] and not storage.reserved
    first, second = (read(tmp_path / "folder" / name) for name in files(tmp_path))
    assert first["axis_0"].tolist() == [0, 1]
    assert second["axis_0"].tolist() == [5.0, 6.0] and second["data"].tolist() == [1, 1]
    assert caplog.text.count("is saved with the axes that were known") == 2


def test_detector_with_wrong_axes_is_followed_on(
    storage: ScanStorage, tmp_path: Path
) -> None:
    """L-25."""

    class Wrong(Detector):
        axes = ([1.0, 2.0, 3.0],)  # type: ignore[assignment]

    detector = Wrong()
    storage.connect(detector)
    for _ in range(2):
        detector.busyStateChanged.emit(True)
        detector.dataAcquired.emit({(0,): [1, 2]})
        detector.busyStateChanged.emit(False)
    detector.busyStateChanged.emit(True)
    detector.dataAcquired.emit({(0,): [1, 2]})
    storage.enabled = False
    assert storage.wait(60) and not storage.saving and len(files(tmp_path)) == 3


# ------------------------------------------------------------ listeners, and no locks


def test_nobody_foreign_is_called_while_others_are_kept_waiting(
    storage: ScanStorage,
) -> None:
    """L-22: also where a scan was reserved while another one was being reserved."""
    asked: list[bool] = []

    def look() -> None:
        asked.append(in_a_thread(lambda: storage.saving))

    def axes() -> None:
        look()

    def reserve_too(tags: dict[str, Any]) -> None:
        storage.tagRequest.disconnect(reserve_too)
        storage.reserve((2,), axes=axes)
        storage.update({(0,): 1})

    storage.changed.connect(look)
    storage.tagRequest.connect(reserve_too)
    storage.reserve((2,))
    assert storage.wait(60) and storage.reserved == 1
    assert len(asked) > 3 and all(asked)


def test_threads_that_reserve_at_once_end(storage: ScanStorage, tmp_path: Path) -> None:
    """L-15: and every scan with a point becomes a file."""
    storage.changed.connect(lambda: storage.saving)

    def measure() -> None:
        for _ in range(20):
            storage.reserve((1,))

    workers = [threading.Thread(target=measure, daemon=True) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert storage.reserved == 1
    storage.update({(0,): 1})
    assert storage.wait(60) and len(files(tmp_path)) == 1


# ------------------------------------------------------------- each scan is its own


def test_save_never_takes_the_next_scan(storage: ScanStorage, tmp_path: Path) -> None:
    """L-15, L-19: what is reserved while the axes are asked for takes points."""
    calls: list[int] = []

    def axes() -> Any:
        calls.append(1)
        if len(calls) == 1:
            storage.reserve((2,))
        return [[5, 6]]

    storage.reserve((2,), axes=axes)
    storage.update({(0,): 1})
    storage.save()
    assert storage.buffer == tmp_path / "folder/data_1.partial/scan.zarr"
    storage.update({(): [3, 4]})
    assert storage.wait(60) and files(tmp_path) == ["data_0.npz", "data_1.npz"]
    first, second = (read(tmp_path / "folder" / name) for name in files(tmp_path))
    assert first["data"][0] == 1 and first["axis_0"].tolist() == [5, 6]
    assert second["data"].tolist() == [3, 4] and second["axis_0"].tolist() == [0, 1]


def test_switching_off_leaves_nothing_reserved(
    storage: ScanStorage, tmp_path: Path
) -> None:
    """L-06, L-14: whoever reserves meanwhile, and however far it had come."""

    def reserve_too() -> None:
        storage.reserve((2,))

    storage.reserve((2,))
    storage.update({(0,): 1})
    storage.changed.connect(reserve_too)
    storage.enabled = False
    assert storage.wait(60) and not storage.enabled
    assert not storage.saving and files(tmp_path) == ["data_0.npz"]
    storage.update({(0,): 1})
    storage.changed.disconnect(reserve_too)
    storage.enabled = True

    def switch_off(tags: dict[str, Any]) -> None:
        storage.enabled = False

    storage.tagRequest.connect(switch_off)
    storage.reserve((2,))
    assert not storage.saving and files(tmp_path) == ["data_0.npz"]


def test_full_scan_saves_itself_alone(storage: ScanStorage, tmp_path: Path) -> None:
    """L-18: threads that fill it together do not give up the next one."""
    rounds, threads = 10, 4
    barrier = threading.Barrier(threads)

    def measure(number: int) -> None:
        for value in range(rounds):
            if number == 0:
                storage.reserve((threads,))
            barrier.wait(60)
            storage.update({(number,): value})
            barrier.wait(60)

    workers = [
        threading.Thread(target=measure, args=(number,), daemon=True)
        for number in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert storage.wait(60) and not storage.saving
    for value in range(rounds):
        found = read(tmp_path / f"folder/data_{value}.npz")
        np.testing.assert_array_equal(found["data"], np.full(threads, value))


# ----------------------------------------------------------- nobody waits for a write


class Gate:
    """A write that goes on when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str = "update") -> None:
        self.begun, self.open = threading.Event(), threading.Event()
        real = getattr(ScanBuffer, name)

        def held(buffer: ScanBuffer, *args: Any) -> None:
            self.begun.set()
            assert self.open.wait(60)
            real(buffer, *args)

        monkeypatch.setattr(ScanBuffer, name, held)

    def write(self, call: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        assert self.begun.wait(60)
        return thread


def test_a_point_that_is_written_keeps_nobody_waiting_and_is_saved(
    storage: ScanStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-16, L-23: also the first one; save() and settings return meanwhile."""
    storage.reserve((2,))
    gate = Gate(monkeypatch)
    thread = gate.write(lambda: storage.update({(0,): 5}))

    def use() -> None:
        assert storage.saving and storage.reserved and storage.buffer is not None
        storage.name = "other"
        storage.save(tags={"saved": "early"})
        assert storage.saving and not storage.reserved and storage.writing == 1
        storage.reserve((2,))
        storage.save()

    assert in_a_thread(use) and storage.writing == 1
    assert not storage.wait(0)
    gate.open.set()
    thread.join(60)
    assert storage.wait(60) and storage.failed == [] and not storage.saving
    found = read(tmp_path / "folder/data_0.npz")
    assert found["data"][0] == 5 and found["mask"].tolist() == [True, False]
    assert found["tags"] == {"saved": "early"} and files(tmp_path) == ["data_0.npz"]


def test_axes_that_are_written_are_saved(
    storage: ScanStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-19."""
    storage.reserve((2,))
    storage.update({(0,): 1})
    gate = Gate(monkeypatch, "write_axes")
    thread = gate.write(lambda: storage.set_axes([[5, 6]]))
    assert in_a_thread(storage.save)
    gate.open.set()
    thread.join(60)
    assert storage.wait(60)
    assert read(tmp_path / "folder/data_0.npz")["axis_0"].tolist() == [5, 6]


def test_an_only_point_that_is_refused_leaves_nothing(
    storage: ScanStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-15: though it was being written when the scan was saved."""
    storage.reserve((2,))
    gate, refused = Gate(monkeypatch), list[Exception]()

    def update() -> None:
        try:
            storage.update({(7,): 5})
        except ScanMismatchError as error:
            refused.append(error)

    thread = gate.write(update)
    assert in_a_thread(storage.save)
    gate.open.set()
    thread.join(60)
    assert storage.wait(60) and len(refused) == 1
    assert not storage.saving and files(tmp_path) == []


def test_every_point_that_was_taken_is_saved(
    storage: ScanStorage, tmp_path: Path
) -> None:
    """L-16, L-18: while others save and reserve; the rest is refused, and told."""
    rounds, taken = 30, list[float]()

    def measure(number: int) -> None:
        for value in range(rounds):
            point = float(100 * number + value + 1)
            try:
                storage.update({(number,): point})
            except StoreStateError:
                continue
            taken.append(point)

    def save() -> None:
        for _ in range(rounds):
            storage.reserve((3,), autosave=False)

    storage.reserve((3,), autosave=False)
    work = [*(partial(measure, number) for number in range(3)), save]
    workers = [threading.Thread(target=each, daemon=True) for each in work]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    storage.save()
    assert storage.wait(60) and storage.failed == [] and not storage.saving
    found = [read(path) for path in (tmp_path / "folder").iterdir()]
    saved = {float(v) for one in found for v in one["data"][one["mask"]]}
    # A point may be measured anew in one scan; the last of each thread is in the last.
    assert saved <= set(taken)
    of_each = [[point for point in taken if point // 100 == n] for n in range(3)]
    assert {max(points) for points in of_each if points} <= saved


def test_interrupt_of_a_point_holds_up_no_save(
    storage: ScanStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-23: Ctrl-C as soon as it has begun."""
    storage.reserve((2,))
    storage.update({(0,): 5})
    enter = Writers.enter

    def interrupted(writers: Writers, who: object) -> None:
        enter(writers, who)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writers, "enter", interrupted)
        with pytest.raises(KeyboardInterrupt):
            storage.update({(1,): 6})
    storage.save()
    assert storage.wait(60)
    assert read(tmp_path / "folder/data_0.npz")["mask"].tolist() == [True, False]
