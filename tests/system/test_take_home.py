"""A folder that is taken home: killed, out of space, while others record, elsewhere."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports import take_home
from bluesky_beamtime.exports.takehome import building
from bluesky_beamtime.testing import assert_documents_equal
from tests.exported import emit_long_run, small_disk

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a beamtime with two runs of a camera."""
    folder = tmp_path_factory.mktemp("source")
    with Beamtime(folder / "x.db", sample="LaB6") as beamtime:
        for name in ("one", "two"):
            store = folder / "x.zarr" / "frames" / name
            emit_long_run(beamtime, store, events=40, frames=40)
    return folder / "x.db"


def sha256sum(folder: Path) -> int:
    command = ["sha256sum", "-c", "--strict", "--quiet", "MANIFEST.sha256"]
    return subprocess.run(command, cwd=folder, check=False).returncode


# ------------------------------------------------------------- without this package


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """Give a folder that was taken home and carried away, and the frames of its run."""
    from bluesky import RunEngine
    from bluesky import plans as bp
    from ophyd_async.core import init_devices
    from ophyd_async.sim import SimMotor

    from bluesky_beamtime.devices import SimCamera, SimCounter

    folder = tmp_path_factory.mktemp("measured")
    RE = RunEngine(context_managers=[])
    with Beamtime(folder / "it's 2026.db", sample="LaB6") as beamtime:
        beamtime.attach(RE, report=False)
        with init_devices():
            cam1 = SimCamera(beamtime.frames, shape=(64, 48), name="Cam 1:ü")
            cam2 = SimCamera(beamtime.frames, shape=(32, 32), name="cam2")
            diode = SimCounter(name="diode")
            x = SimMotor(name="x", instant=True)
        RE(bp.scan([cam1, cam2, diode], x, 0, 2, 5))
        frames = beamtime[-1].primary.read()["Cam 1:ü"].values
        taken = beamtime.take_home(folder / "home", exports=["nexus"])
    RE.loop.call_soon_threadsafe(RE.loop.stop)
    RE._th.join()
    RE.loop.close()
    assert taken.problems == ()
    away = tmp_path_factory.mktemp("far away") / "stick"
    taken.path.rename(away)
    for path in (folder / "it's 2026.db", folder / "it's 2026.zarr"):
        path.rename(path.with_name(f"gone {path.name}"))
    yield away, frames


