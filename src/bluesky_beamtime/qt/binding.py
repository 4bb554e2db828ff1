"""Qt, or an error that says how to get it."""

import sys
import warnings
from importlib import import_module

from bluesky_beamtime.errors import MissingExtraError

_LIBRARIES = "libegl1 libgl1 libglib2.0-0 libfontconfig1 libdbus-1-3 libxkbcommon0"


def _reason(error: ImportError) -> ImportError:
    """Return what the linker said, of which qtpy may only say "no bindings"."""
    for module in ("PySide6.QtCore", "PyQt6.QtCore", "PyQt5.QtCore"):
        try:
            import_module(module)
        except ImportError as reason:
            if ".so" in str(reason):
                return reason
    return error


try:
    from qtpy import API_NAME, QtCore, QtGui, QtWidgets
except ImportError as error:
    reason = _reason(error)
    if ".so" in str(reason):
        reason.add_note(
            "Qt is installed, but a library of the system that it needs is not; "
            f"on Debian and Ubuntu: apt-get install {_LIBRARIES}"
        )
        raise reason from None
    raise MissingExtraError("a widget", error.name or "PySide6", "qt") from error


def loses_references(rounds: int = 3, calls: int = 100) -> bool:
    """Return whether calls of Qt take references to None that they do not own.

    Those of PySide6 6.12.0 do. Python counts such references before 3.12 alone, and
    ends the process when none is left.
    """
    if sys.version_info >= (3, 12):
        return False
    some = QtCore.QObject()
    for _ in range(rounds):  # others may let some go meanwhile, though not every time
        before = sys.getrefcount(None)
        for _ in range(calls):
            some.setObjectName("")
        if sys.getrefcount(None) > before - calls:
            return False
    return True


if loses_references():
    warnings.warn(
        f"{API_NAME} {QtCore.qVersion()} loses references to None, which "
        "ends a Python before 3.12 after some thousand calls of Qt, with all that it "
        "was doing; pip install 'PySide6-Essentials<6.12', and begin a new session",
        RuntimeWarning,
        stacklevel=2,
    )

__all__ = ["QtCore", "QtGui", "QtWidgets"]
