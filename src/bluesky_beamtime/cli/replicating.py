"""``beamtime replicate``."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.cli import tables

if TYPE_CHECKING:
    from bluesky_beamtime.database.replica import Following

_SECONDS_BETWEEN_LINES = 1.0


def replicate(
    file: Path,
    url: str,
    *,
    frames: str | None,
    follow: bool,
    timeout: float | None,
    json: bool,
) -> bool:
    """Copy a beamtime to a server and say how far it is; returns whether all is there.

    Parameters
    ----------
    file, url, frames
        What to copy, and where to.
    follow
        Go on until interrupted.
    timeout
        Without ``follow``: seconds after which it is given up.
    json
        Print a line for each step, for machines.
    """
    from bluesky_beamtime.database import Database
    from bluesky_beamtime.database.opening import check_path
    from bluesky_beamtime.database.replica import Following, Server

    server = Server.of(url)
    check_path(file, create=False)
    database = Database(file, mode="a")
    stop = threading.Event()

    def end(number: int, frame: object) -> None:
        stop.set()

    previous = signal.signal(signal.SIGTERM, end)
    try:
        following = Following(database, server, frames=frames)
        following.start(numbers=False)
        try:
            return _watch(following, follow, timeout, json, stop)
        finally:
            following.close()
    except KeyboardInterrupt:
        return not follow
    finally:
        signal.signal(signal.SIGTERM, previous)
        database.close()


def _watch(
    following: Following,
    follow: bool,
    timeout: float | None,
    json: bool,
    stop: threading.Event,
) -> bool:
    deadline = None if timeout is None else time.monotonic() + timeout
    said: Any = None
    while not stop.is_set():
        done = following.wait(_SECONDS_BETWEEN_LINES)
        facts = following.describe()
        if facts != said:
            _say(following, facts, json)
            said = facts
        if done and not follow:
            return True
        if done and follow:
            stop.wait(_SECONDS_BETWEEN_LINES)
        if not follow and deadline is not None and time.monotonic() > deadline:
            return False
    return following.progress.caught_up


def _say(following: Following, facts: dict[str, Any], json: bool) -> None:
    if json:
        import orjson

        print(orjson.dumps(facts).decode(), flush=True)
        return
    failure = f" ({facts['failure']})" if facts["failure"] else ""
    tables.console().print(
        f"{following.server}: {following.progress}, {facts['copied']} rows copied"
        f"{failure}",
        soft_wrap=True,
        markup=False,
    )
