"""Ours beside the bare library, measured in turns."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from machine import finished
from rich.console import Console
from rich.table import Table


class Cost(NamedTuple):
    """What a piece of work took."""

    seconds: float
    processor: float
    """Seconds of all cores."""
    memory: int = 0
    """Bytes at most, beyond what there was before."""


@dataclass(frozen=True)
class Versus:
    """What came out of some rounds."""

    name: str
    unit: str
    ours: float
    """Median of the amount per second, as of the next."""
    theirs: float
    ratio: float
    """Median of the ratios of the rounds."""
    lowest: float
    highest: float
    cpu_ratio: float
    at_least: float
    """The gate; 0 where none is set."""
    memory_mib: float | None = None
    """At most in any round."""
    large_mib: float | None = None
    """The same for four times as much, measured once."""

    @property
    def ok(self) -> bool:
        """Whether the gate is reached."""
        return self.ratio >= self.at_least


def compared(
    name: str,
    unit: str,
    amount: float,
    rounds: Sequence[tuple[Cost, Cost]],
    at_least: float,
    **more: float,
) -> Versus:
    """Return what rounds say, in each of which ours took the first cost."""
    ratios = [bare.seconds / mine.seconds for mine, bare in rounds]
    return Versus(
        name=name,
        unit=unit,
        ours=statistics.median(amount / mine.seconds for mine, _ in rounds),
        theirs=statistics.median(amount / bare.seconds for _, bare in rounds),
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        cpu_ratio=statistics.median(b.processor / m.processor for m, b in rounds),
        at_least=at_least,
        **more,
    )


def show(lines: Sequence[Versus]) -> None:
    """Print a table."""
    head = ("", "", "ours", "bare library", "ratio", "spread", "of CPU time")
    memory = any(line.memory_mib is not None for line in lines)
    grid = Table(*head, *(("MiB of memory", "4 × the stack") if memory else ()))
    for line in lines:
        extra = [
            "" if m is None else f"{m:.0f}" for m in (line.memory_mib, line.large_mib)
        ]
        grid.add_row(
            line.name,
            line.unit,
            f"{line.ours:.4g}",
            f"{line.theirs:.4g}",
            f"{line.ratio:.2f}",
            f"{line.lowest:.2f}–{line.highest:.2f}",
            f"{line.cpu_ratio:.2f}",
            *(extra if memory else ()),
        )
    Console(width=120).print(grid)


def keep(
    path: Path | None, machine: dict[str, Any], lines: Sequence[Versus], **more: Any
) -> None:
    """Write figures as JSON, or end with an error where one is below its gate."""
    low = [f"{line.name} {line.unit}" for line in lines if not line.ok]
    if path is not None:
        # The page of figures says so itself.
        made = {
            "machine": finished(machine),
            **more,
            "lines": [asdict(line) for line in lines],
        }
        path.write_text(
            json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    elif low:
        raise SystemExit(f"below what is asked for: {', '.join(low)}")
