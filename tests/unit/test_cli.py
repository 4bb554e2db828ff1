"""The command, on a small beamtime of every kind of run."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bluesky_beamtime._version import __version__
from bluesky_beamtime.cli import app, main
from bluesky_beamtime.cli.tables import account_lines, console, runs_table

DIGITS = "20261120"  # a uid may look like a number


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a beamtime: two counts with a camera, one run by hand, one cut off."""
    from bluesky import RunEngine
    from bluesky import plans as bp
    from ophyd_async.core import init_devices

    from bluesky_beamtime import Beamtime
    from bluesky_beamtime.devices import SimCamera

    path = tmp_path_factory.mktemp("cli") / "night shift.db"
    engine = RunEngine(context_managers=[])
    with Beamtime(path, sample="LaB6") as beamtime:
        beamtime.attach(engine)
        with init_devices():
            cam = SimCamera(beamtime.frames, shape=(8, 6), exposure=0.001)
        engine(bp.count([cam], 2, md={"purpose": "align", "offset": math.nan}))
        engine(bp.count([cam], 3))
        beamtime("start", {"uid": f"{DIGITS}-aaaa", "time": 1.0, "scan_id": 3})
        beamtime(
            "stop",
            {
                "uid": "stop",
                "run_start": f"{DIGITS}-aaaa",
                "time": 2.0,
                "exit_status": "fail",
                "reason": "no beam",
            },
        )
        beamtime("start", {"uid": "cut-off", "time": 5.0, "plan_name": "fly"})
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join()
    engine.loop.close()
    return path


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.fixture
def failing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Run the command as a shell does; gives its exit status and what it complains."""
    monkeypatch.delenv("BEAMTIME_DEBUG", raising=False)

    def run(*arguments: object) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["beamtime", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, capsys.readouterr().err

    yield run


# ---------------------------------------------------------------------------------- ls


def test_ls_lists_the_newest_first_and_says_what_is_incomplete(file: Path) -> None:
    status, output = invoke("ls", file)
    lines = [line for line in output.splitlines() if line.strip()][2:]
    assert status == 3
    assert [line.split()[0] for line in lines] == ["–", "3", "2", "1"]
    assert "interrupted, incomplete" in lines[0]
    assert "fail" in lines[1]
    assert "incomplete" not in lines[1]
    assert "count" in lines[2]
    assert "LaB6" in lines[2]
    assert "cam 3" in lines[2]
    assert "success" in lines[2]


def test_ls_json_is_what_machines_are_promised(file: Path) -> None:
    status, output = invoke("ls", file, "--json")
    runs = json.loads(output)
    assert status == 3
    assert len(runs) == 4
    for run in runs:
        assert list(run) == [
            *("uid", "scan_id", "plan_name", "sample", "time"),
            *("exit_status", "num_events", "complete", "frames", "tags", "starred"),
        ]
    newest, failed, second, first = runs
    assert newest["uid"] == "cut-off"
    assert newest["scan_id"] is None
    assert newest["exit_status"] == "interrupted"
    assert newest["complete"] is False
    assert failed["exit_status"] == "fail"
    assert failed["complete"] is True
    assert failed["time"] == 1.0
    assert first["scan_id"] == 1
    assert second["plan_name"] == "count"
    assert second["sample"] == "LaB6"
    assert second["num_events"] == 3
    assert second["frames"] == {
        "cam": {"expected": 3, "received": 3, "dropped": 0, "late": 0, "written": 3}
    }


@pytest.mark.parametrize("when", [1.8e18, 1e20, -1e20])
def test_a_run_of_a_time_that_no_calendar_has_hides_no_other(
    tmp_path: Path, when: float
) -> None:
    from bluesky_beamtime import Beamtime

    with Beamtime(tmp_path / "x.db") as beamtime:
        for number, time in enumerate([1.0, when]):
            uid = f"uid-{number}"
            beamtime("start", {"uid": uid, "time": time, "scan_id": number})
            stop = {"uid": f"stop-{number}", "run_start": uid, "time": time}
            beamtime("stop", {**stop, "exit_status": "success"})
        run = beamtime[-1]
        assert "–" in repr(run)
        assert "–" in run._repr_html_()
    status, output = invoke("ls", tmp_path / "x.db")
    assert status == 0
    assert "–" in output
    assert "1970" in output or "1969" in output  # west of Greenwich
    status, output = invoke("show", tmp_path / "x.db", 1)
    assert status == 0
    assert "began   –" in output


def test_ls_with_only_complete_runs_is_well(file: Path, tmp_path: Path) -> None:
    from bluesky_beamtime import Beamtime

    with Beamtime(tmp_path / "empty.db"):
        pass
    assert invoke("ls", tmp_path / "empty.db") == (0, "no run yet\n")
    assert invoke("ls", tmp_path / "empty.db", "--json") == (0, "[]\n")


@pytest.mark.parametrize(("limit", "count"), [(0, 4), (1, 1), (3, 3), (9, 4)])
def test_ls_limits(file: Path, limit: int, count: int) -> None:
    _, output = invoke("ls", file, "--json", "--limit", limit)
    assert len(json.loads(output)) == count
    _, output = invoke("ls", file, "-n", limit)
    assert output.count("\n") - 2 == count + (count < 4)
    assert ("older" in output) == (count < 4)


def test_listing_changes_no_byte(file: Path) -> None:
    before = file.read_bytes()
    invoke("ls", file)
    invoke("show", file, 1)
    assert file.read_bytes() == before


# -------------------------------------------------------------------------------- show


def test_show_tells_what_the_run_was(file: Path) -> None:
    status, output = invoke("show", file, 1)
    assert status == 0
    for words in (
        *("count", "LaB6", "success", "purpose", "align", "primary", "8 × 6", "<u2"),
        *("counts", "expected", "written", "cam_time"),
    ):
        assert words in output


def test_show_tells_why_a_run_failed(file: Path) -> None:
    assert "no beam" in invoke("show", file, 3)[1]


@pytest.mark.parametrize(
    ("name", "uid"),
    [("-1", "cut-off"), ("-2", f"{DIGITS}-aaaa"), ("cut", "cut-off"), ("3", DIGITS)],
)
def test_show_finds_runs_by_number_index_and_uid(
    file: Path, name: str, uid: str
) -> None:
    _, output = invoke("show", file, name, "--json")
    assert json.loads(output)["uid"].startswith(uid)


def test_show_finds_a_uid_of_digits(file: Path) -> None:
    _, output = invoke("show", file, DIGITS, "--json")
    assert json.loads(output)["scan_id"] == 3


def test_show_json_has_documents_and_streams(file: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    status, output = invoke("show", file, 1, "--json")
    run = json.loads(output, parse_constant=refuse)
    assert status == 0
    assert run["start"]["offset"] == {"$float": "nan"}
    assert run["stop"]["exit_status"] == "success"
    assert run["streams"]["primary"]["num_events"] == 2
    assert run["streams"]["primary"]["data_keys"]["cam"]["shape"] == [8, 6]
    assert run["streams"]["primary"]["configuration"]["cam"]["cam-exposure"] == 0.001


def test_show_of_a_run_that_was_cut_off_has_its_own_status(file: Path) -> None:
    assert invoke("show", file, -1)[0] == 3
    assert invoke("show", file, -2)[0] == 0


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("name", ["17", "-9", "feed"])
def test_run_that_is_not_there(file: Path, failing: Any, name: str) -> None:
    status, complaint = failing("show", file, name)
    assert status == 1
    assert complaint.startswith("beamtime: ")
    assert name in complaint
    assert complaint.count("\n") == 1


def test_file_that_is_not_there(tmp_path: Path, failing: Any) -> None:
    status, complaint = failing("ls", tmp_path / "nowhere.db")
    assert status == 1
    assert "nowhere.db" in complaint
    assert complaint.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_beamtime(tmp_path: Path, failing: Any) -> None:
    file = tmp_path / "letter.db"
    file.write_text("Dear Sir or Madam, " * 100)
    status, complaint = failing("ls", file)
    assert status == 1
    assert "letter.db" in complaint
    assert file.read_text().startswith("Dear")


def test_debug_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bluesky_beamtime.errors import BeamtimeError

    monkeypatch.setenv("BEAMTIME_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["beamtime", "ls", str(tmp_path / "nowhere.db")])
    with pytest.raises(BeamtimeError):
        main()


def test_epics_demo_without_p4p_names_the_extra(
    tmp_path: Path, failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("p4p", "p4p.client", "p4p.client.thread"):
        monkeypatch.setitem(sys.modules, name, None)
    status, complaint = failing("demo", tmp_path / "tour", "--epics")
    assert status == 1
    assert "pip install 'bluesky-beamtime[epics]'" in complaint
    assert complaint.count("\n") == 1


def test_wrong_words_are_refused(failing: Any) -> None:
    assert failing("lss")[0] == 2
    assert failing("ls")[0] == 2


# ------------------------------------------------------------------------------- looks


def summary(**changes: Any) -> dict[str, Any]:
    account = {"expected": 5, "received": 4, "dropped": 1, "late": 0, "written": 4}
    return {
        "uid": "1234567890",
        "scan_id": 7,
        "plan_name": "fly",
        "sample": None,
        "time": 0.0,
        "exit_status": None,
        "num_events": 4,
        "complete": True,
        "frames": {"cam1": account, "cam2": dict.fromkeys(account)},
    } | changes


def shown(renderable: Any) -> str:
    screen = console()
    screen.width = 120
    with screen.capture() as capture:
        screen.print(renderable)
    return capture.get()


def test_missing_frames_are_seen_in_a_table() -> None:
    output = shown(runs_table([summary()]))
    assert "cam1 4 of 5, cam2 ?" in output
    assert "running" in output


def test_text_of_users_is_no_markup() -> None:
    output = shown(runs_table([summary(sample="[red]Fe[/red]", plan_name="[/b]")]))
    assert "[red]Fe[/red]" in output
    assert "[/b]" in output


def test_account_adds_the_cameras_up() -> None:
    account = {"expected": 5, "received": 4, "dropped": 1, "late": 2, "written": 4}
    output = shown(account_lines([summary(frames={"a": account, "b": account})]))
    words = output.replace(",", "").split()
    assert words == [
        *("scan", "7", "10", "expected", "8", "received"),
        *("2", "dropped", "4", "late", "8", "written"),
    ]


def test_account_admits_what_nobody_counted() -> None:
    words = shown(account_lines([summary()])).replace(",", "").split()
    assert words[2:4] == ["–", "expected"]


def test_account_of_a_run_without_cameras() -> None:
    assert "scan 7" in shown(account_lines([summary(frames={})]))


# ----------------------------------------------------------------------------- process


def test_version() -> None:
    assert invoke("--version") == (0, f"bluesky-beamtime {__version__}\n")


def test_help_is_quick() -> None:
    """Processor time, which a busy machine does not stretch as it does the clock."""

    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    took: list[float] = []
    for _ in range(4):
        before = seconds()
        done = subprocess.run(
            [sys.executable, "-m", "bluesky_beamtime", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        took.append(seconds() - before)
    assert "demo" in done.stdout
    assert min(took) < 0.5