def test_commands_of_the_readme_run_without_this_package(
    measured: tuple[Path, Any],
) -> None:
    folder, frames = measured
    text = (folder / "README.txt").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    packages = ["sqlite3", "zarr", "xarray", "sqlite3", "h5py"]
    assert [
        re.findall(r"^import (\w+)", block, re.M)[0] for block in blocks
    ] == packages
    printed: list[str] = []
    for block in blocks:
        script = f"import sys\nsys.modules['bluesky_beamtime'] = None\n{block}"
        isolated = ["-I", *(["-S"] if "import sqlite3" in block else [])]
        done = subprocess.run(
            [sys.executable, *isolated, "-c", script],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert "scan LaB6 success 5" in printed[0]
    assert re.search(r"^5 \[\(1, ", printed[0], re.MULTILINE)
    assert f"{frames.shape} {frames.dtype}" in printed[1]
    assert printed[1].splitlines()[-1] == str(frames[0].max())
    assert float(printed[2]) == pytest.approx(frames[0].mean())
    # The array of a camera whose name no URL can have.
    assert "/Cam 1%3A%C3%BC\n" in printed[3]
    assert f'shape {frames.shape}, type "<u2"' in printed[4]


def test_shell_commands_of_the_readme_run(measured: tuple[Path, Any]) -> None:
    folder, _ = measured
    text = (folder / "README.txt").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    done = subprocess.run(["sh", "-ec", block], cwd=folder, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nothing_was_changed_by_reading(measured: tuple[Path, Any]) -> None:
    folder, _ = measured
    with Beamtime(folder / "it's 2026.db", mode="r") as beamtime:
        assert beamtime.verify().ok
        beamtime[-1].primary.read().load()
    assert sha256sum(folder) == 0
    listed = (folder / "MANIFEST.sha256").read_text().splitlines()
    assert len(listed) == sum(f.is_file() for f in folder.rglob("*")) - 1


def test_browser_shows_the_pages_without_a_server(
    measured: tuple[Path, Any], tmp_path: Path
) -> None:
    from PIL import Image

    if CHROMIUM is None:
        assert not os.environ.get("CI"), "chromium is missing: .ci/run installs it"
        pytest.skip("there is no chromium here")
    folder, _ = measured
    for page in ("index.html", "runs/1_scan.html"):
        colours = 0
        for attempt in range(3):
            picture = tmp_path / f"{attempt}.png"
            picture.unlink(missing_ok=True)
            subprocess.run(
                [
                    CHROMIUM,
                    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                    *("--window-size=1200,900", f"--screenshot={picture}"),
                    f"--user-data-dir={tmp_path}/profile{attempt}",
                    (folder / page).as_uri(),
                ],
                capture_output=True,
                timeout=60,
                check=True,
            )
            shown = np.asarray(Image.open(picture).convert("RGB"))
            colours = len(np.unique(shown.reshape(-1, 3), axis=0))
            if colours > 100:
                break
        # Rings in colour, not the frame of a picture that was not found.
        assert colours > 100


# ------------------------------------------------------------------ while others record

RECORDER = """
import sys, time
from bluesky_beamtime import Beamtime
from tests.exported import emit_long_run
from pathlib import Path

path = Path(sys.argv[1])
number = 0
with Beamtime(path) as beamtime:
    while not path.with_name("stop").exists():
        number += 1
        store = path.parent / "x.zarr" / "frames" / f"run{number}"
        emit_long_run(beamtime, store, events=100, frames=20)
        # Not so many that comparing them takes long.
        time.sleep(0.1)
"""


def test_copy_while_others_record_is_whole(tmp_path: Path) -> None:
    """What had been committed at one moment, with every frame that it promises."""
    path = tmp_path / "x.db"
    recorder = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", RECORDER, str(path)],
        cwd=Path(__file__).parents[2],
    )
    try:
        deadline = time.monotonic() + 60
        while not (path.exists() and _events(path) > 50):
            assert time.monotonic() < deadline
            assert recorder.poll() is None
            time.sleep(0.05)
        taken = [take_home(path, tmp_path / f"home{n}") for n in range(3)]
        assert recorder.poll() is None
    finally:
        path.with_name("stop").touch()
        assert recorder.wait(60) == 0
    with Beamtime(path, mode="r") as here:
        for each in taken:
            assert each.problems == ()
            assert sha256sum(each.path) == 0
            with Beamtime(each.database, mode="r") as there:
                assert there.verify().ok
                # Those around the moment of the copy.
                for run in there.search().limit(4):
                    documents = list(run.documents(original=True))
                    emitted = list(here[run.uid].documents(original=True))
                    assert_documents_equal(documents, emitted[: len(documents)])
                    if "primary" in run and len(run.primary):
                        run.primary.read().load()


def _events(path: Path) -> int:
    try:
        with Beamtime(path, mode="r") as beamtime:
            return beamtime[-1].num_events if len(beamtime) else 0
    except Exception:
        # It is just being made.
        return 0


# --------------------------------------------------------------------------- kill -9

KILLED = """
import os, signal, sys
from bluesky_beamtime.exports import take_home

source, home = sys.argv[1:3]
for point in map(int, sys.argv[3:]):
    child = os.fork()
    if not child:
        calls = iter(range(1 << 30))

        def progress(what, done, total):
            if next(calls) == point:
                os.kill(os.getpid(), signal.SIGKILL)

        take_home(source, home, exports=["csv"], overwrite=True, progress=progress)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(point, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
"""


def test_killed_copy_leaves_what_was_there(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    calls: list[str] = []
    take_home(
        source, home, exports=["csv"], progress=lambda what, *_: calls.append(what)
    )
    before = (home / "MANIFEST.sha256").read_bytes()
    # At the beginning, in each part, and at the last step.
    points = sorted({0, *map(calls.index, calls), len(calls) // 2, len(calls) - 1})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, source, home, *map(str, points)],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [w for p in points for w in (str(p), "9")]
    # The last of them is there, hidden; each had cleared up after the one before.
    (left,) = set(os.listdir(tmp_path)) - {"home"}
    assert left.startswith(".")
    assert (home / "MANIFEST.sha256").read_bytes() == before
    assert sha256sum(home) == 0
    take_home(source, home, overwrite=True)
    assert os.listdir(tmp_path) == ["home"]
    assert sha256sum(home) == 0


# ------------------------------------------------------------------------- full disk


def test_full_disk_is_one_error_and_nothing_is_left(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = take_home(source, tmp_path / "reference", exports=["nexus"])
    with small_disk(tmp_path / "disk", taken.size + (4 << 20)) as disk:
        # Nothing is begun that cannot fit.
        with pytest.raises(ExportError, match="needs") as caught:
            take_home(source, disk / "home")
        assert caught.value.errno == errno.ENOSPC
        assert os.listdir(disk) == []
        # Another program fills the disk meanwhile.
        monkeypatch.setattr(building, "check_space", lambda *_: None)
        for share in (0.05, 0.3, 0.5, 0.7, 0.9):
            ballast = disk / "somebody else's data"
            with ballast.open("wb") as file:
                free = shutil.disk_usage(disk).free
                leave = int(share * taken.size) // 4096 * 4096
                os.posix_fallocate(file.fileno(), 0, free - leave)
            with pytest.raises(ExportError, match="No space left") as caught:
                take_home(source, disk / "home", exports=["nexus"])
            assert caught.value.errno == errno.ENOSPC
            assert os.listdir(disk) == [ballast.name]
            ballast.unlink()
        take_home(source, disk / "home", exports=["nexus"])
        assert sha256sum(disk / "home") == 0
