"""The last runs: frames that were lost, runs that were cut off, clocks that differ."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bluesky_beamtime.database import Run
from bluesky_beamtime.database.external import stored_arrays
from bluesky_beamtime.doctor.finding import Finding
from bluesky_beamtime.errors import BeamtimeError

_FEW_RUNS, _FEW_DOCUMENTS = 3, 300
_AHEAD = 2.0
_HELD_UP, _LONG = 0.1, 1.0


def check_frames(path: Path, runs: Sequence[Run]) -> Iterator[Finding]:
    """Look what became of the frames of some runs."""
    file = shlex.quote(str(path))
    total, lost = 0, False
    for run in runs:
        for key, account in run.accounting.items():
            total += account["written"] or 0
            counts = {
                name: count for name in ("dropped", "late") if (count := account[name])
            }
            if not counts:
                continue
            lost = True
            said = " and ".join(f"{count} {name}" for name, count in counts.items())
            yield Finding(
                "frames",
                "trouble" if "dropped" in counts else "advice",
                f"{run.label}: of {account['expected'] or account['received']} frames "
                f"of {key} {said}. A longer exposure, a larger queue_size or a faster "
                "disk keeps them",
                f"beamtime show {file} {run.scan_id or run.uid}",
            )
        yield from _held_up(run, file)
    if not lost:
        yield Finding("frames", "well", f"none of {total} lost in {len(runs)} runs")


def _held_up(run: Run, file: str) -> Iterator[Finding]:
    for key, timing in run.frame_timing.items():
        span, storing = timing["span"], timing["storage_time"]
        if span and storing and storing > max(_LONG, _HELD_UP * span):
            yield Finding(
                "frames",
                "advice",
                f"{run.label}: storing held {key} up for {storing:.1f} s, "
                f"{storing / span:.0%} of the time",
                f"beamtime doctor {file} --speed",
            )


def check_endings(path: Path, runs: Sequence[Run]) -> Iterator[Finding]:
    """Look whether some runs were cut off."""
    cut = [run for run in runs if run.exit_status == "interrupted"]
    if cut:
        labels = ", ".join(run.label for run in cut)
        yield Finding(
            "endings",
            "advice",
            f"cut off, with what they had until then: {labels}",
            f"beamtime recover {shlex.quote(str(path))}",
        )
    elif runs:
        yield Finding("endings", "well", f"none of {len(runs)} runs was cut off")


def check_stamps(runs: Sequence[Run]) -> Iterator[Finding]:
    """Look whether readings carry times that had not come yet."""
    now = time.time()
    ahead: dict[str, float] = {}
    for run in runs[:_FEW_RUNS]:
        if run.time is not None and run.time > now + _AHEAD:
            yield Finding(
                "clock",
                "trouble",
                f"{run.label} began {run.time - now:.0f} s from now: a clock was set "
                "back, or it was recorded elsewhere",
                "timedatectl status",
            )
            continue
        for name, doc in islice(run.documents(), _FEW_DOCUMENTS):
            if name == "event":
                for key, stamp in doc["timestamps"].items():
                    ahead[key] = max(ahead.get(key, 0.0), stamp - doc["time"])
    for key, seconds in ahead.items():
        if seconds > _AHEAD:
            yield Finding(
                "clock",
                "trouble",
                f"{key} is stamped {seconds:.0f} s in the future: the clock of its IOC "
                "is wrong",
                "timedatectl status  # on the IOC's computer",
            )


def biggest_run(runs: Sequence[Run]) -> int:
    """Return the bytes of the frames of the biggest of some runs."""
    return max((_size(run) for run in runs), default=0)


def _size(run: Run) -> int:
    total = 0
    for stored in {array.uri: array for array in _arrays(run)}.values():
        try:
            array = stored.open()
        except (BeamtimeError, OSError):
            continue
        number = 1
        for length in array.shape:
            number *= int(length)
        total += number * array.dtype.itemsize
    return total


def _arrays(run: Run) -> list[Any]:
    return stored_arrays(run.database, run.uid)
