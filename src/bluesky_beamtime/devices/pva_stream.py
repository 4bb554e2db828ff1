"""One PVAccess subscription, from its first update to the last frame asked for."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bluesky_beamtime.devices.camera import FrameReceiver, FrameStamp
from bluesky_beamtime.devices.ntndarray import decode, unique_id
from bluesky_beamtime.devices.progress import call_soon
from bluesky_beamtime.devices.pva_client import PvaClient, PvaSubscription
from bluesky_beamtime.errors import SourceError

_logger = logging.getLogger("bluesky_beamtime.devices")

_MASK = 0xFFFFFFFF
_HALF = 0x7FFFFFFF

_GRACE = 1.0
"""Seconds that frames of a camera which rests may still be on their way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PvaOrder:
    """What is to be taken from an NTNDArray PV."""

    pv: str
    """Its name."""
    number: int
    """Frames to take, 0 for as many as come."""
    shape: tuple[int, ...]
    """Shape of the frames; others are refused."""
    dtype: np.dtype[Any]
    """Their dtype."""
    at_rest: bool
    """Whether the camera rests when the acquisition starts, so that the next frame is
    the first of it; a camera that runs freely is in the middle of an exposure."""
    patience: float
    """Seconds for which an IOC that goes away is waited for."""
    exactly: bool = False
    """Whether the camera takes just so many frames and rests, so that one which is lost
    is missing in the end; otherwise the next one takes its place."""
    resume: Callable[[float, int, Callable[[], bool]], bool] | None = None
    """Starts the camera again if it rests, and says whether it did; is given the
    seconds to wait for its PVs, the frames that are missing, and what says whether to
    give up. None if the camera is not ours to start."""
    look: Callable[[Any], None] | None = None
    """Is shown the structure of each frame before it is delivered."""


