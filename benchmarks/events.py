"""What recording an event costs the RunEngine (S7).

``RE(count(soft detector))`` runs with and without the recorder, in turns. The gate is
the time inside the recorder's callback, a commit per event included, as a share of the
time that one event takes; the ratio of the two wall times stands beside it, but carries
a few per cent of noise.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from bluesky.plans import count

from bluesky_beamtime import Beamtime

GATE = 0.05


class SoftDetector:
    """Eight numbers that are there at once."""

    name = "soft"
    parent = None

    def __init__(self) -> None:
        self._keys = [f"soft_{n}" for n in range(8)]

    def describe(self) -> dict[str, Any]:
        """Return the data keys."""
        return {
            key: {"source": "soft", "dtype": "number", "shape": []}
            for key in self._keys
        }

    def read(self) -> dict[str, Any]:
        """Return the readings."""
        now = time.time()
        return {
            key: {"value": 0.1234567 * n, "timestamp": now}
            for n, key in enumerate(self._keys)
        }


class Timed:
    """A callback that notes how long another one takes for each event."""

    def __init__(self, callback: Callable[[str, Any], None]) -> None:
        self._callback = callback
        self.seconds: list[float] = []

    def __call__(self, name: str, doc: Any) -> None:
        """Pass a document on."""
        start = time.perf_counter()
        self._callback(name, doc)
        if name == "event":
            self.seconds.append(time.perf_counter() - start)


def measure(RE: Any, events: int, callback: Callable[[str, Any], None]) -> float:
    """Return seconds per event."""
    start = time.perf_counter()
    RE(count([SoftDetector()], events), callback)
    return (time.perf_counter() - start) / events


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to write")
    parser.add_argument("--durability", choices=["kill", "power"], default="kill")
    options = parser.parse_args()
    RE = RunEngine(context_managers=[])
    without: list[float] = []
    with_recorder: list[float] = []
    inside: list[float] = []
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        Beamtime(Path(folder, "x.db"), durability=options.durability) as beamtime,
    ):
        for number in range(options.rounds + 1):
            timed = Timed(beamtime)
            bare = measure(RE, options.events, lambda name, doc: None)
            recorded = measure(RE, options.events, timed)
            if number:
                without.append(bare)
                with_recorder.append(recorded)
                inside += timed.seconds
    event = statistics.median(with_recorder)
    callback = statistics.median(inside)
    mean = statistics.fmean(inside)
    share = callback / event
    verdict = "ok" if share <= GATE else "ABOVE"
    print(f"an event without the recorder  {statistics.median(without) * 1e6:8.0f} µs")
    print(f"an event with the recorder     {event * 1e6:8.0f} µs")
    print(f"inside the callback, median    {callback * 1e6:8.1f} µs")
    print(f"inside the callback, mean      {mean * 1e6:8.1f} µs")
    print(f"inside the callback, longest   {max(inside) * 1e6:8.0f} µs")
    print(f"share of the event             {share:8.1%}  S7: <= {GATE:.0%} {verdict}")


if __name__ == "__main__":
    main()
