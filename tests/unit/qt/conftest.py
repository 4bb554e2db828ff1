"""One application for all tests of widgets, without a screen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

try:
    from bluesky_beamtime.qt.binding import QtCore, QtWidgets
except ImportError as error:
    QtCore = QtWidgets = None  # type: ignore[assignment]
    why = " ".join([str(error), *getattr(error, "__notes__", [])])
    assert not os.environ.get("CI"), f".ci/run installs what is missing: {why}"
    collect_ignore_glob = ["test_*.py"]

Until = Callable[[Callable[[], Any]], None]
# Of the platform without a screen, and of its fonts.
HARMLESS = ("propagateSizeHints", "QFontDatabase", "fontconfig")


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
        if not any(word in text for word in HARMLESS):
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
    app.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete.value)
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
