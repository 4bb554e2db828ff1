"""A RunEngine that a beamtime is attached to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluesky import RunEngine

    from bluesky_beamtime.plans import Preflight


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
    """

    def __init__(
        self,
        RE: RunEngine,
        callback: Callable[[str, Mapping[str, Any]], None],
        scan_ids: Callable[[Mapping[str, Any]], int],
    ) -> None:
        self.RE: Any = RE  # its methods lack annotations
        self._token: int = self.RE.subscribe(callback)
        self._owner = getattr(scan_ids, "__self__", None)
        self._earlier_source = self.RE.scan_id_source
        self.RE.scan_id_source = scan_ids
        self._preflight: Preflight | None = None
        self._report_token: int | None = None

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
        """Take everything out of the RunEngine."""
        self.RE.unsubscribe(self._token)
        self.report(None)
        self.check(None)
        if getattr(self.RE.scan_id_source, "__self__", None) is self._owner:
            self.RE.scan_id_source = self._earlier_source
