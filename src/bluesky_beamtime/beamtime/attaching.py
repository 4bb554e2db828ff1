"""A RunEngine that a beamtime is attached to."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluesky import RunEngine

    from bluesky_beamtime.plans import Preflight

# Those that only wait for the end of a run, until the same file is attached again.
_leaving: weakref.WeakSet[Attachment] = weakref.WeakSet()


class Attachment:
    """What a beamtime has put into a RunEngine, and how to take it out again.

    Parameters
    ----------
    RE
        The RunEngine.
    callback
        Takes its documents.
    scan_ids
        Source of scan numbers.
    path
        File of the beamtime. One of the same file that is leaving leaves at once: this
        one goes on with its runs.
    """

    def __init__(
        self,
        RE: RunEngine,
        callback: Callable[[str, Mapping[str, Any]], None],
        scan_ids: Callable[[Mapping[str, Any]], int],
        path: Path,
    ) -> None:
        self.RE: Any = RE  # its methods lack annotations
        self._callback = callback
        self._path = path
        # How those who look which callbacks are slow call it.
        self.__qualname__ = type(callback).__qualname__
        self._lock = threading.Lock()
        self._runs: set[str] = set()
        self._is_leaving = False
        # This object and not a method of it, to which RunEngines keep no strong
        # reference: who leaves may be the last to hold the beamtime.
        self._token: int = self.RE.subscribe(self)
        for other in tuple(_leaving):
            if other.RE is RE and other._path == path:
                self._runs |= other._runs
                other._leave()
        self._owner = getattr(scan_ids, "__self__", None)
        self._earlier_source = self.RE.scan_id_source
        self.RE.scan_id_source = scan_ids
        self._preflight: Preflight | None = None
        self._report_token: int | None = None

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Pass a document on, and note which runs are open."""
        if name == "start":
            with self._lock:
                # The end of an earlier run is not told to those who were subscribed
                # after a callback that raised. It is not among the runs of this plan.
                self._runs &= set(getattr(self.RE, "_run_start_uids", self._runs))
                if self._leave_if_over():
                    return
                self._runs.add(doc["uid"])
        try:
            self._callback(name, doc)
        finally:
            if name == "stop":
                with self._lock:
                    self._runs.discard(doc["run_start"])
                    self._leave_if_over()

    def _leave_if_over(self) -> bool:
        over = self._is_leaving and not self._runs
        if over:
            self._leave()
        return over

    def _leave(self) -> None:
        self.RE.unsubscribe(self._token)
        _leaving.discard(self)

    @property
    def between_runs(self) -> bool:
        """Whether a plan is paused while no run of it is open."""
        return getattr(self.RE, "state", None) == "paused" and not self._runs

    def report(self, stopped: Callable[[str, Mapping[str, Any]], None] | None) -> None:
        """Call something with the end of each run, in place of an earlier one."""
        if self._report_token is not None:
            self.RE.unsubscribe(self._report_token)
        self._report_token = None
        if stopped is not None:
            # After the recorder, which was subscribed before.
            self._report_token = self.RE.subscribe(stopped, "stop")

    def check(self, preflight: Preflight | None) -> None:
        """Put a pre-flight check into the RunEngine, in place of an earlier one."""
        if self._preflight is not None:
            with suppress(ValueError):  # somebody took it out
                self.RE.preprocessors.remove(self._preflight)
        self._preflight = preflight
        if preflight is not None:
            self.RE.preprocessors.append(preflight)

    def undo(self) -> None:
        """Take everything out of the RunEngine.

        Documents of runs that are open, and of runs that begin within them, are passed
        on until these have stopped.
        """
        self.report(None)
        self.check(None)
        if getattr(self.RE.scan_id_source, "__self__", None) is self._owner:
            self.RE.scan_id_source = self._earlier_source
        with self._lock:
            self._is_leaving = True
            if getattr(self.RE, "state", None) == "idle":
                self._runs.clear()
            if not self._leave_if_over():
                _leaving.add(self)
