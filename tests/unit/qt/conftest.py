"""One application for all tests of widgets, without a screen."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.storage import ScanStorage, scan_saving

try:
    from bluesky_beamtime.qt.binding import QtCore, QtWidgets
except ImportError as error:
    QtCore = QtWidgets = None  # type: ignore[assignment]
    # Says test_without_qt, which fails where everything has to be there.
    MISSING = " ".join([str(error), *getattr(error, "__notes__", [])])
    collect_ignore_glob = ["test_widget_*.py", "test_sentences.py"]
else:
    MISSING = ""

Until = Callable[[Callable[[], Any]], None]
# What Qt warns of when a program is wrong, and not when a machine has no fonts.
GRAVE = ("QObject", "QWidget", "QTimer", "Timers", "QLayout", "QPainter", "thread")


@pytest.fixture(scope="session")
def application() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_QPA_PLATFORM", "offscreen")
        yield QtWidgets.QApplication.instance() or QtWidgets.QApplication(["tests"])


@pytest.fixture
def app(application: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the application; what Qt or a slot complains of fails the test."""
    said: list[str] = []

    def message(_kind: Any, _context: Any, text: str) -> None:
        if any(word in text for word in GRAVE):
            said.append(text)

    def unhandled(kind: Any, error: BaseException, _trace: Any) -> None:
        said.append(f"{kind.__name__}: {error}")

    monkeypatch.setattr(sys, "excepthook", unhandled)
    before = QtCore.qInstallMessageHandler(message)
    yield application
    for widget in application.topLevelWidgets():
        widget.deleteLater()
    settle(application)
    QtCore.qInstallMessageHandler(before)
    assert said == []


def settle(app: Any) -> None:
    """Let every event come that has been posted, the end of widgets among them."""
    app.processEvents()
    end = QtCore.QEvent.Type.DeferredDelete
    app.sendPostedEvents(None, getattr(end, "value", end))  # Qt 5 has plain numbers
    app.processEvents()


@pytest.fixture
def until(app: Any) -> Until:
    """Run the events of the application until something is so."""

    def until(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            app.processEvents()
            time.sleep(0.002)

    return until


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[ScanStorage]:
    made = ScanStorage(tmp_path, "2026/LaB6", "map", format="npz")
    yield made
    assert made.wait(60)


@pytest.fixture
def window(app: Any, storage: ScanStorage) -> Any:
    from tests.unit.qt.windows import Window

    return Window(storage)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hold every save until it is set."""
    event, save = threading.Event(), scan_saving.save_scan

    def slow(*args: Any) -> None:
        assert event.wait(60)
        save(*args)

    monkeypatch.setattr(scan_saving, "save_scan", slow)
    yield event
    event.set()