class PvaStream:
    """One subscription, from its first update to the last frame that was asked for.

    Made in the event loop; updates come in the thread of the queue.

    When the connection is lost the stream waits for the PV to return. If the same IOC
    goes on counting, what was lost meanwhile is the gap in its ids. If it counts anew
    it was restarted, and what it had not sent before nobody can know.

    Parameters
    ----------
    order
        What to take.
    receiver
        Where it goes.

    Attributes
    ----------
    connected : asyncio.Future
        Done when the PV has answered with the frame that it held before.
    failed : bool
        Whether the acquisition was told of a failure.
    interruptions : int
        How often the connection was lost and came back.
    """

    def __init__(self, order: PvaOrder, receiver: FrameReceiver) -> None:
        self.failed = False
        self.interruptions = 0
        self._order = order
        self._loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = self._loop.create_future()
        self._receiver = receiver
        # Frames after the one that was there which began before the acquisition.
        self._stale = 0 if order.at_rest else 1
        self._before: int | None = None
        self._newest = 0
        self._started = False
        self._seen = 0
        self._taken = 0
        self._first = True
        self._begun = 0
        self._gone: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._subscriptions: list[PvaSubscription] = []

    def subscribe(self, client: PvaClient, queue_size: int) -> None:
        """Subscribe; :attr:`connected` is done when the PV has answered."""
        request = f"record[queueSize={queue_size}]field()"
        self._subscriptions.append(
            PvaSubscription(client, self._order.pv, self._update, request)
        )

    def watch(self, client: PvaClient, acquire_pv: str) -> None:
        """Notice when a camera rests that takes just so many frames."""
        self._subscriptions.append(
            PvaSubscription(client, acquire_pv, self._acquire_changed)
        )

    def close(self) -> None:
        """Deliver no more; waits for a frame that is being delivered."""
        self._closing.set()
        for subscription in self._subscriptions:
            subscription.close()
        with self._lock:
            self._closed = True
        call_soon(self._loop, self._cancel_timer)

    @property
    def held(self) -> int:
        """The ``uniqueId`` of the newest frame that the PV has shown."""
        return self._newest

    # -------------------------------------------------- in the thread of the queue

    def _acquire_changed(self, value: Any) -> None:
        """Take note of the ``Acquire`` of a camera that takes so many and rests."""
        if isinstance(value, Exception):
            return
        # It rests until it is started.
        if int(value):
            self._started = True
        elif self._started:
            call_soon(self._loop, self._rest)

    def _update(self, value: Any) -> None:
        """Take an update."""
        with self._lock:
            if self._closed or self.failed:
                return
            try:
                if isinstance(value, Exception):
                    self._disconnected(value)
                elif self._gone is not None:
                    self._returned(value)
                else:
                    self._receive(value)
            except BaseException as error:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.failed = True
        self._receiver.fail(error)

    def _receive(self, value: Any) -> None:
        number = unique_id(value)
        if self._before is None:
            # What the PV held when we subscribed; what comes now is newer.
            self._before = self._newest = number
            call_soon(self._loop, self._connect)
            return
        self._seen += 1
        ahead = _ahead(number, self._before)
        # A counter that was reset: the updates are counted instead.
        if max(ahead, self._seen) <= self._stale:
            self._newest = number
            return
        if self._order.number and self._taken == self._order.number:
            return
        self._deliver(value, number, max(ahead, 0))

    def _deliver(self, value: Any, number: int, ahead: int) -> None:
        arrived = time.time()
        order = self._order
        frame = decode(order.pv, value)
        if frame.array.shape != order.shape or frame.array.dtype != order.dtype:
            raise self._misfit(frame.array)
        if order.look is not None:
            order.look(value)
        # The id of the first frame of a count does not show what is missing before it.
        lost = max(ahead - self._stale - 1, 0) if self._first else 0
        # Updates keep their order, so that an id behind the last one is of a new count.
        anew = self._taken > 0 and (self._first or _ahead(number, self._newest) < 0)
        stamp = FrameStamp(number, frame.time or arrived, lost, anew)
        self._receiver.frame(frame.array, stamp)
        self._first = False
        self._newest = number
        self._taken += 1

    def _misfit(self, array: np.ndarray[Any, Any]) -> SourceError:
        order = self._order
        return SourceError(
            f"frames of PV {order.pv!r} were {order.dtype} {order.shape} when the "
            f"acquisition began, and after {self._so_far()} frames one came that is "
            f"{array.dtype} {array.shape}; leave region, binning, data type and colour "
            "mode alone during a scan, then run it again: frames before are stored"
        )

    def _so_far(self) -> str:
        return f"{self._taken} of {self._order.number or 'endless'}"

    # ------------------------------------------------------- an IOC that goes away

    def _disconnected(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind != "Disconnected":
            raise SourceError(
                f"PV {self._order.pv!r} refused to send frames after {self._so_far()}: "
                f"{kind} {error}; look at its IOC"
            ) from error
        # A subscription begins as disconnected.
        if self._before is None or self._gone is not None:
            return
        if self._order.number and self._taken == self._order.number:
            return
        self._gone = time.monotonic()
        _logger.warning(
            "PV %r disconnected after %s frames; waiting %g s for its IOC",
            *(self._order.pv, self._so_far(), self._order.patience),
        )
        call_soon(self._loop, self._start_timer)

    def _returned(self, value: Any) -> None:
        """Go on after the connection was lost; this is what the PV holds now."""
        number = unique_id(value)
        gone, patience = self._gone or 0.0, self._order.patience
        ahead = _ahead(number, self._newest)
        if self._order.resume is None:
            # Beginning anew it would have to count up to where it was within this time.
            restarted = ahead < 0
        else:
            left = max(patience - (time.monotonic() - gone), 1.0)
            missing = max(self._order.number - self._taken, 0)
            restarted = self._order.resume(left, missing, self._closing.is_set)
        self._gone = None
        call_soon(self._loop, self._cancel_timer)
        self.interruptions += 1
        _logger.warning(
            "PV %r is back after %.1f s%s",
            *(self._order.pv, time.monotonic() - gone),
            ": its IOC was restarted" if restarted else "",
        )
        if restarted:
            self._before = self._newest = number
            self._stale, self._seen, self._first = 0, 0, True
            self._begun = self._taken
        elif ahead > 0:
            # The newest of those that we have missed.
            self._receive(value)

    # -------------------------------------------------------------- the event loop

    def _connect(self) -> None:
        if not self.connected.done():
            self.connected.set_result(None)

    def _start_timer(self) -> None:
        if self._gone is not None and not self._closed:
            self._timer = self._loop.call_later(self._order.patience, self._give_up)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rest(self) -> None:
        if not self._closed and self._gone is None:
            self._cancel_timer()
            self._timer = self._loop.call_later(_GRACE, self._end, self._newest)

    def _end(self, newest: int) -> None:
        """Say that no more comes, if nothing came of late."""
        if newest != self._newest or not self._lock.acquire(blocking=False):
            self._rest()
            return
        try:
            if not (self._closed or self.failed):
                wanted = self._order.number - self._begun
                taken = max(_ahead(newest, self._before or 0), 0)
                self._receiver.ended(max(wanted - taken, 0))
        finally:
            self._lock.release()

    def _give_up(self) -> None:
        # Whoever holds the lock is taking a frame, or starting the camera again.
        if self._gone is None or not self._lock.acquire(blocking=False):
            return
        try:
            if self._closed or self.failed:
                return
            self._fail(
                SourceError(
                    f"PV {self._order.pv!r} disconnected after {self._so_far()} frames "
                    f"and did not come back within {self._order.patience:g} s; check "
                    "its IOC, then run the scan again: frames before are stored"
                )
            )
        finally:
            self._lock.release()


def _ahead(number: int, before: int) -> int:
    """Return how far a 32-bit counter is ahead of where it was; negative: behind."""
    ahead = (number - before) & _MASK
    return ahead - _MASK - 1 if ahead > _HALF else ahead
