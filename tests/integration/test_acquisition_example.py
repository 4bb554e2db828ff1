"""The example beamline in the top-level folders does what it says."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bluesky import RunEngine

from bluesky_beamtime.demo.iocs import announced_in, beamline_iocs
from bluesky_beamtime.storage import FrameStore

ROOT = Path(__file__).parents[2]


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"example_{path.replace('/', '_')}", ROOT / f"{path}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_plans_with_devices(RE: RunEngine, run: Any, store: FrameStore) -> None:
    devices, plans = load("devices/beamline"), load("plans/beamline")
    beamline = devices.make_devices(store)
    for device in (beamline.near, beamline.far, beamline.diode):
        RE(_set(device.exposure, 0.001))

    RE(plans.centre_sample(beamline.diode, beamline.x, num=5))
    assert run["start"][-1]["plan_name"] == "centre_sample"
    assert len(run["event"]) == 5
    RE(plans.map_sample(beamline.cameras, beamline.x, beamline.y, num=3))
    assert run["start"][-1]["num_points"] == 9
    assert len(run.announced("near")) == len(run.announced("far")) == 9
    RE(plans.watch_sample(beamline.cameras, 0.02, exposure=0.002))
    assert run["start"][-1]["num_points"] == 10
    assert run.exit_status == "success"


def test_with_iocs(
    RE: RunEngine,
    run: Any,
    store: FrameStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("p4p")
    pytest.importorskip("softioc")
    devices, plans = load("devices/beamline"), load("plans/beamline")
    # The client of ophyd-async reads the environment once in a process.
    prefix = f"T{os.getpid()}:"
    with beamline_iocs(prefix, (32, 32)) as conf, announced_in(tmp_path, conf):
        beamline = devices.make_devices(
            store, devices="epics", prefix=prefix, folder=tmp_path
        )
        assert len(beamline.cameras) == 3
        RE(plans.watch_sample(beamline.cameras, 0.05, exposure=0.01))
        beamline.pilatus.close()
    assert run.indices("pilatus")[-1][1] == run.indices("near")[-1][1] == 5


def _set(signal: Any, value: float) -> Any:
    from bluesky import plan_stubs as bps

    yield from bps.abs_set(signal, value, wait=True)
