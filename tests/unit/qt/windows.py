"""A widget under test, with its parts by name."""

from __future__ import annotations

from typing import Any

from bluesky_beamtime.qt import ScanStorageWidget
from bluesky_beamtime.qt.binding import QtCore, QtGui, QtWidgets
from bluesky_beamtime.storage import ScanStorage

Key = QtCore.Qt.Key


class Window:
    """A widget with its parts by name."""

    def __init__(self, storage: ScanStorage) -> None:
        self.widget = ScanStorageWidget(storage)
        self.widget.show()

    def line(self, name: str) -> Any:
        return self.widget.findChild(QtWidgets.QLineEdit, name)

    def box(self, name: str) -> Any:
        return self.widget.findChild(QtWidgets.QCheckBox, name)

    def button(self, name: str) -> Any:
        return self.widget.findChild(QtWidgets.QPushButton, name)

    def label(self, name: str) -> Any:
        return self.widget.findChild(QtWidgets.QLabel, name)

    def type(self, name: str, text: str) -> None:
        """Replace what stands in a field, key by key."""
        self.line(name).selectAll()
        press(self.line(name), Key.Key_Delete)
        for character in text:
            press(self.line(name), Key.Key_unknown, character)

    @property
    def status(self) -> str:
        return self.label("status").text()

    @property
    def shown(self) -> tuple[Any, ...]:
        texts = [self.line(name).text() for name in ("base", "folder", "name")]
        boxes = [self.box(name).isChecked() for name in ("numbered", "enabled")]
        return (*texts, *boxes)


def press(widget: Any, key: Any, text: str = "") -> None:
    for kind in (QtCore.QEvent.Type.KeyPress, QtCore.QEvent.Type.KeyRelease):
        none = QtCore.Qt.KeyboardModifier.NoModifier
        event = QtGui.QKeyEvent(kind, key, none, text)
        QtWidgets.QApplication.sendEvent(widget, event)


def reserve(storage: ScanStorage) -> None:
    storage.reserve((2,))
    storage.update({(0,): 1.0})
