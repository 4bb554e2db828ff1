"""What a browser shows: our pages, and Tiled's own on our tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.serving.server import BeamtimeServer

pytestmark = pytest.mark.filterwarnings("default")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--window-size=1200,900",
    "--virtual-time-budget=10000",
)


@pytest.fixture(scope="module", autouse=True)
def _chromium() -> None:
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "chromium is missing: .ci/run installs it"
        pytest.skip("there is no chromium here")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """Serve a step scan and a fly scan of a camera."""
    from bluesky import RunEngine
    from bluesky import plans as bp
    from ophyd_async.core import init_devices
    from ophyd_async.sim import SimMotor

    from bluesky_beamtime.devices import SimCamera, SimCounter
    from bluesky_beamtime.plans import fly_frames

    path = tmp_path_factory.mktemp("browser") / "2026-11-LaB6.db"
    RE = RunEngine(context_managers=[])
    with Beamtime(path, sample="LaB6") as beamtime:
        beamtime.attach(RE)
        with init_devices():
            camera = SimCamera(beamtime.frames, shape=(64, 48), name="camera")
            counter = SimCounter(name="counter")
            x = SimMotor(name="x", instant=True)
        RE(bp.scan([camera, counter], x, 0, 2, 5))
        RE(fly_frames([camera], 4, exposure=0.01))
        server = BeamtimeServer([path], port=0)
        thread = threading.Thread(target=server.run)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield server, beamtime
        server.stop()
        thread.join(60)
    RE.loop.call_soon_threadsafe(RE.loop.stop)
    RE._th.join()
    RE.loop.close()


@pytest.fixture
def browse(served: Any, tmp_path: Path) -> Callable[[str, str], str]:
    """Open a page; gives what it has become, and leaves a picture of it."""
    server, _ = served

    def browse(address: str, wanted: str) -> str:
        url = f"http://127.0.0.1:{server.port}{address}?api_key={server.api_key}"
        assert CHROMIUM is not None
        for attempt in range(3):
            done = subprocess.run(
                [
                    CHROMIUM,
                    *FLAGS,
                    f"--user-data-dir={tmp_path}/profile{attempt}",
                    "--dump-dom",
                    url,
                ],
                capture_output=True,
                text=True,
                timeout=60,
            )
            # A slow machine may not have drawn everything in the time it had.
            if wanted in done.stdout:
                return done.stdout
        raise AssertionError(f"{wanted!r} is not on the page: {done.stdout[-2000:]}")

    return browse


def picture(server: Any, address: str, path: Path) -> Any:
    from PIL import Image

    url = f"http://127.0.0.1:{server.port}{address}?api_key={server.api_key}"
    assert CHROMIUM is not None
    subprocess.run(
        [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={path.parent}/profile",
            f"--screenshot={path}",
            url,
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_list_says_what_was_measured(served: Any, browse: Any) -> None:
    _, beamtime = served
    page = browse("/beamtime/", "fly_frames")
    for text in ("2026-11-LaB6", "scan", "LaB6", "success", beamtime[1].uid):
        assert text in page
    assert page.index(beamtime[2].uid) < page.index(beamtime[1].uid)


def test_a_run_has_frames_curves_and_values(served: Any, browse: Any) -> None:
    _, beamtime = served
    page = browse(f"/beamtime/2026-11-LaB6/{beamtime[1].uid}/", "frame.png")
    for text in ("Run 1", "curve.svg?field=counter", "5 expected", "64 × 48", "<td"):
        assert text in page


def test_pictures_show_something(served: Any, tmp_path: Path) -> None:
    """Rings of every brightness, not a black 16-bit image."""
    server, beamtime = served
    for attempt in range(3):
        path = tmp_path / f"run{attempt}.png"
        address = f"/beamtime/2026-11-LaB6/{beamtime[1].uid}/"
        shown = picture(server, address, path)
        colours = len(np.unique(shown.reshape(-1, 3), axis=0))
        if colours > 100:
            break
    assert colours > 100


def test_tiled_lists_our_runs(served: Any, browse: Any) -> None:
    _, beamtime = served
    page = browse("/ui/browse/", beamtime[1].uid)
    assert beamtime[2].uid in page


def test_tiled_shows_our_table(served: Any, browse: Any) -> None:
    _, beamtime = served
    page = browse(f"/ui/browse/{beamtime[1].uid}/primary/internal", "counter")
    assert "seq_num" in page


def test_tiled_steps_through_our_frames(served: Any, browse: Any) -> None:
    _, beamtime = served
    page = browse(f"/ui/browse/{beamtime[1].uid}/primary/camera", "slider")
    assert "img" in page
