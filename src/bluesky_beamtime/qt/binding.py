"""Qt, or an error that says how to get it."""

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
    from qtpy import QtCore, QtGui, QtWidgets
except ImportError as error:
    reason = _reason(error)
    if ".so" in str(reason):
        reason.add_note(
            "Qt is installed, but a library of the system that it needs is not; "
            f"on Debian and Ubuntu: apt-get install {_LIBRARIES}"
        )
        raise reason from None
    raise MissingExtraError("a widget", error.name or "PySide6", "qt") from error

__all__ = ["QtCore", "QtGui", "QtWidgets"]
