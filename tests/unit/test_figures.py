"""The page with the figures is what its generator makes of what was measured."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def figures() -> Iterator[ModuleType]:
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("figures")
        for name in {"figures", "page"} - before:
            sys.modules.pop(name, None)


def test_the_page_is_what_the_generator_makes(figures: ModuleType) -> None:
    """If not: python benchmarks/figures.py."""
    made = figures.page(figures.load())
    assert (DOCS / "figures.md").read_text(encoding="utf-8") == made


def test_everything_that_is_measured_is_on_the_page(figures: ModuleType) -> None:
    assert set(figures.load()) == set(figures.MEASURED)


def test_every_part_is_a_section_of_the_page(figures: ModuleType) -> None:
    shown = figures.page(figures.load())
    for section in ("Cameras in a scan", "Retrieval", "Record sinks", "Exports"):
        assert f"\n## {section}" in shown


def test_every_script_is_there(figures: ModuleType) -> None:
    for script, *_ in figures.MEASURED.values():
        assert (ROOT / "benchmarks" / script).exists()


def test_a_figure_that_misses_its_gate_is_shown_so(figures: ModuleType) -> None:
    found = figures.load()
    for gate in found["frames"]["gates"]:
        gate["at_least"] = gate["ratio"] + 0.01
    shown = figures.page(found)
    assert shown.count("| **no** |") >= len(found["frames"]["gates"])


def test_the_table_of_kills_adds_up(figures: ModuleType) -> None:
    kills = figures.load()["kills"]
    for name in ("kills", "within", "acknowledged", "more", "lost", "wrong"):
        assert sum(row[name] for row in kills["rows"]) == kills["total"][name]
    assert kills["total"]["complaints"] == []


def test_no_machine_is_named(figures: ModuleType) -> None:
    """Only what kind of machine it was: paths and host names are nobody's business."""
    for path in (DOCS / "figures").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r'"/\w', text)
        assert set(json.loads(text)["machine"]) == {
            *("date", "cores", "processor", "memory_gib", "system", "python"),
            *("versions", "load_before", "load_after"),
        }
