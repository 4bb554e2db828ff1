"""A count that any thread raises and that an ophyd-async signal follows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ophyd_async.core import SignalR, soft_signal_r_and_setter

PERIOD = 0.02
"""Seconds between two updates of the signal while frames stream in.

Each update wakes the event loop, which then fights with the camera's thread for the
interpreter; a progress bar needs no more."""


class FrameCounter:
    """Shows a frame count as a signal, whichever thread the frames come from.

    Setting a soft signal from a foreign thread does not wake the event loop, which then
    notices up to seconds later. Here the first frame and every :meth:`flush` wake it at
    once; frames in between share one update per :data:`PERIOD`.

    Parameters
    ----------
    loop
        The event loop of the device.
    name
        Name of the signal, for messages.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.loop = loop
        self.signal: SignalR[int]
        self._show: Callable[[int], None]
        self.signal, self._show = soft_signal_r_and_setter(int, 0, name=name)
        self.follower: Callable[[], None] = _nothing
        """Called in the event loop whenever the signal has changed."""
        self.limit: int | None = None
        """Highest count to show, whatever else has come; belongs to the event loop."""
        self._count = 0
        self._shown = 0
        self._pending = False

    @property
    def count(self) -> int:
        """The true count, which the signal may lag by :data:`PERIOD`."""
        return self._count

    def raise_to(self, count: int) -> None:
        """Set the count; from any thread."""
        self._count = count
        # A call that is pending reads the count after it has cleared the flag, so that
        # no count is missed and at most one call is under way.
        if not self._pending:
            self._pending = True
            call_soon(self.loop, self._follow)

    def flush(self) -> None:
        """Show the count without waiting for the period to end; from any thread."""
        call_soon(self.loop, self.sync)

    def sync(self) -> None:
        """Show the count now; in the event loop only."""
        count = self._due
        if count != self._shown:
            self._shown = count
            self._show(count)
            self.follower()

    @property
    def _due(self) -> int:
        count = self._count
        return count if self.limit is None else min(count, self.limit)

    def _follow(self) -> None:
        self.sync()
        self.loop.call_later(PERIOD, self._rearm)

    def _rearm(self) -> None:
        self._pending = False
        if self._due != self._shown:
            self._pending = True
            self._follow()


def _nothing() -> None: ...


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call something in the event loop; nothing happens if the loop is closed.

    A camera's thread may outlive the RunEngine that started it.
    """
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
