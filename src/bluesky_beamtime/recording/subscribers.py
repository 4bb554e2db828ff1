"""Looks which callbacks of a RunEngine make its plans wait."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from typing import Any

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.slow_subscribers import (
    SubscriberTime,
    store_subscribers,
)
from bluesky_beamtime.errors import DatabaseError

logger = logging.getLogger(__name__)


class SubscriberWatch:
    """Takes the time of each callback of a RunEngine while a run goes on.

    A callback runs in the RunEngine's thread, and the plan waits for it. What each one
    took is kept in the file when the run stops, for ``beamtime doctor``.

    Parameters
    ----------
    RE
        The RunEngine.
    database
        Where it is kept.

    Notes
    -----
    From the start of a run to its stop the entries in the RunEngine's registry are
    replaced by ones that look at a clock and call them. A callback that is subscribed
    meanwhile is not seen. Nothing else looks at the RunEngine: a thread that asked
    Python for its frames could stand still for ever beside threads that Python did not
    make, such as those of PVAccess.
    """

    def __init__(self, RE: Any, database: Database) -> None:
        self._engine = RE
        self._database = database
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._open: set[str] = set()
        self._began = 0.0
        self._token: int | None = RE.subscribe(self._document)

    def close(self) -> None:
        """Stop watching; may be called again."""
        if self._token is not None:
            self._engine.unsubscribe(self._token)
            self._token = None
            self._unwrap()

    def _document(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            if not self._open:
                self._seconds.clear()
                self._began = time.perf_counter()
                self._wrap()
            self._open.add(doc["uid"])
        elif name == "stop":
            self._open.discard(doc["run_start"])
            if not self._open:
                self._unwrap()
                self._keep(doc["run_start"])

    def _wrap(self) -> None:
        for entries in self._registered():
            for number, entry in entries.items():
                if not isinstance(entry, _Timed):
                    entries[number] = _Timed(entry, self._seconds)

    def _unwrap(self) -> None:
        for entries in self._registered():
            for number, entry in entries.items():
                if isinstance(entry, _Timed):
                    entries[number] = entry.entry

    def _registered(self) -> list[dict[int, Any]]:
        """Return what is called for each kind of document, by its number."""
        return list(self._engine.dispatcher.cb_registry.callbacks.values())

    def _keep(self, run: str) -> None:
        passed = time.perf_counter() - self._began
        times = [
            SubscriberTime(name, seconds, seconds / passed if passed else 0.0, run)
            for name, seconds in self._seconds.items()
        ]
        try:
            store_subscribers(self._database, times)
        except DatabaseError as error:
            # A run is good without.
            logger.warning("the callbacks' times are not kept: %s", error)


class _Timed:
    """An entry of bluesky's registry that takes the time, and is equal to its own.

    Parameters
    ----------
    entry
        What bluesky made of a callback.
    seconds
        Where the time is added.
    """

    def __init__(self, entry: Any, seconds: defaultdict[str, float]) -> None:
        self.entry = entry
        # Looked at when bluesky compares entries, to remove one.
        self.func, self.inst = entry.func, entry.inst
        owner = None if entry.inst is None else entry.inst()
        # An object that can be called has no name of its own; a function has.
        named: Any = entry.func if owner is None else owner.__class__
        self._name: str = getattr(named, "__qualname__", named.__class__.__qualname__)
        self._seconds = seconds

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return self.entry(*args, **kwargs)
        finally:
            self._seconds[self._name] += time.perf_counter() - began

    def __eq__(self, other: object) -> bool:
        return bool(self.entry == other)

    def __hash__(self) -> int:
        return hash(self.entry)
