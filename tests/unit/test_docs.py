"""What the documentation shows is what the package does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bluesky_beamtime import errors
from bluesky_beamtime.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_prints_what_the_page_shows(
    example: Path, tmp_path: Path
) -> None:
    """Beside each example lies what it prints."""
    if example.stem == "scan_window" and not os.environ.get("CI"):
        pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path,
        env={
            **os.environ,
            "MPLBACKEND": "Agg",
            "QT_QPA_PLATFORM": "offscreen",
            "TZ": "UTC",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    shown = example.with_suffix(".txt").read_text()
    assert steady(done.stdout) == steady(shown)


def steady(text: str) -> list[str]:
    """Return lines without what the closing line of a run says of speed."""
    figures = r"(, dead time [\d.]+ %)?, [\d.]+ [kMG]?B/s$"
    return [re.sub(figures, ", …", line) for line in text.splitlines()]


def test_every_example_is_on_a_page() -> None:
    pages = "\n".join(page.read_text() for page in DOCS.rglob("*.md"))
    for example in EXAMPLES:
        assert f"examples/{example.name}" in pages
        assert f"examples/{example.stem}.txt" in pages


def test_tutorial_shows_every_line_of_its_example() -> None:
    """A section that no page includes would be code that nobody reads."""
    pages = "\n".join(page.read_text() for page in DOCS.rglob("*.md"))
    for example in EXAMPLES:
        for mark in re.findall(r"^# \[\w+\]$", example.read_text(), re.MULTILINE):
            if mark in ("# [close]", "# [prepare]"):
                continue
            assert f'start-after: "{mark}"' in pages, (example.name, mark)


GROUP: Any = typer.main.get_command(app)
COMMANDS = {f"beamtime {name}": command for name, command in GROUP.commands.items()}


@pytest.mark.parametrize("name", ["beamtime", *COMMANDS])
def test_command_is_documented_with_all_its_options(name: str) -> None:
    command = COMMANDS.get(name, GROUP)
    page = (DOCS / "reference" / "cli.md").read_text()
    if name != "beamtime":
        _, found, page = page.partition(f"## `{name}`\n")
        assert found, f"{name} has no heading in docs/reference/cli.md"
        page = page.partition("\n## ")[0]
    for parameter in command.params:
        argument = parameter.param_type_name == "argument"
        names = [parameter.metavar] if argument else parameter.opts
        for word in names:
            assert word in page, f"{name}: {word} is not documented"


def test_only_commands_that_exist_are_documented() -> None:
    page = (DOCS / "reference" / "cli.md").read_text()
    assert re.findall(r"^## `(.*)`$", page, re.MULTILINE) == list(COMMANDS)


def test_tree_in_errors_names_every_error() -> None:
    tree = errors.__doc__ or ""
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, (errors.BeamtimeError, errors.BeamtimeWarning))
        and not name.startswith("_")
    }
    drawn = set(re.findall(r"^    [│├└─ ]*(\w+)", tree, re.MULTILINE))
    assert drawn == defined


def test_readme_has_the_two_commands_and_its_picture() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(re.findall(r"^python3 -m venv ", readme, re.MULTILINE)) == 2
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", readme):
        assert (ROOT / target).exists(), target
