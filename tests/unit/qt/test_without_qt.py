"""What works where there is no Qt, and what is said where it is asked for (L-30)."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.qt.conftest import MISSING

BINDINGS = ("PyQt5", "PyQt6", "PySide2", "PySide6")
TRY = """
import sys
from importlib.abc import MetaPathFinder
{before}
try:
    from bluesky_beamtime.qt import ScanStorageWidget
except ImportError as error:
    print(type(error).__name__, error, *getattr(error, "__notes__", []))
"""
WITHOUT_LIBRARY = """
class Linker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            raise ImportError("{library}: cannot open shared object file", name=name)
sys.meta_path.insert(0, Linker())
"""


def run(script: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "QT_API": "pyside6", "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def hide(*names: str) -> str:
    return f"sys.modules.update(dict.fromkeys({names!r}))"


def test_qt_is_there_where_everything_has_to_be() -> None:
    if MISSING:
        assert not os.environ.get("CI"), f".ci/run installs what is missing: {MISSING}"
        pytest.skip(MISSING)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is not counted")
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_a_binding_that_would_end_the_process_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PySide6 6.12.0 took a reference to None in every call that returns nothing."""
    from bluesky_beamtime.qt import binding

    assert not binding.loses_references()
    taken = 0

    class Object:
        def setObjectName(self, _name: str) -> None:
            nonlocal taken
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(None))
            taken += 1

    monkeypatch.setattr(binding.QtCore, "QObject", Object)
    try:
        assert binding.loses_references()
    finally:
        for _ in range(taken):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(None))


def test_the_core_works_without_qt(tmp_path: Path) -> None:
    """L-30: a scan is taken where neither qtpy nor any binding can be imported."""
    script = (
        f"import sys; {hide('qtpy', *BINDINGS)}\n"
        "import bluesky_beamtime\n"
        "from bluesky_beamtime.storage import ScanStorage\n"
        "storage = ScanStorage('here', format='npz')\n"
        "storage.reserve((2,)); storage.update({(): [1.0, 2.0]})\n"
        "assert storage.wait(60) and not storage.failed\n"
        "print(storage.status.number)"
    )
    assert run(script, tmp_path) == "1\n"
    assert (tmp_path / "here/folder/data_0.npz").exists()


@pytest.mark.parametrize("hidden", [("qtpy",), BINDINGS])
def test_a_missing_package_is_named_with_its_extra(
    hidden: tuple[str, ...], tmp_path: Path
) -> None:
    if hidden != ("qtpy",):
        pytest.importorskip("qtpy", exc_type=ImportError)
    said = run(TRY.format(before=hide(*hidden)), tmp_path)
    assert said.startswith("MissingExtraError a widget needs the package ")
    assert "pip install 'bluesky-beamtime[qt]'" in said


@pytest.mark.skipif(bool(MISSING), reason=MISSING or "Qt is there")
@pytest.mark.parametrize(
    ("module", "library"),
    [("PySide6.QtGui", "libEGL.so.1"), ("PySide6.QtCore", "libgthread-2.0.so.0")],
)
def test_a_library_of_the_system_that_is_missing_is_told(
    module: str, library: str, tmp_path: Path
) -> None:
    """Installing the extra once more would not help, though qtpy may think so."""
    before = WITHOUT_LIBRARY.format(module=module, library=library)
    said = run(TRY.format(before=hide("PyQt5", "PyQt6") + before), tmp_path)
    assert said.startswith(f"ImportError {library}: cannot open")
    assert "apt-get install libegl1" in said


@pytest.mark.skipif(bool(MISSING), reason=MISSING or "Qt is there")
def test_without_an_application_it_is_told_what_to_write(tmp_path: Path) -> None:
    """Qt itself would end the process, and the recording in it."""
    script = (
        "from bluesky_beamtime.qt import ScanStorageWidget\n"
        "from bluesky_beamtime.storage import ScanStorage\n"
        "try: ScanStorageWidget(ScanStorage())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    said = run(script, tmp_path)
    assert said.startswith("StoreStateError") and "QApplication([])" in said
