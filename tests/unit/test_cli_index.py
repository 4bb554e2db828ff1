"""``beamtime index``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from bluesky_beamtime.cli import app
from bluesky_beamtime.database import RunWriter

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, sample in (("one", "LaB6"), ("two", "CeO2")):
        with RunWriter(folder / f"{name}.db", sample) as writer:
            writer.open_run("scan", metadata={"tags": [name]})
    return folder


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["index", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


def found(*arguments: object) -> list[dict[str, Any]]:
    return json.loads(run("search", *arguments, "--json"))


def test_refresh_and_search(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "all.index"
    said = run("refresh", index, folder)
    assert f"{folder / 'one.db'}: 1 run" in said
    assert len(found(index)) == 2
    assert [row["beamtime"] for row in found(index, "--sample", "CeO2")] == ["two"]
    assert [row["sample"] for row in found(index, "--tag", "one")] == ["LaB6"]
    assert [row["available"] for row in found(index, "--beamtime", "one")] == [True]
    assert found(index, "--since", "2100-01-01") == []
    assert found(index, "--until", "2001-01-01", "--text", "ceo", "--plan", "x") == []
    assert len(found(index, "--limit", 1)) == 1
    table = run("search", index, "--limit", 1)
    assert "and 1 older" in table
    assert "no run" in run("search", index, "--sample", "Si")


def test_absent_disk_is_shown(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "all.index"
    run("refresh", index, folder)
    shutil.move(folder, tmp_path / "away")
    assert [row["available"] for row in found(index)] == [False, False]


def test_add_says_whose_it_is(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "all.index"
    orcid = "0000-0002-1825-0097"
    said = run(
        *("add", index, folder / "one.db", "--researcher", "Ada", "--orcid", orcid),
        *("--email", "a@x.org", "--affiliation", "ESRF", "--label", "November"),
    )
    assert said == "one.db: 1 run\n"
    (row,) = found(index, "--researcher", orcid)
    assert (row["researcher"], row["beamtime"]) == ("Ada", "November")
    run("add", index, folder / "two.db", "--orcid", orcid, status=2)


def test_what_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    header = bytearray((folder / "one.db").read_bytes())
    header[60:64] = (99).to_bytes(4, "big")
    (folder / "newer.db").write_bytes(header)
    said = run("refresh", tmp_path / "all.index", folder, status=1)
    assert "newer version" in said
    assert f"{folder / 'two.db'}: 1 run" in said


def test_time_that_is_none(folder: Path, tmp_path: Path) -> None:
    run("refresh", tmp_path / "all.index", folder)
    run("search", tmp_path / "all.index", "--since", "yesterdayish", status=2)


def test_every_option_is_documented() -> None:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands["index"].commands.items():
        _, heading, page = PAGE.read_text().partition(f"### `beamtime index {name}`\n")
        assert heading
        page = page.partition("\n### ")[0].partition("\n## ")[0]
        for parameter in command.params:
            argument = parameter.param_type_name == "argument"
            for word in [parameter.metavar] if argument else parameter.opts:
                assert word in page, f"{name}: {word}"
