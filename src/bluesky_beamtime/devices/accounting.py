"""What became of the frames that were asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from ophyd_async.core import Device, SignalR, soft_signal_r_and_setter


@dataclass
class FrameAccount:
    """What became of the exposures that were asked for, summed over acquisitions.

    One acquisition is what one ``trigger`` or ``kickoff`` begins.
    """

    expected: int = 0
    """Exposures asked for; of an acquisition until stopped, those that the source took:
    received and dropped ones."""
    received: int = 0
    """Exposures that arrived in time."""
    dropped: int = 0
    """Exposures that the source took and lost on the way, by gaps in their ids."""
    late: int = 0
    """Exposures that arrived when their acquisition was over; they are not stored."""
    repeated: int = 0
    """Exposures among those received whose id had come before."""
    live_time: float = 0.0
    """Seconds of exposure in what was received; an unknown exposure adds 0."""
    span: float = 0.0
    """Seconds from the beginning of the first exposure to the end of the last one, of
    each acquisition by itself."""
    storage_time: float = 0.0
    """Seconds that the source was held up while its frames were stored."""

    @property
    def dead_time(self) -> float | None:
        """Share of :attr:`span` in which no exposure that arrived was being taken.

        From 0 to 1; None if the exposure is not known. What was dropped is dead time.
        """
        return dead_time(self.live_time, self.span)

    def copy(self) -> FrameAccount:
        """Return the account as it is now."""
        return replace(self)

    def since(self, earlier: FrameAccount) -> FrameAccount:
        """Return what was added to an earlier copy of the account."""
        return FrameAccount(
            **{
                one.name: getattr(self, one.name) - getattr(earlier, one.name)
                for one in fields(self)
            }
        )

    def counters(self) -> dict[str, Any]:
        """Return the counters as they are stored with the frames."""
        counters = dict(vars(self))
        for name in ("live_time", "span", "storage_time"):
            counters[name] = round(counters[name], 6)
        return {**counters, "dead_time": self.dead_time}


def dead_time(live_time: float, span: float) -> float | None:
    """Return the share of a span that was not exposed; None if it is not known."""
    if live_time <= 0 or span <= 0:
        return None
    # Times of arrival jitter; exposures do not overlap.
    return round(max(0.0, 1 - live_time / span), 6)


class RunAccounts:
    """Divides the account of one array among the runs that share it.

    Runs of one staging write into the same arrays. Each has a StreamResource of its
    own, under whose uid its part stands.

    Parameters
    ----------
    account
        The account of the array, which others raise.
    """

    def __init__(self, account: FrameAccount) -> None:
        self._account = account
        self._done: dict[str, dict[str, Any]] = {}
        self._uid: str | None = None
        self._first = (FrameAccount(), 0)
        self._begun: tuple[FrameAccount, int] | None = None

    def acquisition_begins(self, rows: int) -> None:
        """Note where an acquisition begins: its run may be described only after it."""
        if self._begun is None:
            self._begun = (self._account.copy(), rows)

    def forget_acquisition(self) -> None:
        """Take what has begun for a part of the run that is known by now."""
        self._begun = None

    def begin(self, uid: str, rows: int) -> None:
        """Let a run begin with the acquisition that has begun, else from here."""
        first = self._begun or (self._account.copy(), rows)
        if self._uid is not None and self._uid != uid:
            part = self._part(*first)
            self._done[self._uid] = {**part, "stop_row": first[1]}
        self._uid, self._first = uid, first

    def _part(self, account: FrameAccount, rows: int) -> dict[str, Any]:
        before, first = self._first
        counters = account.since(before).counters()
        return {**counters, "written": rows - first, "first_row": first}

    def counters(self, rows: int) -> dict[str, dict[str, Any]]:
        """Return the part of each run, the newest last."""
        if self._uid is None:
            return {}
        return {**self._done, self._uid: self._part(self._account, rows)}


class FrameSignals(Device):
    """A :class:`FrameAccount` as signals that follow it.

    They tell of the store that the camera writes into: staging begins anew. While
    frames stream in they lag by up to 0.1 s, and they are exact when a status is done.

    Attributes
    ----------
    expected, received, dropped, late, repeated, written : SignalR of int
        Exposures as in :class:`FrameAccount`, and frames written.
    dead_time : SignalR of float
        From 0 to 1, NaN as long as it is not known.
    """

    def __init__(self, name: str = "") -> None:
        self._setters: dict[str, Callable[[Any], None]] = {}
        self._shown: dict[str, float] = {}
        self.expected = self._counter("expected")
        self.received = self._counter("received")
        self.dropped = self._counter("dropped")
        self.late = self._counter("late")
        self.repeated = self._counter("repeated")
        self.written = self._counter("written")
        self.dead_time: SignalR[float]
        self.dead_time, show = soft_signal_r_and_setter(float, float("nan"))
        self._setters["dead_time"] = show
        super().__init__(name=name)

    def _counter(self, name: str) -> SignalR[int]:
        signal, self._setters[name] = soft_signal_r_and_setter(int, 0)
        return signal

    def show(self, account: FrameAccount, written: int) -> None:
        """Let the signals say what the account says; in the event loop."""
        dead = account.dead_time
        values: dict[str, Any] = {
            **vars(account),
            "written": written,
            "dead_time": float("nan") if dead is None else dead,
        }
        for name, setter in self._setters.items():
            value = values[name]
            if self._shown.get(name) != value and (
                value == value or self._shown.get(name) is not None
            ):
                self._shown[name] = value
                setter(value)


class SlowFollower:
    """Calls something at most every ``period`` seconds, and at the end of a burst.

    Belongs to the event loop.

    Parameters
    ----------
    follow
        What to call.
    period
        Seconds.
    """

    def __init__(self, follow: Callable[[], None], period: float = 0.1) -> None:
        self._follow = follow
        self._period = period
        self._pending: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Call it within the period."""
        if self._pending is None:
            loop = asyncio.get_running_loop()
            self._pending = loop.call_later(self._period, self.now)

    def now(self) -> None:
        """Call it now."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        self._follow()
