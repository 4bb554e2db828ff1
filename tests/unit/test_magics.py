"""What is typed in IPython, in an IPython without a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime import Beamtime

pytest.importorskip("IPython")


@pytest.fixture(scope="module")
def shell() -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell(config=config)
    shell.run_line_magic("load_ext", "bluesky_beamtime")
    return shell


@pytest.fixture
def beamtime(shell: Any, tmp_path: Path) -> Iterator[Beamtime]:
    with Beamtime(tmp_path / "x.db", sample="LaB6") as beamtime:
        shell.user_ns["beamtime"] = beamtime
        for number in range(1, 13):
            start = {"uid": f"u{number}", "time": 1000.0 * number, "scan_id": number}
            plan = "count" if number % 2 else "scan"
            beamtime("start", {**start, "plan_name": plan})
            stop = {"uid": f"s{number}", "run_start": start["uid"], "time": 1e6}
            status = "success" if number < 12 else "abort"
            beamtime("stop", {**stop, "exit_status": status, "reason": ""})
        yield beamtime
        del shell.user_ns["beamtime"]


@pytest.fixture
def typed(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[str, str]]:
    """Run a line as a cell; returns what it prints, and what it says went wrong."""

    def run(line: str) -> tuple[str, str]:
        capsys.readouterr()
        shell.run_cell(line)
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


def scans(printed: str) -> list[int]:
    lines = [line.split() for line in printed.splitlines()[2:] if line.strip()]
    return [int(words[0]) for words in lines if words[0].isdigit()]


def test_runs(beamtime: Beamtime, typed: Any) -> None:
    assert scans(typed("%runs")[0]) == list(range(12, 2, -1))
    assert scans(typed("%runs -n 2")[0]) == [12, 11]
    assert scans(typed("%runs --plan count")[0]) == [11, 9, 7, 5, 3, 1]
    assert scans(typed("%runs --status abort")[0]) == [12]
    assert scans(typed("%runs --sample LaB6 -n 0")[0]) == list(range(12, 0, -1))
    assert "no such run" in typed("%runs --sample Si")[0]
    beamtime[3].tag("good")
    beamtime[4].star()
    assert scans(typed("%runs --tag good")[0]) == [3]
    assert scans(typed("%runs --starred")[0]) == [4]
    assert scans(typed("%runs --since 1970-01-01T01:00 --plan scan -n 1")[0]) == [12]
    out, err = typed("%runs --since yesterdayish")
    assert "UsageError" in out + err
    assert "Traceback" not in out + err


def test_sample(beamtime: Beamtime, typed: Any) -> None:
    assert typed("%sample")[0] == "in the beam: LaB6\n"
    said = typed("%sample Si powder formula=Si thickness=0.2 position=7")[0]
    assert said == (
        "in the beam: Si powder, formula: Si, position: 7, thickness: 0.2\n"
    )
    assert beamtime.sample is not None
    assert beamtime.sample.name == "Si powder"
    assert beamtime.samples["Si powder"].metadata.extra == {"thickness": 0.2}
    # What is known of a sample comes back with its name.
    assert typed("%sample LaB6")[0] == "in the beam: LaB6\n"
    assert typed("%sample 'Si powder'")[0] == said
    listed = typed("%sample --list")[0]
    assert "LaB6" in listed
    assert "Si powder" in listed
    out, err = typed("%sample thickness=3")
    assert "needs a name" in out + err
    beamtime.sample = None
    assert "nothing is in the beam" in typed("%sample")[0]


def test_note(beamtime: Beamtime, typed: Any) -> None:
    assert typed('%note it\'s "hot" -r 3 $HOME')[0] == "noted of run 12\n"
    assert [note.text for note in beamtime[12].notes] == ['it\'s "hot" -r 3 $HOME']
    assert typed("%note -r 3 good")[0] == "noted of run 3\n"
    assert [note.text for note in beamtime[3].notes] == ["good"]
    assert typed("%note -b all is well")[0] == "noted of the beamtime\n"
    assert [note.text for note in beamtime.notes] == ["all is well"]
    assert "hot" in typed("%note")[0]
    assert "good" in typed("%note -r 3")[0]
    assert "all is well" in typed("%note -b")[0]
    assert "no note yet" in typed("%note -r 5")[0]
    for wrong in ("%note -r", "%note -r 77 x"):
        out, err = typed(wrong)
        assert "UsageError" in out + err, wrong
        assert "Traceback" not in out + err


def test_frames(beamtime: Beamtime, typed: Any) -> None:
    assert "no frames" in typed("%frames")[0]
    assert "no frames" in typed("%frames -1")[0]
    assert "UsageError" in "".join(typed("%frames 77"))


def test_doctor(beamtime: Beamtime, typed: Any) -> None:
    out, _ = typed("%doctor -n 3")
    assert "packages" in out
    assert "none of 3 runs was cut off" in out
    assert "recorded into by process" in out
    # Looking at the file has not ended the locks of those who have it open.
    beamtime("start", {"uid": "u99", "time": 1.0})


def test_which_beamtime(shell: Any, typed: Any, tmp_path: Path) -> None:
    assert "no beamtime is open" in "".join(typed("%runs"))
    with Beamtime(tmp_path / "a.db") as one, Beamtime(tmp_path / "b.db") as other:
        shell.user_ns["mine"] = one
        assert "no run yet" in typed("%runs")[0]
        shell.user_ns["theirs"] = other
        assert "several beamtimes" in "".join(typed("%runs"))
        shell.user_ns["beamtime"] = other
        assert "no run yet" in typed("%runs")[0]
        for name in ("mine", "theirs", "beamtime"):
            del shell.user_ns[name]


def test_help(typed: Any) -> None:
    assert "only of this sample" in "".join(typed("%runs?"))
