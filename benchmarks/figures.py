"""Turn measured figures into the page of the documentation that shows them.

The figures lie as JSON in ``docs/reference/figures``, the page is
``docs/reference/figures.md``. Run::

    python benchmarks/figures.py             # the page, from the figures that are there
    python benchmarks/figures.py --measure   # measure all anew, then the page
    python benchmarks/figures.py --measure kills memory
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from page import page

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference" / "figures"
PAGE = ROOT / "docs" / "reference" / "figures.md"

MEASURED = {
    "acquisition": ("acquisition.py",),
    "exports": ("exports.py",),
    "frames": ("frames.py",),
    "kilohertz": ("kilohertz.py",),
    "kills": ("kills.py",),
    "memory": ("memory.py", "--seconds", "180"),
    "retrieval": ("retrieval.py",),
    "sinks": ("sinks.py",),
}
"""The scripts and how they are run. Each writes ``<name>.json``."""


def load(folder: Path = FOLDER) -> dict[str, Any]:
    """Return what is measured, by name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }


def measure(names: list[str]) -> None:
    """Run the scripts, one after another."""
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        script, *options = MEASURED[name]
        command = [sys.executable, str(Path(__file__).with_name(script)), *options]
        print("+", script, *options, flush=True)
        subprocess.run([*command, "--json", str(FOLDER / f"{name}.json")], check=True)


def main() -> None:
    """Measure if asked, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--measure", nargs="*", choices=[*MEASURED], help="by default all"
    )
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure or list(MEASURED))
    PAGE.write_text(page(load()), encoding="utf-8")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
