"""How long ``beamtime --help`` and ``import bluesky_beamtime`` take (S12).

Each is a fresh process, the median of several, with Python's own start beside it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

CASES = {
    "python -c pass": ([sys.executable, "-c", "pass"], None),
    "beamtime --help": ([sys.executable, "-m", "bluesky_beamtime", "--help"], 0.5),
    "import bluesky_beamtime": (
        [sys.executable, "-c", "import bluesky_beamtime"],
        0.8,
    ),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for number in range(options.rounds + 1):
        for name, (command, _) in CASES.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if number:
                times[name].append(time.perf_counter() - start)
    for name, (_, most) in CASES.items():
        median = statistics.median(times[name])
        gate = ""
        if most is not None:
            gate = f"  S12: < {most} s {'ok' if median < most else 'ABOVE'}"
        print(f"{name:28} {median:.3f} s{gate}")


if __name__ == "__main__":
    main()
