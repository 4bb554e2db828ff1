"""What the window of a ScanStorage promises, L-28 to L-30."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.errors import StoreStateError
from bluesky_beamtime.qt import ScanStorageWidget
from bluesky_beamtime.qt.binding import QtCore, QtGui, QtWidgets
from bluesky_beamtime.qt.fields import PathLabel, alarm_colour
from bluesky_beamtime.storage import ScanStorage, scan_saving
from tests.unit.qt.conftest import Until, settle

Key = QtCore.Qt.Key
Role = QtGui.QPalette.ColorRole


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


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[ScanStorage]:
    made = ScanStorage(tmp_path, "2026/LaB6", "map", format="npz")
    yield made
    assert made.wait(60)


@pytest.fixture
def window(app: Any, storage: ScanStorage) -> Window:
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


def reserve(storage: ScanStorage) -> None:
    storage.reserve((2,))
    storage.update({(0,): 1.0})


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
    window: Window, storage: ScanStorage, tmp_path: Path
) -> None:
    """L-28: letter by letter, and the next number with it."""
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
    assert window.label("number").text() == "next number: 4"
    press(window.line("name"), Key.Key_unknown, "s")
    assert storage.name == "scans" and window.line("name").text() == "scans"
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


def test_a_listener_that_fails_is_shown_and_harms_nothing(
    window: Window, storage: ScanStorage
) -> None:
    def broken(number: Any) -> None:
        raise RuntimeError("a listener is broken")

    storage.numberChanged.connect(broken)
    window.box("numbered").click()
    assert not storage.numbered and not window.box("numbered").isChecked()
    said = [label.text() for label in window.widget.findChildren(QtWidgets.QLabel)]
    assert any("a listener is broken" in text for text in said)


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

    def refuse() -> int:
        raise PermissionError(13, "the folder cannot be read")

    monkeypatch.setattr(storage, "getNumber", refuse)
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


def test_status_says_what_is_reserved_and_being_saved(
    window: Window, storage: ScanStorage, gate: threading.Event, until: Until
) -> None:
    """L-29."""
    assert window.status == "Nothing reserved, nothing being saved"
    reserve(storage)
    assert window.status == "1 scan reserved"
    assert window.label("number").text() == "next number: 1"
    reserve(storage)
    assert window.status == "1 scan reserved, 1 being saved"
    storage.save()
    assert window.status == "2 scans being saved"
    gate.set()
    until(lambda: window.status == "Nothing reserved, nothing being saved")
    assert not storage.saving and not window.button("retry").isVisible()


def test_a_scan_that_is_not_saved_is_told_and_saved_again(
    window: Window, storage: ScanStorage, tmp_path: Path, until: Until
) -> None:
    """L-29: with its reason, until a retry has saved it."""
    storage.name = "<b>"
    blocker = tmp_path / "2026/LaB6/<b>_0.npz"
    reserve(storage)
    blocker.write_text("in the way")
    storage.save()
    until(lambda: window.status == "1 scan not saved")
    trouble, retry = window.label("trouble"), window.button("retry")
    assert trouble.isVisible() and retry.isVisible()
    assert trouble.text().startswith("<b>_0.npz was not saved: ")
    assert "appeared while the scan was taken" in trouble.text()
    assert "&lt;b&gt;_0.npz" in window.label("status").toolTip()
    retry.click()
    assert storage.wait(60)
    until(lambda: window.status == "1 scan not saved")
    blocker.unlink()
    retry.click()
    until(lambda: window.status == "Nothing reserved, nothing being saved")
    assert blocker.stat().st_size > 100
    assert not trouble.isVisible() and not retry.isVisible()
    assert window.label("status").toolTip() == ""


def test_a_window_that_comes_later_knows_the_failure(
    app: Any, storage: ScanStorage, tmp_path: Path
) -> None:
    reserve(storage)
    (tmp_path / "2026/LaB6/map_0.npz").touch()
    storage.save()
    assert storage.wait(60)
    assert "appeared while" in Window(storage).label("trouble").text()


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
