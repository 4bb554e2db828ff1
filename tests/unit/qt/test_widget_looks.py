"""How the window of a ScanStorage is seen, heard and reached."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.qt.binding import QtCore, QtGui, QtWidgets
from bluesky_beamtime.qt.fields import alarm_colour
from bluesky_beamtime.storage import ScanStorage
from tests.unit.qt.windows import Window

Role = QtGui.QPalette.ColorRole


def test_it_is_used_without_a_mouse(window: Window, app: Any) -> None:
    """Every part has a name for those who hear it, a hint, and its place in the row."""
    order = ["base", "browse", "folder", "name", "numbered", "enabled"]
    parts = [window.widget.findChild(QtWidgets.QWidget, name) for name in order]
    for part, following in pairwise(parts):
        assert part.nextInFocusChain() is following or following in chain(part)
        assert part.toolTip()
    for name in ("base", "folder", "name"):
        assert window.line(name).accessibleName()
    labels = window.widget.findChildren(QtWidgets.QLabel)
    buddies = {label.buddy().objectName() for label in labels if label.buddy()}
    assert buddies >= {"base", "folder", "name"}
    letters = [
        part.text().partition("&")[2][:1].lower()
        for part in (*labels, *window.widget.findChildren(QtWidgets.QAbstractButton))
        if "&" in part.text()
    ]
    assert len(letters) == len(set(letters)) == 7


def chain(part: Any) -> list[Any]:
    """Return what Tab reaches next, up to a part that takes the focus."""
    found = [part.nextInFocusChain()]
    while found[-1].focusPolicy() == QtCore.Qt.FocusPolicy.NoFocus:
        found.append(found[-1].nextInFocusChain())
    return found


@pytest.mark.parametrize("background", ["#f0f0f0", "#ffffff", "#353535", "#000000"])
def test_red_is_read_on_every_background(app: Any, background: str) -> None:
    """At least 4.5 : 1, which is the least that the WCAG allow for text."""
    widget = QtWidgets.QWidget()
    palette = widget.palette()
    palette.setColor(Role.Window, QtGui.QColor(background))
    widget.setPalette(palette)
    tones = [luminance(background), luminance(alarm_colour(widget))]
    assert (max(tones) + 0.05) / (min(tones) + 0.05) >= 4.5


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_picture_of_it_changes_with_its_state(
    window: Window, storage: ScanStorage, app: Any, tmp_path: Path
) -> None:
    """A refusal is red, and it takes the place that its text needs."""
    pictures: list[Callable[[], Any]] = []
    heights = []
    for name in ("map", "a/b"):
        window.line("name").setText(name)
        app.processEvents()
        window.widget.adjustSize()
        app.processEvents()
        heights.append(window.widget.height())
        pictures.append(window.widget.grab().toImage())
    reds = [count(picture, alarm_colour(window.widget)) for picture in pictures]
    assert reds[0] == 0 and reds[1] > 100
    assert heights[1] > heights[0]
    line, complaint = window.line("name"), window.line("name").complaint
    assert complaint.geometry().top() >= line.geometry().bottom()
    assert complaint.height() < 8 * line.height()


def count(picture: Any, colour: str) -> int:
    wanted = QtGui.QColor(colour).rgb()
    return sum(
        picture.pixel(x, y) == wanted
        for x in range(picture.width())
        for y in range(picture.height())
    )
