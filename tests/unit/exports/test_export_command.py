"""``beamtime export``: which runs, where to, and what a format is asked for."""

from __future__ import annotations

import csv
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime import Beamtime

from .kinds import ROWS, Emitter, X, cameras, cut_off, empty
from .test_exporting import command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Runs 3, 4, 5 and 7, and another one with the number 7."""
    with Beamtime(tmp_path / "x.db") as beamtime:
        for scan_id in (3, 4, 5, 7, 7):
            run = Emitter(beamtime, tmp_path, scan_id=scan_id)
            run.table("primary", X, ROWS)
            run.stop()
    return tmp_path / "x.db"


def names(folder: Path) -> list[str]:
    # Whoever reads a database leaves files beside it.
    return sorted(name for name in os.listdir(folder) if "x.db-" not in name)


@pytest.mark.parametrize(
    ("which", "numbers"),
    [
        (["3", "5"], [3, 5]),
        (["3-5"], [3, 4, 5]),
        (["4-6", "3", "4"], [3, 4, 5]),
        (["last:1", "-1", "7"], [7]),
        (["4-6"], [4, 5]),
    ],
)
def test_runs_are_chosen_by_number_age_and_range(
    file: Path, monkeypatch: pytest.MonkeyPatch, which: list[str], numbers: list[int]
) -> None:
    out = file.parent / "a" / "b.c"
    assert not command(
        monkeypatch, "export", file, *which, "--to", "csv", "-o", f"{out}/"
    )
    assert names(out) == [f"{number}_any.csv" for number in numbers]


def test_range_has_the_runs_of_all_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may have counted from 1."""
    with Beamtime(tmp_path / "x.db") as beamtime:
        for plan_name in ("scan", "count"):
            for scan_id in (1, 2, 3):
                Emitter(beamtime, tmp_path, scan_id=scan_id, plan_name=plan_name).stop()
    file, out = tmp_path / "x.db", tmp_path / "out"
    assert not command(monkeypatch, "export", file, "1-2", "--to", "jsonl", "-o", out)
    assert names(out) == [
        f"{n}_{plan}.jsonl" for n in "12" for plan in ("count", "scan")
    ]


def test_uid_chooses_a_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Beamtime(file, mode="r") as beamtime:
        uid = beamtime[4].uid
    for number, part in enumerate((uid, uid[:9], uid[:13])):
        path = file.parent / f"{number}.csv"
        assert not command(monkeypatch, "export", file, part, "--to", "csv", "-o", path)
        assert path.is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["10-20", "--to", "csv"], "no run 10-20"),
        (["last:2", "--to", "csv"], "two runs have the number 7"),
        (["5-9999999", "--to", "csv"], "two runs have the number 7"),
        (["3", "4", "--to", "csv", "-o", "one.csv"], "do not go into one file"),
        (["3", "4", "--to", "csv", "-o", "x.db/"], "do not go into one file"),
        (["3", "--to", "csv", "-o", "x.db/out/"], "inside the beamtime itself"),
        (["3", "--to", "docx"], "nexus"),
        (["3", "--to", "csv", "--option", "frames=external"], "csv has no option"),
        (["3", "--to", "csv", "--option", "rows"], "key=value, not 'rows'"),
        (["3", "--to", "csv", "--option", "rows=x"], "rows='events' or 'readings'"),
        (["3", "--to", "xlsx", "--option", "rows=x"], "it has none"),
    ],
)
def test_what_cannot_be_done_is_said(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(file.parent)
    before = names(file.parent)
    assert command(monkeypatch, "export", "x.db", *words) == 1
    assert said in capsys.readouterr().err
    assert names(file.parent) == before


def test_one_run_that_does_not_fit_costs_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        for make in (cameras, empty, cut_off):
            make(beamtime, tmp_path / "x.zarr")
        uids = [run.uid for run in beamtime.search()][::-1]
    file, out = tmp_path / "x.db", tmp_path / "out"
    words = ("export", file, *uids[1:], uids[0], "--to", "tiff", "-o", out)
    assert command(monkeypatch, *words) == 1
    told = capsys.readouterr()
    assert told.err.count("has no frames for a TIFF") == 1
    begins = {Path(line).name.partition("_")[0] for line in told.out.splitlines()}
    assert begins == {uids[0][:8], uids[2][:8]}
    assert set(told.out.splitlines()) == {str(p) for p in out.iterdir()}
    # The frames of one are damaged, and it is the first.
    shutil.rmtree(next((tmp_path / "x.zarr").glob(f"{uids[0]}-primary-one")))
    shutil.rmtree(out)
    assert command(monkeypatch, "export", file, *uids, "--to", "tiff", "-o", out) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert {path.name[:8] for path in out.iterdir()} == {uids[2][:8]}
    # What the system refuses it refuses for all of them.
    assert command(monkeypatch, "export", file, *uids[::-1], "--to", "tiff", "-o", out)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_option_reaches_the_format(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file.parent / "run.csv"
    words: tuple[Any, ...] = ("export", file, "3", "--to", "csv", "-o", path)
    assert not command(monkeypatch, *words, "--option", "rows=readings")
    with path.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["device"] for row in rows] == ["x"] * 3
    assert [float(row["x"]) for row in rows] == [row["x"] for row in ROWS]


def test_bar_is_for_terminals_alone(file: Path) -> None:
    """Where it goes to a file or a pipe nothing but the names is printed."""
    words = [sys.executable, "-m", "bluesky_beamtime", "export", str(file), "3-5"]
    piped = subprocess.run(
        [*words, "--to", "csv", "-o", f"{file.parent}/piped/"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert piped.stderr == b""
    assert len(piped.stdout.splitlines()) == 3
    ours, theirs = pty.openpty()
    shown = subprocess.run(
        [*words, "--to", "csv", "-o", f"{file.parent}/shown/"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"},
        check=True,
        timeout=60,
    )
    os.close(theirs)
    written = os.read(ours, 1 << 16)
    os.close(ours)
    assert "━".encode() in written
    assert len(shown.stdout.splitlines()) == 3
