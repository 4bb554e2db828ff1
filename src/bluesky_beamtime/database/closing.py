"""One line about a run that has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bluesky_beamtime.database.accounting import Account, frame_bytes
from bluesky_beamtime.database.sizes import human_size

if TYPE_CHECKING:
    from bluesky_beamtime.database.runs import Run


def closing_line(run: Run) -> str:
    """Return what became of a run and its frames, in one line.

    Such as ``run 214 fly_frames: success, 2×1000 frames, 3 dropped (cam2), dead time
    4.1 %, 812 MB/s``. What is zero is left out. The dead time is that of all cameras
    together, the rate that of the frames before compression, over the whole run.
    """
    row = run.start
    name = " ".join(
        str(row[key]) for key in ("scan_id", "plan_name") if row.get(key) is not None
    )
    status = run.exit_status or "running"
    parts = [status if run.complete else f"{status}, incomplete"]
    accounts = run.accounting
    if accounts:
        parts += [*_frames(accounts), *_timing(run)]
    else:
        events = run.num_events
        parts.append(f"{events} event{'' if events == 1 else 's'}")
    return f"run {name or run.uid}: {', '.join(parts)}"


def _frames(accounts: Mapping[str, Account]) -> list[str]:
    written = [account["written"] or 0 for account in accounts.values()]
    same = len(set(written)) == 1
    number = (
        f"{len(written)}×{written[0]}"
        if same and len(written) > 1
        else " + ".join(map(str, written))
    )
    parts = [f"{number} frame{'' if written == [1] else 's'}"]
    missing = {
        key: (account["expected"] or 0) - (account["received"] or 0)
        for key, account in accounts.items()
    }
    counts = {
        word: {key: account[word] or 0 for key, account in accounts.items()}
        for word in ("dropped", "late")
    }
    for word, count in {**counts, "missing": missing}.items():
        total = sum(max(0, one) for one in count.values())
        if total:
            keys = ", ".join(key for key, one in count.items() if one > 0)
            parts.append(f"{total} {word} ({keys})")
    return parts


def _timing(run: Run) -> list[str]:
    parts: list[str] = []
    times = list(run.frame_timing.values())
    live = sum(time["live_time"] or 0.0 for time in times)
    span = sum(time["span"] or 0.0 for time in times)
    dead = f"{100 * (1 - live / span):.1f}" if live > 0 and span > live else "0.0"
    if dead != "0.0":
        parts.append(f"dead time {dead} %")
    began, stop = run.start.get("time"), run.stop
    ended = None if stop is None else stop.get("time")
    if isinstance(began, (int, float)) and isinstance(ended, (int, float)):
        seconds = ended - began
        if seconds > 0:
            size = frame_bytes(run.database, run.uid)
            parts.append(f"{human_size(size / seconds)}/s")
    return parts
