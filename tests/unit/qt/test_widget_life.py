"""Threads, and the beginning and end of the window of a ScanStorage, L-29."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

from bluesky_beamtime.errors import StoreStateError
from bluesky_beamtime.qt import ScanStorageWidget
from bluesky_beamtime.qt.binding import QtWidgets
from bluesky_beamtime.storage import ScanStorage
from tests.unit.qt.conftest import Until, settle
from tests.unit.qt.windows import Window, reserve


def test_widgets_are_touched_on_their_own_thread_alone(
    window: Window, storage: ScanStorage, until: Until
) -> None:
    """L-29: signals come on the thread that saves."""
    here, seen = threading.get_ident(), set[int]()
    window.line("name").textChanged.connect(lambda _: seen.add(threading.get_ident()))

    def work() -> None:
        for number in range(100):
            storage.name = f"map{number}"

    worker = threading.Thread(target=work)
    worker.start()
    until(lambda: window.line("name").text() == "map99")
    worker.join(60)
    assert seen == {here}


def test_a_window_may_go_while_a_scan_is_saved(
    window: Window, storage: ScanStorage, gate: threading.Event, tmp_path: Path
) -> None:
    reserve(storage)
    storage.save()
    window.widget.deleteLater()
    settle(QtWidgets.QApplication.instance())
    gate.set()
    assert storage.wait(60)
    settle(QtWidgets.QApplication.instance())
    storage.name = "after"
    assert (tmp_path / "2026/LaB6/map_0.npz").exists()
    assert len(storage.changed) == 0


def test_windows_come_and_go_while_threads_tell(
    app: Any, storage: ScanStorage, rounds: int = 40
) -> None:
    ended = threading.Event()

    def work() -> None:
        number = 0
        while not ended.is_set():
            storage.name = f"map{number}"
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(rounds):
            window = Window(storage)
            app.processEvents()
            if number % 2:
                window.widget.deleteLater()
            del window
            settle(app)
    finally:
        ended.set()
        worker.join(60)
    settle(app)
    gc.collect()
    assert len(storage.changed) == 0


def test_neither_keeps_the_other_alive(app: Any, tmp_path: Path) -> None:
    storage = ScanStorage(tmp_path)
    window = Window(storage)
    kept, shown = weakref.ref(storage), weakref.ref(window.widget)
    # At once, here: the garbage collector may run on any thread, where it must not end.
    gc.disable()
    try:
        del window
        gone = shown() is None
    finally:
        gc.enable()
    assert gone and len(storage.changed) == 0
    window = Window(storage)
    window.widget.deleteLater()
    settle(app)
    del window, storage
    gc.collect()
    assert kept() is None


def test_a_window_is_made_on_the_thread_of_its_application(
    app: Any, storage: ScanStorage
) -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            ScanStorageWidget(storage)
        except StoreStateError as error:
            raised.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(60)
    assert len(raised) == 1 and "thread" in str(raised[0])
