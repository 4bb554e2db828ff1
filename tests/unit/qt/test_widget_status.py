"""What the window of a ScanStorage says of scans, L-29."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from bluesky_beamtime.storage import ScanStorage
from tests.unit.qt.conftest import Until
from tests.unit.qt.windows import Window, reserve


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
