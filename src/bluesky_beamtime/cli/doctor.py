"""``beamtime doctor``."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from bluesky_beamtime.cli import tables
from bluesky_beamtime.cli.listing import print_json
from bluesky_beamtime.doctor import Report, examine

_STYLES = {"well": "green", "advice": "yellow", "trouble": "bold red"}


def doctor_file(file: Path | None, *, runs: int, speed: bool, json: bool) -> bool:
    """Look for trouble and print what was found; returns whether there is none."""
    report = examine(file, runs=runs, speed=speed)
    if json:
        print_json(report.to_json())
    else:
        print_report(report)
    return report.ok


def print_report(report: Report) -> None:
    """Print a line for each look, and what mends what is not well."""
    console = tables.console()
    for finding in report.findings:
        line = Text(f"{finding.level:8}", style=_STYLES[finding.level])
        line.append(f"{finding.check:12}{finding.what}", style="default")
        console.print(line, soft_wrap=True)
        if finding.command:
            console.print(Text(f"{'':20}{finding.command}", style="dim"))
