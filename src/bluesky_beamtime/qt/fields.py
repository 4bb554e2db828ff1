"""Fields that say at once, and beside themselves, what was wrong with an entry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from bluesky_beamtime.qt.binding import QtCore, QtGui, QtWidgets
from bluesky_beamtime.qt.sentences import as_tooltip

# Milliseconds without a key after which the typing has paused.
_PAUSE = 300
_ON_LIGHT, _ON_DARK = "#b3261e", "#ff8a80"


def alarm_colour(widget: QtWidgets.QWidget) -> str:
    """Return a red that is read well on the background that the widget has."""
    window = widget.palette().color(QtGui.QPalette.ColorRole.Window)
    return _ON_DARK if window.lightness() < 128 else _ON_LIGHT


class Complaint(QtWidgets.QLabel):
    """A red line of text, which takes no place while there is nothing to say."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTextFormat(QtCore.Qt.TextFormat.PlainText)
        self.setWordWrap(True)
        self.setAlignment(QtCore.Qt.AlignmentFlag.AlignTop)
        self.setTextInteractionFlags(
            QtCore.Qt.TextInteractionFlag.TextSelectableByMouse
        )
        self.say("")

    def say(self, text: str) -> None:
        """Show a text, or nothing."""
        self.setText(text)
        self.setVisible(bool(text))
        self._colour()
        self._fit()

    def attempt(self, change: Callable[[], None]) -> bool:
        """Do something, show why it did not work, and return whether it did."""
        try:
            change()
        except Exception as error:  # one that leaves a slot ends a PyQt program
            self.say(str(error) or repr(error))
            return False
        self.say("")
        return True

    def changeEvent(self, event: QtCore.QEvent | None) -> None:
        """Stay readable when the colours of the desktop change."""
        super().changeEvent(event)  # pyright: ignore[reportArgumentType]
        if event is not None and event.type() == QtCore.QEvent.Type.PaletteChange:
            self._colour()

    def hasHeightForWidth(self) -> bool:
        """Return False: a form would take the height of a narrower one."""
        return False

    def resizeEvent(self, event: QtGui.QResizeEvent | None) -> None:
        """Take the height that the text has at this width."""
        super().resizeEvent(event)  # pyright: ignore[reportArgumentType]
        self._fit()

    def _fit(self) -> None:
        self.setMinimumHeight(0)  # the answer below is never less than that
        self.setFixedHeight(max(self.heightForWidth(self.width()), 0))

    def _colour(self) -> None:
        sheet = f"color: {alarm_colour(self)}"
        if sheet != self.styleSheet():
            self.setStyleSheet(sheet)


class CheckedLine(QtWidgets.QLineEdit):
    """A line of text that is taken as it is typed, and framed red where it is not.

    What is refused stays in the field, so that it can be mended; Escape brings back
    what holds.

    Parameters
    ----------
    take
        Takes a text at once, or raises why not.
    look
        Called when the typing pauses, for what would keep it waiting; raises if what
        was taken is of no use, and the text before is taken again.

    Attributes
    ----------
    looked : Signal()
        When ``look`` was called.
    """

    looked = QtCore.Signal()

    def __init__(self, take: Callable[[str], None], look: Callable[[], None]) -> None:
        super().__init__()
        self.complaint = Complaint()
        # A frame of a style sheet leaves out what the style pads the text with.
        self.setMinimumHeight(self.sizeHint().height())
        self._take, self._look = take, look
        self._taken: str = ""
        self._settled: str = ""
        self._pause = QtCore.QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE)
        self._pause.timeout.connect(self._settle)
        self.textChanged.connect(self._offer)
        self.editingFinished.connect(self._hurry)

    def is_typed_in(self) -> bool:
        """Say whether something was taken since the last look."""
        return self._pause.isActive()

    def show_taken(self, text: str) -> None:
        """Show what holds, unless that was there before somebody began to type."""
        if text != self._taken:
            self._pause.stop()
            self._taken = self._settled = text
            self.setText(text)
            self._mark(True)

    def keyPressEvent(self, event: QtGui.QKeyEvent | None) -> None:
        """Bring back what holds with Escape, where something else stands there."""
        if event is None:
            return
        if event.key() == QtCore.Qt.Key.Key_Escape and self.text() != self._taken:
            self.setText(self._taken)
        else:
            super().keyPressEvent(event)

    @QtCore.Slot(str)
    def _offer(self, text: str) -> None:
        if text == self._taken:
            self._mark(True)
            return
        # Taken already when its listeners are told, of whom one may show it here.
        before, typed_in = self._taken, self.is_typed_in()
        self._taken = text
        self._pause.start()
        good = self.complaint.attempt(partial(self._take, text))
        if not good:
            self._taken = before
            if not typed_in:
                self._pause.stop()
        self._mark(good)

    @QtCore.Slot()
    def _hurry(self) -> None:
        if self.is_typed_in():
            self._settle()

    @QtCore.Slot()
    def _settle(self) -> None:
        self._pause.stop()
        refused = "" if self.text() == self._taken else self.complaint.text()
        if self.complaint.attempt(self._look):
            self._settled = self._taken
            self.complaint.say(refused)
        else:
            self._taken = self._settled
            with suppress(Exception):  # what held before cannot be told any better
                self._take(self._settled)
            self._mark(False)
        self.looked.emit()

    def _mark(self, good: bool) -> None:
        if good:
            self.complaint.say("")
        colour = alarm_colour(self.complaint)
        self.setStyleSheet(
            "" if good else f"QLineEdit {{ border: 1px solid {colour} }}"
        )
        self.setAccessibleDescription(self.complaint.text())


class PathLabel(QtWidgets.QLabel):
    """A path, cut in the middle where there is no room; the tooltip has all of it."""

    def __init__(self) -> None:
        super().__init__()
        self._path = ""
        self.setTextFormat(QtCore.Qt.TextFormat.PlainText)
        self.setMinimumWidth(120)
        self.setSizePolicy(
            QtWidgets.QSizePolicy.Policy.Ignored, QtWidgets.QSizePolicy.Policy.Preferred
        )

    def path(self) -> str:
        """Return all of the path."""
        return self._path

    def show_path(self, path: str) -> None:
        """Show another path."""
        self._path = path
        self.setToolTip(as_tooltip(path))
        self.setAccessibleDescription(path)
        self._fit()

    def resizeEvent(self, event: QtGui.QResizeEvent | None) -> None:
        """Cut the path anew."""
        super().resizeEvent(event)  # pyright: ignore[reportArgumentType]
        self._fit()

    def _fit(self) -> None:
        middle = QtCore.Qt.TextElideMode.ElideMiddle
        self.setText(self.fontMetrics().elidedText(self._path, middle, self.width()))
