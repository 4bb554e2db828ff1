"""Without p4p everything else works, and PVA devices say what to install."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bluesky_beamtime.devices import PvaCamera, SimIoc
from bluesky_beamtime.errors import DeviceTimeoutError, MissingExtraError
from bluesky_beamtime.storage import FrameStore


async def test_pva_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "p4p.client.thread", None)
    camera = PvaCamera(FrameStore(tmp_path), "X:Pva1:Image", name="cam")
    with pytest.raises(MissingExtraError, match=r"bluesky-beamtime\[epics\]"):
        await camera.connect()


def test_ioc(monkeypatch: pytest.MonkeyPatch) -> None:
    from bluesky_beamtime.devices.ioc import main

    monkeypatch.setitem(sys.modules, "p4p", None)
    with pytest.raises(MissingExtraError, match=r"bluesky-beamtime\[epics\]"):
        main(["--prefix", "X:"])


def test_an_ioc_that_does_not_start() -> None:
    with pytest.raises(DeviceTimeoutError, match="was not ready"):
        SimIoc(shape=(0, 0))
