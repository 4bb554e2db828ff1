"""The doctor finds what is made wrong here, and nothing where all is well."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from bluesky_beamtime import Beamtime
from bluesky_beamtime.cli import app
from bluesky_beamtime.database.slow_subscribers import (
    SubscriberTime,
    store_subscribers,
)
from bluesky_beamtime.doctor import Finding, Report, examine, file, last_runs, machine


def found(report: Report, check: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.check == check]


def trouble(report: Report) -> set[str]:
    return {one.check for one in report.findings if one.level == "trouble"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "night shift.db"
    with Beamtime(path, sample="LaB6") as beamtime:
        beamtime("start", {"uid": "u1", "time": 1000.0, "scan_id": 1})
        stop = {"uid": "s1", "run_start": "u1", "time": 1001.0, "reason": ""}
        beamtime("stop", {**stop, "exit_status": "success"})
    return path


def test_nothing_is_wrong_and_nothing_is_changed(path: Path) -> None:
    before = {one: one.read_bytes() for one in path.parent.rglob("*") if one.is_file()}
    report = examine(path, speed=True)
    assert report.ok, report
    assert {finding.check for finding in report.findings} >= {
        *("packages", "clock", "disk", "space", "file", "log", "journal", "writers"),
        *("endings", "frames", "speed"),
    }
    after = {one: one.read_bytes() for one in path.parent.rglob("*") if one.is_file()}
    # SQLite makes empty side files to read.
    assert {p: d for p, d in after.items() if not p.name.endswith(("wal", "shm"))} == {
        p: d for p, d in before.items() if not p.name.endswith(("wal", "shm"))
    }


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database")
    (finding,) = found(examine(tmp_path / "x.db"), "file")
    assert finding.level == "trouble"
    assert "not a beamtime" in finding.what
    assert trouble(examine(tmp_path / "none.db")) == {"file"}
    assert trouble(examine(tmp_path / "none" / "x.db")) == {"file"}
    assert not (tmp_path / "none.db").exists()


def test_a_file_of_an_older_version_and_without_its_frames(tmp_path: Path) -> None:
    frozen = Path(__file__).parents[1] / "data" / "databases" / "v1" / "beamtime.db"
    path = shutil.copyfile(frozen, tmp_path / "x.db")
    report = examine(path)
    (finding,) = found(report, "file")
    assert (finding.level, finding.command) == ("advice", f"beamtime migrate {path}")
    # The other looks are taken all the same.
    missing = [one for one in found(report, "clock") if one.level == "trouble"]
    assert [one.command for one in missing] == [f"beamtime verify {path}"]
    assert found(report, "space")


def test_documents_that_wait(path: Path) -> None:
    path.with_name("night shift.journal.jsonl").write_text("{}\n{}\n")
    (finding,) = found(examine(path), "journal")
    assert finding.level == "trouble"
    assert finding.what.startswith("2 documents")
    assert finding.command == f"beamtime recover '{path}'"


def test_who_records(path: Path) -> None:
    with Beamtime(path) as beamtime:
        beamtime("start", {"uid": "u2", "time": 1.0})
        (finding,) = file.check_writers(path)
        assert (finding.level, finding.check) == ("well", "writers")
        assert f"process {os.getpid()} (" in finding.what
        with Beamtime(path) as other:
            other("start", {"uid": "u3", "time": 1.0})
            (finding,) = file.check_writers(path)
            assert finding.level == "advice"
            assert finding.what.count(f"process {os.getpid()} (") == 2
    (finding,) = file.check_writers(path)
    assert finding.what == "nobody records now"


def test_runs_that_were_cut_off(path: Path) -> None:
    beamtime = Beamtime(path)
    beamtime("start", {"uid": "u2", "time": time.time(), "scan_id": 2})
    assert found(examine(path), "endings")[0].level == "well"
    beamtime.close()
    (finding,) = found(examine(path), "endings")
    assert finding.level == "advice"
    assert "run 2" in finding.what


def test_clocks_that_differ(path: Path) -> None:
    now = time.time()
    with Beamtime(path) as beamtime:
        beamtime("start", {"uid": "u2", "time": now - 5, "scan_id": 2})
        key = {"dtype": "number", "shape": [], "source": "x"}
        keys = {"motor": key, "slow": key}
        descriptor = {"uid": "d", "run_start": "u2", "time": now, "data_keys": keys}
        descriptor |= {"name": "primary", "configuration": {}, "hints": {}}
        beamtime("descriptor", {**descriptor, "object_keys": {}})
        stamps = {"motor": now + 60.0, "slow": now - 1e6}
        event = {"uid": "e", "descriptor": "d", "time": now, "seq_num": 1}
        data = {"data": {"motor": 1.0, "slow": 2.0}, "timestamps": stamps}
        beamtime("event", {**event, **data, "filled": {}})
        beamtime("start", {"uid": "u3", "time": now + 3600, "scan_id": 3})
    said = [one.what for one in found(examine(path), "clock") if one.level == "trouble"]
    assert len(said) == 2
    assert any("motor is stamped 60 s in the future" in what for what in said)
    assert any(what.startswith("run 3") and "from now" in what for what in said)


def test_frames_that_were_lost(path: Path) -> None:
    timing = {"live_time": 1.0, "span": 10.0, "storage_time": 4.0, "dead_time": None}
    good = {"expected": 5, "received": 5, "dropped": 0, "late": 0, "written": 5}
    uncounted = dict.fromkeys(good)

    def run(number: int, **accounts: Any) -> Any:
        return SimpleNamespace(
            label=f"run {number}",
            scan_id=number,
            uid=f"u{number}",
            accounting=accounts,
            frame_timing={},
        )

    runs = [run(1, cam=good), run(2, cam=uncounted)]
    (finding,) = last_runs.check_frames(path, runs)
    assert (finding.level, finding.what) == ("well", "none of 5 lost in 2 runs")
    runs += [run(3, a={**good, "dropped": 2, "late": 1}), run(4, b={**good, "late": 3})]
    lost, late = last_runs.check_frames(path, runs)
    assert (lost.level, late.level) == ("trouble", "advice")
    assert "run 3: of 5 frames of a 2 dropped and 1 late" in lost.what
    assert lost.command == f"beamtime show '{path}' 3"
    slow = run(5, cam=good)
    slow.frame_timing = {"cam": timing}
    held, _ = last_runs.check_frames(path, [slow])
    assert "storing held cam up for 4.0 s, 40% of the time" in held.what


@pytest.mark.parametrize(
    ("free", "biggest", "level"),
    [
        (1e12, 0, "well"),
        (5e9, 0, "advice"),
        (0.5e9, 0, "trouble"),
        (1e12, 400e9, "advice"),
        (1e12, 600e9, "trouble"),
    ],
)
def test_space(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: float,
    biggest: float,
    level: str,
) -> None:
    usage = SimpleNamespace(total=int(2e12), used=0, free=int(free))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    finding = next(machine.check_space(tmp_path, int(biggest)))
    assert finding.level == level
    assert bool(finding.command) == (level != "well")


@pytest.mark.parametrize(
    ("kind", "level"),
    [("ext4", "well"), ("nfs4", "advice"), ("tmpfs", "trouble"), ("", "well")],
)
def test_kinds_of_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, level: str
) -> None:
    monkeypatch.setattr(machine, "file_system_of", lambda _: kind)
    monkeypatch.setattr(
        "bluesky_beamtime.database.network.file_system_of", lambda _: kind
    )
    (finding,) = machine.check_disk(tmp_path)
    assert (finding.check, finding.level) == ("disk", level)


def test_a_disk_with_a_clock_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not [one for one in machine.check_clock(tmp_path) if one.level == "trouble"]
    real = os.fstat
    for seconds, word in ((-60.0, "behind"), (60.0, "ahead of")):

        def stat(fd: int, seconds: float = seconds) -> Any:
            return SimpleNamespace(st_mtime=real(fd).st_mtime + seconds)

        monkeypatch.setattr(machine.os, "fstat", stat)
        (finding,) = (
            one for one in machine.check_clock(tmp_path) if one.level == "trouble"
        )
        assert word in finding.what
        monkeypatch.setattr(machine.os, "fstat", real)


def test_packages_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    real = machine.metadata.version
    monkeypatch.setattr(
        machine.metadata,
        "version",
        lambda name: "0.1" if name == "ophyd-async" else real(name),
    )
    (finding,) = machine.check_packages()
    assert finding.level == "trouble"
    assert "ophyd-async is 0.1" in finding.what
    assert finding.command.startswith("pip install 'ophyd-async")


def test_slow_callbacks(path: Path) -> None:
    with Beamtime(path) as beamtime:
        store_subscribers(
            beamtime._database,
            [
                SubscriberTime("Quick", 0.5, 0.9, "u1"),
                SubscriberTime("Rare", 5.0, 0.05, "u1"),
                SubscriberTime("Slowish", 5.0, 0.2, "u1"),
                SubscriberTime("Plotter", 50.0, 0.6, "u1"),
            ],
        )
    findings = found(examine(path), "subscribers")
    assert [one.level for one in findings] == ["trouble", "advice"]
    assert "50.0 s, 60% of run u1, for the callback Plotter" in findings[0].what
    assert "Slowish" in findings[1].what


def test_the_command(path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["doctor", str(path)])
    assert done.exit_code == 0
    assert "nobody records now" in done.stdout
    path.with_name("night shift.journal.jsonl").write_text("{}\n")
    done = runner.invoke(app, ["doctor", str(path), "--json"])
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert [
        one["check"] for one in answer["findings"] if one["level"] == "trouble"
    ] == ["journal"]
    assert runner.invoke(app, ["doctor"]).exit_code == 0
