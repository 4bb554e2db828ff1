"""From rounds to figures: a line for each engine, a ratio for each gate."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Self

from workers import Round

MEBI = 1 << 20
Rounds = dict[str, list[Round]]


@dataclass(frozen=True)
class Gate:
    """One figure against what is asked for."""

    gate: str
    place: str
    work: str
    ratio: float
    at_least: float
    lowest: float
    highest: float

    @classmethod
    def of(
        cls, gate: str, place: str, work: str, values: list[float], at_least: float
    ) -> Self:
        """Take the median of the rounds' ratios."""
        median = statistics.median(values)
        digits = [round(value, 3) for value in (median, min(values), max(values))]
        return cls(gate, place, work, digits[0], at_least, digits[1], digits[2])

    @property
    def ok(self) -> bool:
        """Whether it is reached."""
        return self.ratio >= self.at_least


@dataclass(frozen=True)
class Line:
    """One engine in one setting."""

    place: str
    shape: str
    data: str
    engine: str
    peer: str
    """The engine that it ran in turns with and is compared to."""
    mib_per_s: float
    to_peer: float
    """How many times as fast as that one it is."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_s_per_gib: float
    """CPU seconds of all threads for 1 GiB of frames."""
    disk_per_byte: float
    """Bytes on disk for each byte of the frames."""
    peak_mib: float


def ratios(found: Rounds, peer: str, engine: str) -> list[float]:
    """Return how many times as fast as its peer an engine was, round by round."""
    pairs = zip(found[peer], found[engine], strict=True)
    return [theirs.total / mine.total for theirs, mine in pairs]


def lines(
    found: Rounds, place: str, shape: tuple[int, int], data: str, peer: str
) -> list[Line]:
    """Return a line of figures for each engine."""
    table: list[Line] = []
    frame = shape[0] * shape[1] * 2
    for name, rounds in found.items():
        calls = sorted(second for one in rounds for second in one.calls)
        size = frame * len(rounds[0].calls)
        total = statistics.median(one.total for one in rounds)
        table.append(
            Line(
                place,
                f"{shape[0]}×{shape[1]}",
                data,
                name,
                peer,
                round(size / MEBI / total, 1),
                round(statistics.median(ratios(found, peer, name)), 3),
                round(1e3 * statistics.median(calls), 4),
                round(1e3 * calls[int(0.99 * (len(calls) - 1))], 4),
                round(1e3 * calls[-1], 3),
                round(statistics.median(one.cpu for one in rounds) / size * 2**30, 3),
                round(statistics.median(one.disk for one in rounds) / size, 4),
                round(max(one.peak for one in rounds) / MEBI, 1),
            )
        )
    return table
