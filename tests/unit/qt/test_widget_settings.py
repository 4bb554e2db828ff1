"""What is set in the window of a ScanStorage, L-28."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.qt.binding import QtCore, QtWidgets
from bluesky_beamtime.qt.fields import PathLabel
from bluesky_beamtime.storage import ScanStorage, scan_names, scan_settings
from tests.unit.qt.conftest import Until, settle
from tests.unit.qt.windows import Window, press, reserve

Key = QtCore.Qt.Key


def test_it_shows_the_storage_and_changes_nothing(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-28: neither its settings nor a file, here or in the current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "data/LaB6").mkdir(parents=True)
    (tmp_path / "data/LaB6/sum_6.npz").touch()
    storage = ScanStorage(tmp_path / "data", "LaB6", "sum", format="npz")
    files, before = sorted(tmp_path.rglob("*")), storage.status
    window = Window(storage)
    settle(app)
    assert window.shown == (str(tmp_path / "data"), "LaB6", "sum", True, True)
    assert window.label("number").text() == "next number: 7"
    target = window.widget.findChild(PathLabel, "target")
    assert target.path() == str(tmp_path / "data/LaB6/sum_7.npz")
    window.widget.close()
    settle(app)
    assert storage.status == before and sorted(tmp_path.rglob("*")) == files


def test_typing_changes_the_storage(
    window: Window, storage: ScanStorage, tmp_path: Path, until: Until
) -> None:
    """L-28: letter by letter, and the next number when the typing pauses."""
    (tmp_path / "other/Si").mkdir(parents=True)
    (tmp_path / "other/Si/scan_3.npz").touch()
    window.type("base", str(tmp_path / "other"))
    window.type("folder", "Si")
    window.type("name", "scan")
    assert (storage.base, storage.folder, storage.name) == (
        str(tmp_path / "other"),
        "Si",
        "scan",
    )
    number, target = (
        window.label("number"),
        window.widget.findChild(PathLabel, "target"),
    )
    assert number.text() == "next number: …"
    assert target.path() == str(tmp_path / "other/Si/scan_….npz")
    until(lambda: number.text() == "next number: 4")
    assert target.path() == str(tmp_path / "other/Si/scan_4.npz")
    press(window.line("name"), Key.Key_unknown, "s")
    assert storage.name == "scans" and window.line("name").text() == "scans"
    press(window.line("name"), Key.Key_Return)
    assert number.text() == "next number: 0"


def test_typing_does_not_look_into_the_folder(
    window: Window,
    storage: ScanStorage,
    monkeypatch: pytest.MonkeyPatch,
    until: Until,
) -> None:
    """L-28: once, when it pauses; what is reserved before has its own number."""
    looked: list[Path] = []
    real = scan_settings.next_number

    def next_number(folder: Path, name: str) -> int:
        looked.append(folder / name)
        return real(folder, name)

    monkeypatch.setattr(scan_settings, "next_number", next_number)
    window.type("name", "sum")
    window.type("folder", "Si/7")
    assert looked == []
    until(lambda: window.label("number").text() == "next number: 0")
    place = Path(storage.base) / "Si/7/sum"
    assert set(looked) == {place} and len(looked) <= 2
    window.type("name", "dark")
    reserve(storage)
    assert storage.buffer == place.with_name("dark_0.partial") / "scan.zarr"
    until(lambda: window.label("number").text() == "next number: 1")


def test_a_folder_that_cannot_be_looked_into_is_marked_when_the_typing_pauses(
    window: Window, storage: ScanStorage, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """And what held before the typing holds again."""
    listdir = scan_names.os.listdir

    def closed(path: Path) -> list[str]:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(scan_names.os, "listdir", closed)
    line = window.line("folder")
    window.type("folder", "closed")
    assert storage.folder == "closed" and not line.complaint.isVisible()
    until(line.complaint.isVisible)
    assert storage.folder == "2026/LaB6" and line.text() == "closed"
    assert "permissions" in line.complaint.text() and "border" in line.styleSheet()
    assert window.label("number").text() == "next number: 0"
    press(line, Key.Key_Escape)
    assert line.text() == "2026/LaB6" and not line.complaint.isVisible()


def test_a_name_that_is_refused_stays_marked_when_the_typing_pauses(
    window: Window, storage: ScanStorage
) -> None:
    line = window.line("name")
    window.type("name", "a/b")
    assert line.is_typed_in() and line.complaint.isVisible()
    press(line, Key.Key_Return)
    assert not line.is_typed_in() and line.complaint.isVisible()
    assert (storage.name, line.text()) == ("a", "a/b")
    assert window.label("number").text() == "next number: 0"


@pytest.mark.parametrize(
    ("field", "text", "why"),
    [
        ("name", "a/b", "cannot name a folder"),
        ("name", "", "cannot name a folder"),
        ("name", "x" * 201, "cannot name a folder"),
        ("folder", "../elsewhere", "cannot name a folder"),
        ("folder", "/etc", "absolute"),
        ("base", "~nobody-of-that-name", "home"),
        ("base", "", "choose a base folder"),
    ],
)
def test_a_name_that_is_refused_is_marked_and_changes_nothing(
    window: Window, storage: ScanStorage, field: str, text: str, why: str
) -> None:
    line, before = window.line(field), storage.status
    line.setText(text)
    assert storage.status == before
    assert line.complaint.isVisible() and why in line.complaint.text()
    assert "border" in line.styleSheet() and why in line.accessibleDescription()
    # What was typed can be mended, whatever is refreshed meanwhile.
    storage.enabled = False
    assert line.text() == text and line.complaint.isVisible()
    line.setText("better")
    assert getattr(storage, field) == "better"
    assert not line.complaint.isVisible() and line.styleSheet() == ""
    assert line.accessibleDescription() == ""


def test_escape_brings_back_what_holds(window: Window, storage: ScanStorage) -> None:
    line = window.line("name")
    line.setText("a/b")
    press(line, Key.Key_Escape)
    assert (line.text(), storage.name) == ("map", "map")
    assert not line.complaint.isVisible()


def test_a_listener_that_fails_is_told_and_harms_nothing(
    app: Any, window: Window, storage: ScanStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """L-29: nor does the window go on showing what was before."""

    def broken(*_: Any) -> None:
        raise RuntimeError("a listener is broken")

    storage.numberChanged.connect(broken)
    storage.savingStateChanged.connect(broken)
    window.box("numbered").click()
    assert not storage.numbered and not window.box("numbered").isChecked()
    assert window.label("number").text() == ""
    reserve(storage)
    assert window.status == "1 scan reserved"
    storage.save()
    assert storage.wait(60)
    settle(app)
    assert window.status == "Nothing reserved, nothing being saved"
    assert "a listener is broken" in caplog.text


def test_boxes_switch_the_storage(window: Window, storage: ScanStorage) -> None:
    """L-28: and say what it means."""
    window.box("numbered").click()
    assert not storage.numbered and window.label("number").text() == ""
    window.box("enabled").click()
    assert not storage.enabled and window.status.startswith("Switched off")
    for name in ("numbered", "enabled"):
        window.box(name).click()
    assert storage.numbered and storage.enabled


def test_a_box_that_is_refused_goes_back(
    window: Window, storage: ScanStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.numbered = False

    def refuse(*_: Any) -> int:
        raise PermissionError(13, "the folder cannot be read")

    monkeypatch.setattr(scan_settings, "next_number", refuse)
    window.box("numbered").click()
    assert not storage.numbered and not window.box("numbered").isChecked()
    said = [label.text() for label in window.widget.findChildren(QtWidgets.QLabel)]
    assert any("the folder cannot be read" in text for text in said)


def test_browsing_begins_at_the_nearest_folder(
    window: Window,
    storage: ScanStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """L-28: what is chosen becomes the base, and nothing does when it is cancelled."""
    answers, asked = [str(tmp_path / "chosen"), ""], []

    def ask(_parent: Any, _title: str, start: str) -> str:
        asked.append(start)
        return answers.pop(0)

    dialog = QtWidgets.QFileDialog
    monkeypatch.setattr(dialog, "getExistingDirectory", staticmethod(ask))
    storage.base = tmp_path / "not/yet/there"
    window.button("browse").click()
    assert storage.base == window.line("base").text() == str(tmp_path / "chosen")
    (tmp_path / "chosen").mkdir()
    window.button("browse").click()
    assert storage.base == str(tmp_path / "chosen")
    assert asked == [str(tmp_path), str(tmp_path / "chosen")]


def test_it_shows_what_is_changed_in_python_or_in_another_window(
    window: Window, storage: ScanStorage, tmp_path: Path
) -> None:
    """L-28, L-29."""
    second = Window(storage)
    window.line("folder").setText("/refused")
    storage.base, storage.folder, storage.name = tmp_path / "b", "f", "n"
    storage.numbered = storage.enabled = False
    for each in (window, second):
        assert each.shown == (str(tmp_path / "b"), "f", "n", False, False)
    assert not window.line("folder").complaint.isVisible()
    second.line("name").setText("typed")
    assert window.line("name").text() == "typed"


def test_the_cursor_stays_where_somebody_types(
    window: Window, storage: ScanStorage
) -> None:
    line = window.line("name")
    line.setCursorPosition(1)
    press(line, Key.Key_unknown, "x")
    reserve(storage)
    assert storage.wait(60)
    assert (line.text(), line.cursorPosition()) == ("mxap", 2)
