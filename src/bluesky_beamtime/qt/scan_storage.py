"""The window of a ScanStorage: where scans go, and what is being saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from bluesky_beamtime.errors import StoreStateError
from bluesky_beamtime.qt.binding import QtCore, QtGui, QtWidgets
from bluesky_beamtime.qt.fields import CheckedLine, Complaint, PathLabel
from bluesky_beamtime.qt.relay import follow
from bluesky_beamtime.qt.sentences import doing, next_file, trouble, troubles
from bluesky_beamtime.storage import ScanStatus, ScanStorage

_Icon = QtWidgets.QStyle.StandardPixmap


class ScanStorageWidget(QtWidgets.QWidget):
    """Shows and sets where a :class:`~bluesky_beamtime.storage.ScanStorage` saves.

    Base folder with a button that browses, folder, name, numbering with the next
    number, a switch, the file that comes next, and what is reserved, being saved and
    failed, with the reason and a button that tries again.

    It sets nothing by itself: it shows the storage as it is, also when that is changed
    in Python or by another window, and hands on what is typed as it is typed. What the
    storage refuses is framed red with the reason below it, and the storage stays as it
    was. The next number follows when the typing pauses: to look for it may take long
    in a large folder. It keeps nothing between sessions and writes no file.

    Parameters
    ----------
    storage
        What it shows. Signals may come on any thread.
    parent
        The widget that it is a part of, if any.

    Raises
    ------
    StoreStateError
        There is no ``QApplication`` yet, or this is not its thread; Qt itself would end
        the process.

    Notes
    -----
    Its parts are found by name, for style sheets and tests: ``base``, ``browse``,
    ``folder``, ``name``, ``numbered``, ``number``, ``enabled``, ``target``, ``status``,
    ``trouble`` and ``retry``. Its scans are saved to the end when it is closed.
    """

    # Emitted by the storage's threads through a relay.
    _changed = QtCore.Signal()

    def __init__(
        self, storage: ScanStorage, parent: QtWidgets.QWidget | None = None
    ) -> None:
        _need_application()
        super().__init__(parent)
        self._storage = storage
        self.setObjectName("scan_storage")
        self.setWindowTitle("Scan storage")
        # What a part holds must not lead back here: in a circle, Python would collect
        # the widget some time on any thread, and Qt allows that on its own alone.
        self._base = _line(
            storage,
            "base",
            partial(_set_base, storage),
            "Where the folders of scans are",
        )
        self._folder = _line(
            storage,
            "folder",
            lambda text: storage.set_place(folder=text),
            "Folder below the base, such as 2026/LaB6; it is created when needed",
        )
        self._name = _line(
            storage,
            "name",
            lambda text: storage.set_place(name=text),
            "Name of the files, without number and suffix",
        )
        self._browse = QtWidgets.QPushButton("Bro&wse…")
        self._browse.setToolTip("Choose the base folder")
        self._numbered = QtWidgets.QCheckBox("N&umber the files")
        self._numbered.setToolTip(
            "Without numbers, a file that is there already is refused"
        )
        self._number = QtWidgets.QLabel()
        self._enabled = QtWidgets.QCheckBox("&Save scans")
        self._enabled.setToolTip("Switching off saves what was measured so far")
        self._switches = Complaint()
        self._target = PathLabel()
        self._icon = QtWidgets.QLabel()
        self._status = QtWidgets.QLabel()
        self._status.setTextFormat(QtCore.Qt.TextFormat.PlainText)
        self._trouble = Complaint()
        self._retry = QtWidgets.QPushButton("&Retry")
        self._retry.setToolTip("Save once more what could not be saved")
        for name, part in (
            ("browse", self._browse),
            ("numbered", self._numbered),
            ("number", self._number),
            ("enabled", self._enabled),
            ("target", self._target),
            ("status", self._status),
            ("trouble", self._trouble),
            ("retry", self._retry),
        ):
            part.setObjectName(name)
        self._lay_out()
        self._refresh()
        self._browse.clicked.connect(self._choose)
        self._numbered.toggled.connect(self._switch)
        self._enabled.toggled.connect(self._switch)
        self._retry.clicked.connect(self._try_again)
        self._changed.connect(self._refresh)
        for line in (self._base, self._folder, self._name):
            line.looked.connect(self._refresh)
        follow(storage.changed, self, self._changed)
        # Between the two lines above this one, another thread may have changed it.
        self._refresh()

    def storage(self) -> ScanStorage:
        """Return what it shows."""
        return self._storage

    def _lay_out(self) -> None:
        base = QtWidgets.QHBoxLayout()
        base.addWidget(self._base)
        base.addWidget(self._browse)
        numbers = QtWidgets.QHBoxLayout()
        numbers.addWidget(self._numbered)
        numbers.addStretch()
        numbers.addWidget(self._number)
        doings = QtWidgets.QHBoxLayout()
        doings.addWidget(self._icon)
        doings.addWidget(self._status, 1)
        doings.addWidget(self._retry)

        form = QtWidgets.QFormLayout(self)
        form.setFieldGrowthPolicy(
            QtWidgets.QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow
        )
        form.addRow(_label("&Base folder:", self._base), base)
        form.addRow("", self._base.complaint)
        form.addRow(_label("&Folder:", self._folder), self._folder)
        form.addRow("", self._folder.complaint)
        form.addRow(_label("&Name:", self._name), self._name)
        form.addRow("", self._name.complaint)
        form.addRow("", numbers)
        form.addRow("", self._enabled)
        form.addRow("", self._switches)
        form.addRow("Next file:", self._target)
        form.addRow("Status:", doings)
        form.addRow("", self._trouble)
        # Rows stay together at the top of a tall window.
        self.setSizePolicy(
            QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Maximum
        )
        order = [self._base, self._browse, self._folder, self._name]
        order += [self._numbered, self._enabled, self._retry]
        for first, second in pairwise(order):
            QtWidgets.QWidget.setTabOrder(first, second)

    @QtCore.Slot()
    def _refresh(self) -> None:
        status = self._storage.status
        self._base.show_taken(status.base)
        self._folder.show_taken(status.folder)
        self._name.show_taken(status.name)
        self._numbered.setChecked(status.numbered)
        self._enabled.setChecked(status.enabled)
        lines = (self._base, self._folder, self._name)
        number, target = next_file(status, any(line.is_typed_in() for line in lines))
        self._number.setText(number)
        self._target.show_path(target)
        self._status.setText(doing(status))
        self._status.setAccessibleName(f"Status: {doing(status)}")
        icon = self._standard_icon(_icon(status))
        self._icon.setPixmap(icon.pixmap(self._status.sizeHint().height()))
        self._trouble.say(trouble(status))
        self._trouble.setToolTip(troubles(status))
        self._status.setToolTip(troubles(status))
        self._retry.setVisible(bool(status.failures))

    def _standard_icon(self, which: QtWidgets.QStyle.StandardPixmap) -> QtGui.QIcon:
        style = self.style()
        return style.standardIcon(which)

    @QtCore.Slot()
    def _switch(self) -> None:
        """Hand on what the boxes say, where the storage says something else."""
        boxes = {"numbered": self._numbered, "enabled": self._enabled}
        new = {
            setting: box.isChecked()
            for setting, box in boxes.items()
            if box.isChecked() != getattr(self._storage, setting)
        }

        def change() -> None:
            for setting, value in new.items():
                setattr(self._storage, setting, value)

        if new and not self._switches.attempt(change):
            self._refresh()

    @QtCore.Slot()
    def _choose(self) -> None:
        """Let a folder be chosen, beginning at the one that is nearest to the base."""
        status = self._storage.status
        below = [part for part in status.folder.split("/") if part]
        start = status.target.parents[len(below)]
        while not start.is_dir() and start != start.parent:
            start = start.parent
        chosen = QtWidgets.QFileDialog.getExistingDirectory(
            self, "Base folder of scans", str(start)
        )
        if chosen:
            self._base.setText(chosen)

    @QtCore.Slot()
    def _try_again(self) -> None:
        self._trouble.attempt(self._storage.retry)


def _need_application() -> None:
    application = QtCore.QCoreApplication.instance()
    if not isinstance(application, QtWidgets.QApplication):
        raise StoreStateError(
            "a window needs an application first: write app = QApplication([]), or "
            "%gui qt in IPython"
        )
    if QtCore.QThread.currentThread() != application.thread():
        raise StoreStateError(
            "a window can only be made on the thread of its application; make it there"
        )


def _set_base(storage: ScanStorage, text: str) -> None:
    if not text:
        raise StoreStateError("choose a base folder; '.' is the current one")
    storage.set_place(base=text)


def _line(
    storage: ScanStorage, name: str, take: Callable[[str], None], tip: str
) -> CheckedLine:
    line = CheckedLine(take, storage.look)
    line.setObjectName(name)
    line.setToolTip(tip)
    return line


def _label(text: str, buddy: QtWidgets.QWidget) -> QtWidgets.QLabel:
    label = QtWidgets.QLabel(text)
    label.setBuddy(buddy)
    buddy.setAccessibleName(text.replace("&", "").rstrip(":"))
    return label


def _icon(status: ScanStatus) -> QtWidgets.QStyle.StandardPixmap:
    if status.failures:
        return _Icon.SP_MessageBoxWarning
    if status.writing:
        return _Icon.SP_DialogSaveButton
    if status.reserved:
        return _Icon.SP_MediaPlay
    return _Icon.SP_DialogApplyButton if status.enabled else _Icon.SP_MediaPause
