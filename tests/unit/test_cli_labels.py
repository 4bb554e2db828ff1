"""Looking for runs, labelling them and asking from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bluesky_beamtime import Beamtime
from bluesky_beamtime.cli import app
from bluesky_beamtime.errors import (
    BeamtimeFileError,
    DocumentError,
    QueryError,
    RunNotFoundError,
    SampleNotFoundError,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make a beamtime of five runs, each a day after the one before."""
    path = tmp_path / "night shift.db"
    with Beamtime(path) as beamtime:
        beamtime.sample = {"name": "LaB6", "formula": "LaB6", "slot": 3}
        for number in range(1, 6):
            start = {
                "uid": f"{'ab'[number % 2]}{number}",
                "time": 86400.0 * number + 43200,
                "scan_id": number,
                "plan_name": ["count", "scan"][number % 2],
                "purpose": "needle" if number == 2 else "hay",
                "tags": ["odd"] * (number % 2) + ["low"] * (number < 3),
                "proposal": "cm1" if number < 4 else "cm2",
                "users": ["Ada"] if number == 4 else ["Bob"],
            }
            if number > 3:
                start["sample"] = "Si"
            beamtime("start", start)
            stop = {"uid": f"s{number}", "run_start": start["uid"], "reason": ""}
            status = "fail" if number == 5 else "success"
            beamtime("stop", {**stop, "time": 9e5, "exit_status": status})
    return path


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def listed(file: Path, *arguments: object) -> list[int]:
    return [
        run["scan_id"] for run in json.loads(invoke("ls", file, "--json", *arguments))
    ]


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ((), [5, 4, 3, 2, 1]),
        (("--sample", "LaB6"), [3, 2, 1]),
        (("--plan", "count"), [4, 2]),
        (("--since", "1970-01-04"), [5, 4, 3]),
        (("--until", "1970-01-04"), [3, 2, 1]),
        (("--text", "NEEDLE"), [2]),
        (("--tag", "odd"), [5, 3, 1]),
        (("--tag", "odd", "--tag", "low"), [1]),
        (("--starred",), []),
        (("--user", "Ada"), [4]),
        (("--proposal", "cm2"), [5, 4]),
        (("--status", "fail"), [5]),
        (("--sample", "LaB6", "--tag", "odd", "-n", 1), [3]),
        (("--text", "nowhere"), []),
    ],
)
def test_ls_finds(file: Path, arguments, numbers) -> None:
    assert listed(file, *arguments) == numbers


def test_ls_counts_what_it_found(file: Path) -> None:
    assert "and 2 older" in invoke("ls", file, "--tag", "odd", "-n", 1)
    assert invoke("ls", file, "--text", "nowhere") == "no such run\n"
    with pytest.raises(QueryError, match="'yesterday' is no time"):
        invoke("ls", file, "--since", "yesterday")


def test_tags(file: Path) -> None:
    assert invoke("tag", file, -1, "good", "for paper") == (
        "run 5: for paper, good, odd\n"
    )
    assert listed(file, "--tag", "good") == [5]
    assert "for paper" in invoke("ls", file)
    assert invoke("tag", file, 5, "odd", "good", "for paper", "--remove") == (
        "run 5: no tags\n"
    )
    assert listed(file, "--tag", "good") == []
    with pytest.raises(DocumentError, match="a tag is text"):
        invoke("tag", file, 5, " ")


def test_stars(file: Path) -> None:
    assert invoke("star", file, "a2") == "run 2: a star\n"
    assert listed(file, "--starred") == [2]
    assert "★, low" in invoke("ls", file)
    assert invoke("star", file, 2, "--remove") == "run 2: no star\n"
    assert listed(file, "--starred") == []


def test_notes(file: Path) -> None:
    assert invoke("note", file) == invoke("note", file, "-r", -1) == "no note yet\n"
    assert "beam is back" in invoke("note", file, "beam is back", "--author", "Zoë")
    invoke("note", file, "shutter stuck", "--run", -1)
    (note,) = json.loads(invoke("note", file, "--json"))
    assert (note["text"], note["author"], note["run_uid"]) == (
        "beam is back",
        "Zoë",
        None,
    )
    (note,) = json.loads(invoke("note", file, "--run", 5, "--json"))
    assert (note["text"], note["author"], note["run_uid"]) == (
        "shutter stuck",
        None,
        "b5",
    )
    assert listed(file, "--text", "shutter") == [5]
    with pytest.raises(DocumentError, match="a note needs a text"):
        invoke("note", file, "")


def test_samples(file: Path) -> None:
    lab6, si = json.loads(invoke("samples", file, "--json"))
    assert (lab6["name"], lab6["formula"], lab6["runs"]) == ("LaB6", "LaB6", 3)
    assert (si["name"], si["runs"]) == ("Si", 2)
    output = invoke("samples", file)
    assert "slot: 3" in output
    with Beamtime(file) as beamtime:
        beamtime.sample = {"name": "LaB6", "slot": 4}
    first, second = json.loads(invoke("samples", file, "LaB6", "--json"))
    assert first["sample"]["extra"] == {"slot": 3}
    assert second["sample"]["extra"] == {"slot": 4}
    assert first["time"] < second["time"]
    output = invoke("samples", file, "LaB6")
    assert output.index("slot: 3") < output.index("slot: 4")
    with pytest.raises(SampleNotFoundError, match="no sample 'Au': there are 'LaB6'"):
        invoke("samples", file, "Au")


def test_sql(file: Path) -> None:
    query = "SELECT scan_id, sample FROM run_list WHERE scan_id > 3"
    assert json.loads(invoke("sql", file, query, "--json")) == [
        {"scan_id": 5, "sample": "Si"},
        {"scan_id": 4, "sample": "Si"},
    ]
    assert invoke("sql", file, query, "--csv") == "scan_id,sample\n5,Si\n4,Si\n"
    assert "scan_id" in invoke("sql", file, query)
    assert "[bold]" in invoke("sql", file, "SELECT '[bold]' AS a, NULL AS b")
    before = file.read_bytes()
    with pytest.raises(QueryError, match="SQL can look here, not change"):
        invoke("sql", file, "DELETE FROM runs")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "arguments", [("tag", "x", 1, "a"), ("star", "x", 1), ("note", "x", "text")]
)
def test_a_mistyped_file_is_not_made(tmp_path: Path, arguments) -> None:
    command, name, *rest = arguments
    with pytest.raises(BeamtimeFileError, match="there is no beamtime at"):
        invoke(command, tmp_path / name, *rest)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_there_is_named(file: Path) -> None:
    for arguments in (("tag", file, 99, "a"), ("star", file, 99)):
        with pytest.raises(RunNotFoundError, match="scan number 99"):
            invoke(*arguments)
    with pytest.raises(RunNotFoundError, match="scan number 99"):
        invoke("note", file, "text", "--run", 99)


def test_a_run_is_labelled_while_another_process_records(file: Path) -> None:
    with Beamtime(file) as recording:
        recording("start", {"uid": "live", "time": 1.0, "scan_id": 9})
        assert invoke("tag", file, -1, "live") == "run 9: live\n"
        assert recording["live"].tags == ["live"]
        assert recording["live"].exit_status is None
