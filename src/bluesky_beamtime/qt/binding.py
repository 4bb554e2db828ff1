"""Qt, or an error that says how to get it."""

from bluesky_beamtime.errors import MissingExtraError

_LIBRARIES = "libegl1 libgl1 libglib2.0-0 libfontconfig1 libdbus-1-3 libxkbcommon0"

try:
    from qtpy import QtCore, QtGui, QtWidgets
except ImportError as error:
    if ".so" in str(error):  # Python found the binding, and the linker did not
        error.add_note(
            "Qt is installed, but a library of the system that it needs is not; "
            f"on Debian and Ubuntu: apt-get install {_LIBRARIES}"
        )
        raise
    raise MissingExtraError("a widget", error.name or "PySide6", "qt") from error

__all__ = ["QtCore", "QtGui", "QtWidgets"]
