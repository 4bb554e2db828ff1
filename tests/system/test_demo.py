"""``beamtime demo`` in a process of its own, as a newcomer starts it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

# Several processes, each of which imports all there is; on a busy machine that takes.
pytestmark = pytest.mark.timeout(400)

TOKEN = "BEAMTIME_TEST_TOKEN"


def beamtime(
    *arguments: object, cwd: Path, token: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "bluesky_beamtime", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, TOKEN: token},
        capture_output=True,
        text=True,
        timeout=180,
    )


def listing(file: Path) -> list[dict[str, Any]]:
    done = beamtime("ls", file, "--json", cwd=file.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(runs: list[dict[str, Any]], output: str) -> None:
    """Check one tour, which ``--quick`` makes of 7 + 15 points and 50 frames."""
    assert [run["plan_name"] for run in runs] == ["fly_frames", "grid_scan", "scan"]
    for run, number in zip(runs, (50, 15, 7), strict=True):
        assert run["exit_status"] == "success"
        assert run["complete"] is True
        assert run["sample"] == "LaB6"
        whole = {"expected": number, "received": number, "dropped": 0, "late": 0}
        assert run["frames"] == {
            camera: {**whole, "written": number} for camera in ("cam1", "cam2")
        }
        words = (
            f"scan {run['scan_id']} {2 * number} expected, {2 * number} received, "
            f"0 dropped, 0 late, {2 * number} written"
        )
        assert words in re.sub(" +", " ", output)


def test_demo_measures_and_goes_on_where_it_was(tmp_path: Path) -> None:
    first = beamtime("demo", "--quick", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    folder = tmp_path / "beamtime-demo"
    runs = listing(folder / "demo.db")
    assert [run["scan_id"] for run in runs] == [3, 2, 1]
    check(runs, first.stdout)
    assert (folder / "scans-1-3.png").read_bytes().startswith(b"\x89PNG")

    second = beamtime("demo", "--quick", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    runs = listing(folder / "demo.db")
    assert [run["scan_id"] for run in runs] == [6, 5, 4, 3, 2, 1]
    check(runs[:3], second.stdout)
    assert (folder / "scans-4-6.png").exists()

    # What it says to type next works when it is pasted.
    commands = re.findall(r"^  (.+)$", second.stdout.partition("type next")[2], re.M)
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stderr)
    assert "cam1_y: 512" in done.stdout


def test_demo_over_epics_leaves_no_process_behind(tmp_path: Path) -> None:
    pytest.importorskip("p4p")
    token = str(uuid.uuid4())
    done = beamtime("demo", "here", "--epics", "--quick", cwd=tmp_path, token=token)
    assert done.returncode == 0, done.stderr
    check(listing(tmp_path / "here" / "demo.db"), done.stdout)
    assert processes_with(token) == []

    from bluesky_beamtime import Beamtime

    with Beamtime(tmp_path / "here" / "demo.db", mode="r") as recorded:
        keys = recorded[1].primary.data_keys
        assert keys["cam1"]["source"] == "pva://WIDE:Pva1:Image"
        assert keys["cam2"]["source"] == "pva://NARROW:Pva1:Image"
        # The cameras saw where the motors of this process stood.
        grid = recorded[2].primary.read()
        total = grid["cam1"].sum(("cam1_y", "cam1_x")).values
        middle = int(total.argmax())
        assert (grid["x"].values[middle], grid["y"].values[middle]) == (0, 0)
        assert total.max() > 5 * total.min()


def processes_with(token: str) -> list[str]:
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return found
