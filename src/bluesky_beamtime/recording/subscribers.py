"""Looks which callbacks of a RunEngine make its plans wait."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from types import FrameType
from typing import Any

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.slow_subscribers import (
    SubscriberTime,
    store_subscribers,
)
from bluesky_beamtime.errors import DatabaseError

logger = logging.getLogger(__name__)

INTERVAL = 0.02
"""Seconds between two looks."""


class SubscriberWatch:
    """Looks, while a run goes on, in which callback the RunEngine is.

    A callback runs in the RunEngine's thread, and the plan waits for it. Nothing is
    wrapped or replaced: fifty times a second a thread looks where that thread is. What
    each callback took is kept in the file when the run stops, for ``beamtime doctor``.

    Parameters
    ----------
    RE
        The RunEngine.
    database
        Where it is kept.
    """

    def __init__(self, RE: Any, database: Database) -> None:
        self._thread_id: int = RE._th.ident
        self._database = database
        self._running = threading.Event()
        self._closed = False
        self._seen: Counter[str] = Counter()
        self._looks = 0
        self._began = 0.0
        self._lock = threading.Lock()
        self._engine = RE
        self._token: int = RE.subscribe(self._document)
        self._thread = threading.Thread(
            target=self._watch, name="beamtime-subscribers", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop watching; may be called again."""
        if not self._closed:
            self._closed = True
            self._engine.unsubscribe(self._token)
            self._running.set()
            self._thread.join()

    def _document(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            with self._lock:
                self._seen.clear()
                self._looks = 0
                self._began = time.monotonic()
            self._running.set()
        elif name == "stop":
            self._running.clear()
            self._keep(doc["run_start"])

    def _keep(self, run: str) -> None:
        with self._lock:
            seen, looks = dict(self._seen), self._looks
            seconds = time.monotonic() - self._began
        if not looks:
            return
        times = [
            SubscriberTime(name, seconds * count / looks, count / looks, run)
            for name, count in seen.items()
        ]
        try:
            store_subscribers(self._database, times)
        except DatabaseError as error:
            # A run is good without.
            logger.warning("the callbacks' times are not kept: %s", error)

    def _watch(self) -> None:
        while not self._closed:
            self._running.wait()
            frame = sys._current_frames().get(self._thread_id)  # pyright: ignore[reportPrivateUsage]  # there is no other name
            name = callback_in(frame)
            del frame
            with self._lock:
                self._looks += 1
                if name is not None:
                    self._seen[name] += 1
            time.sleep(INTERVAL)


def callback_in(frame: FrameType | None) -> str | None:
    """Return the name of the callback that a thread is in, None if it is in none.

    Parameters
    ----------
    frame
        The innermost frame of the thread.
    """
    inner: list[FrameType] = []
    while frame is not None:
        code = frame.f_code
        if code.co_name == "process" and _is_bluesky(code.co_filename, "utils"):
            return _name(inner[::-1])
        inner.append(frame)
        frame = frame.f_back
    return None


def _name(frames: list[FrameType]) -> str | None:
    """Return whose call it is: the first below bluesky's own wrappers."""
    for frame in frames:
        code = frame.f_code
        wrapper = code.co_name == "inner" and _is_bluesky(code.co_filename, "callbacks")
        if wrapper or _is_bluesky(code.co_filename, "utils"):
            continue
        owner = frame.f_locals.get("self")
        return code.co_qualname if owner is None else type(owner).__qualname__
    return None


def _is_bluesky(filename: str, part: str) -> bool:
    return f"/bluesky/{part}/" in filename.replace("\\", "/")
