"""Figures on the terminal."""

from __future__ import annotations

from ratios import Gate, Line
from rich.console import Console
from rich.table import Table


def show(lines: list[Line], gates: list[Gate]) -> None:
    """Print a line for each engine, and a line for each gate."""
    console = Console(width=150)
    grid = Table("place", "frames", "data", "engine", "MiB/s")
    for name in ("p50 ms", "p99 ms", "max ms", "CPU s/GiB", "disk", "peak MiB"):
        grid.add_column(name, justify="right")
    for line in lines:
        grid.add_row(
            line.place,
            line.shape,
            line.data,
            line.engine,
            f"{line.mib_per_s:.0f}",
            f"{line.p50_ms:.2f}",
            f"{line.p99_ms:.2f}",
            f"{line.max_ms:.1f}",
            f"{line.cpu_s_per_gib:.2f}",
            f"{line.disk_per_byte:.2f}",
            f"{line.peak_mib:.0f}",
        )
    console.print(grid)
    grid = Table("gate", "place", "work", "ratio", "at least", "spread", "")
    for gate in gates:
        grid.add_row(
            gate.gate,
            gate.place,
            gate.work,
            f"{gate.ratio:.2f}",
            f"{gate.at_least:.2f}",
            f"{gate.lowest:.2f}–{gate.highest:.2f}",
            "ok" if gate.ok else "[red]below[/red]",
        )
    console.print(grid)
