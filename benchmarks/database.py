"""How quickly runs are found among 100 000 and 1 000 000 (S9).

The databases are made by inserting rows through the schema; the text of each run goes
through the full-text index as it does when a run starts. Each figure is what a user
waits for: a ``Beamtime`` that is open already is asked through its own methods, the
kinds of questions in turns, and the databases too, so that a slow moment hits all.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from bluesky_beamtime import Beamtime

PAGE = 50
QUICK, TEXT = 5.0, 50.0
"""Milliseconds, p95: for a number, a uid, a plan, a sample; and for full text."""
FACTOR = 2.0
"""How much slower a million may be."""

PLANS = ("count", "scan", "grid_scan", "fly_frames", "en_scan")
SAMPLES = 100
BATCH = 10_000
SYLLABLES = [
    *("an", "ba", "ce", "da", "el", "fi", "go", "ha", "in", "jo", "ka", "li", "mo"),
    *("na", "or", "pe", "qua", "ra", "si", "ta", "ul", "ve", "wi", "xe", "yo", "zi"),
    *("ster", "tion", "ment", "ring", "beam", "gra", "phe", "cry", "stal", "pow"),
    *("der", "ther", "mal", "flux"),
]


class Writer:
    """Makes start documents that look like those of a beamline, the same each time."""

    def __init__(self) -> None:
        self._random = random.Random(20261120)
        self.words = [self._word() for _ in range(4000)]
        # As in any language a few words are frequent, and most are rare.
        self._weights = [1 / (number + 3) for number in range(len(self.words))]
        self.samples = [f"{self._pick(1)}-{number}" for number in range(SAMPLES)]

    def _word(self) -> str:
        return "".join(self._random.choices(SYLLABLES, k=self._random.randint(2, 4)))

    def _pick(self, number: int) -> str:
        return " ".join(self._random.choices(self.words, self._weights, k=number))

    def start(self, number: int) -> dict[str, Any]:
        """Return the start document of a run."""
        plan = PLANS[number * 7 % len(PLANS)]
        return {
            "uid": str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
            "time": 1.6e9 + 60.0 * number,
            "scan_id": number,
            "plan_name": plan,
            "plan_type": "generator",
            "motors": ["motor"],
            "detectors": ["cam1", "cam2"],
            "num_points": 51,
            "plan_args": {
                "detectors": ["SimCamera(name='cam1')", "SimCamera(name='cam2')"],
                "args": ["SimMotor(name='motor')", -1.5, 1.5],
                "num": 51,
            },
            "sample": self._random.choice(self.samples),
            "purpose": self._pick(8),
            "operator": self._pick(2),
            "optics": {"energy": round(self._random.uniform(5, 20), 3), "stripe": "Rh"},
            "versions": {"bluesky": "1.14.0", "ophyd_async": "0.21.3"},
        }


def build(path: Path, runs: int) -> Writer:
    """Make a beamtime of so many runs."""
    Beamtime(path).close()
    writer = Writer()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        connection.executemany(
            "INSERT INTO samples(id, name, tags, extra) VALUES (?, ?, '[]', '{}')",
            enumerate(writer.samples, 1),
        )
        numbers = {name: number for number, name in enumerate(writer.samples, 1)}
        for first in range(1, runs + 1, BATCH):
            starts = [
                writer.start(number)
                for number in range(first, min(first + BATCH, runs + 1))
            ]
            connection.execute("BEGIN")
            connection.executemany(
                _INSERT, (_run_row(start, numbers) for start in starts)
            )
            connection.executemany(
                "INSERT INTO run_texts(run_id, text) VALUES (?, ?)",
                ((start["scan_id"], _text(start)) for start in starts),
            )
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return writer


_COLUMNS = (
    *("uid", "sample_id", "scan_id", "plan_name", "time_start", "time_stop"),
    *("exit_status", "num_events", "metadata", "start", "stop", "stop_ordinal"),
)
_INSERT = (
    f"INSERT INTO runs({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
)


def _run_row(start: dict[str, Any], samples: dict[str, int]) -> tuple[Any, ...]:
    document = json.dumps(start)
    stop = {"run_start": start["uid"], "exit_status": "success", "reason": ""}
    begin, plan = start["time"], start["plan_name"]
    return (
        *(start["uid"], samples[start["sample"]], start["scan_id"], plan, begin),
        *(begin + 50, "success", 51, document, document, json.dumps(stop), 60),
    )


def _text(start: dict[str, Any]) -> str:
    def words(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for item in value.values():
                yield from words(item)
        elif isinstance(value, list):
            for item in value:
                yield from words(item)
        else:
            yield str(value)

    said = {key: item for key, item in start.items() if key not in ("uid", "time")}
    return "\n".join(dict.fromkeys(words(said)))


# --------------------------------------------------------------------------- questions

Question = Callable[[Beamtime, random.Random], object]


def questions(writer: Writer, runs: int) -> dict[str, tuple[float, Question]]:
    """Return what is asked, and how many milliseconds it may take."""
    words = writer.words

    def page(beamtime: Beamtime, **wanted: Any) -> object:
        return beamtime.search(**wanted)[:PAGE]

    def some_uid(beamtime: Beamtime, chance: random.Random) -> str:
        return beamtime[chance.randint(1, runs)].uid[:8]

    uids: dict[int, list[str]] = {}

    def by_uid(beamtime: Beamtime, chance: random.Random) -> object:
        known = uids.setdefault(id(beamtime), [])
        if not known:
            known += [some_uid(beamtime, chance) for _ in range(200)]
        return beamtime[chance.choice(known)]

    return {
        "newest 50": (QUICK, lambda b, c: page(b)),
        "newest 50, listed": (QUICK, lambda b, c: b.summaries(PAGE)),
        "newest, beamtime[-1]": (QUICK, lambda b, c: b[-1]),
        "by scan number": (QUICK, lambda b, c: b[c.randint(1, runs)]),
        "by part of a uid": (QUICK, by_uid),
        "50 of a plan": (QUICK, lambda b, c: page(b, plan_name=c.choice(PLANS))),
        "50 of a sample": (
            QUICK,
            lambda b, c: page(b, sample=c.choice(writer.samples)),
        ),
        "50 of the last week": (
            QUICK,
            lambda b, c: page(b, since=1.6e9 + 60.0 * runs - 7 * 86400),
        ),
        "text: any word": (TEXT, lambda b, c: page(b, text=c.choice(words))),
        "text: a frequent word": (
            TEXT,
            lambda b, c: page(b, text=c.choice(words[:20])),
        ),
        "text: a rare word": (TEXT, lambda b, c: page(b, text=c.choice(words[-500:]))),
        "text: two words": (
            TEXT,
            lambda b, c: page(b, text=" ".join(c.choices(words[:200], k=2))),
        ),
        "text: in every run": (TEXT, lambda b, c: page(b, text="SIMCAMERA")),
        "text: in none": (TEXT, lambda b, c: page(b, text=c.choice(words) + "q7q")),
        "text and plan": (
            TEXT,
            lambda b, c: page(b, text=c.choice(words), plan_name=c.choice(PLANS)),
        ),
        "len(beamtime)": (TEXT, lambda b, c: len(b)),
        "repr(beamtime)": (TEXT, lambda b, c: repr(b)),
        "distinct plans": (float("inf"), lambda b, c: b.distinct("plan_name")),
        "by a key, text": (
            TEXT,
            lambda b, c: page(b, operator=" ".join(c.choices(words[:9], k=2))),
        ),
        "by a key, number": (
            float("inf"),
            lambda b, c: page(b, **{"optics.energy": 12.3456}),
        ),
    }


def measure(
    beamtime: Beamtime,
    ask: Question,
    chance: random.Random,
    clock: Callable[[], float],
) -> float:
    """Return milliseconds."""
    start = clock()
    ask(beamtime, chance)
    return (clock() - start) * 1e3


def p95(values: list[float]) -> float:
    """Return the value that a twentieth exceeds."""
    return sorted(values)[max(0, round(len(values) * 0.95) - 1)]


def main() -> None:
    """Build, ask, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--cpu", action="store_true", help="where others work too")
    parser.add_argument("--folder", type=Path, default=None, help="where to write")
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        opened: list[tuple[Beamtime, dict[str, tuple[float, Question]]]] = []
        for runs in options.runs:
            begun = time.monotonic()
            path = Path(folder, f"{runs}.db")
            asked = questions(build(path, runs), runs)
            opened.append((Beamtime(path), asked))
            size = path.stat().st_size / 1e6
            took = time.monotonic() - begun
            print(f"{runs} runs: {size:.0f} MB, made in {took:.0f} s", flush=True)
        taken: dict[str, list[list[float]]] = {}
        for round_ in range(-3, options.rounds):
            for name in opened[0][1]:
                slow = opened[0][1][name][0] == float("inf")
                if slow and round_ % 20:
                    continue
                for number, (beamtime, asked) in enumerate(opened):
                    chance = random.Random(f"{name} {round_}")
                    milliseconds = measure(beamtime, asked[name][1], chance, clock)
                    if round_ >= 0:
                        places = taken.setdefault(name, [[] for _ in opened])
                        places[number].append(milliseconds)
        report(options.runs, opened[0][1], taken)
        for beamtime, _ in opened:
            beamtime.close()


def report(
    sizes: list[int],
    limits: dict[str, tuple[float, Question]],
    taken: dict[str, list[list[float]]],
) -> None:
    """Print a line for each question: median and p95 for each size, and the ratio."""
    heads = "".join(f"{size:>12} runs   " for size in sizes)
    print(f"{'milliseconds, median / p95':28}{heads}  factor")
    for name, values in taken.items():
        limit = limits[name][0]
        cells = "".join(
            f"{statistics.median(each):9.2f} / {p95(each):6.2f} " for each in values
        )
        factor = statistics.median(values[-1]) / statistics.median(values[0])
        verdict = ""
        if limit != float("inf"):
            late = p95(values[0]) > limit
            slower = factor > FACTOR and statistics.median(values[-1]) > 1
            state = "ABOVE" if late else "SLOWER" if slower else "ok"
            verdict = f"S9: < {limit:.0f} ms {state}"
        print(f"{name:28}{cells}  {factor:5.1f} ×  {verdict}")


if __name__ == "__main__":
    main()
