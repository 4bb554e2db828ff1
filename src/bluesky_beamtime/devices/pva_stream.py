"""One PVAccess subscription, from its first update to the last frame asked for."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from bluesky_beamtime.devices.camera import FrameReceiver, FrameStamp
from bluesky_beamtime.devices.ntndarray import decode
from bluesky_beamtime.errors import SourceError


class PvaStream:
    """One subscription, from its first update to the last frame that was asked for.

    Made in the event loop; updates come in the thread of the queue.

    Parameters
    ----------
    pv
        Name of the NTNDArray PV.
    number
        Frames to take, 0 for as many as come.
    receiver
        Where they go.
    driven
        Whether the camera rests when the acquisition starts, so that the next frame is
        the first of it; a camera that runs freely is in the middle of an exposure.

    Attributes
    ----------
    connected : asyncio.Future
        Done when the PV has answered with the frame that it held before.
    failed : bool
        Whether the acquisition was told of a failure.
    """

    def __init__(
        self, pv: str, number: int, receiver: FrameReceiver, driven: bool
    ) -> None:
        self.failed = False
        self._loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = self._loop.create_future()
        self._pv = pv
        self._number = number
        self._receiver = receiver
        # Frames after the one that was there which began before the acquisition.
        self._stale = 0 if driven else 1
        self._before: int | None = None
        self._seen = 0
        self._taken = 0
        self._closed = False
        self._lock = threading.Lock()
        self._subscription: Any = None

    def subscribe(self, context: Any, queue: Any, queue_size: int) -> None:
        """Subscribe; :attr:`connected` is done when the PV has answered."""
        self._subscription = context.monitor(
            self._pv,
            self._update,
            request=f"record[queueSize={queue_size}]field()",
            notify_disconnect=True,
            queue=queue,
        )

    def close(self) -> None:
        """Deliver no more; waits for a frame that is being delivered."""
        self._subscription.close()
        with self._lock:
            self._closed = True

    def _update(self, value: Any) -> None:
        """Take an update, in the thread of the source."""
        with self._lock:
            if self._closed or self.failed:
                return
            try:
                if isinstance(value, Exception):
                    self._disconnected(value)
                else:
                    self._receive(value)
            except BaseException as error:
                self.failed = True
                self._receiver.fail(error)

    def _disconnected(self, error: Exception) -> None:
        # Every subscription begins as disconnected.
        if self._before is None and type(error).__name__ == "Disconnected":
            return
        raise SourceError(
            f"PV {self._pv!r} disconnected after {self._taken} of "
            f"{self._number or 'endless'} frames ({type(error).__name__}); check its "
            "IOC, then run the scan again: frames before are stored"
        ) from error

    def _receive(self, value: Any) -> None:
        arrived = time.time()
        number = int(value["uniqueId"]) & 0xFFFFFFFF
        if self._before is None:
            # What the PV held when we subscribed; what comes now is newer.
            self._before = number
            self._loop.call_soon_threadsafe(self._connect)
            return
        self._seen += 1
        ahead = (number - self._before) & 0xFFFFFFFF
        if ahead > 0x7FFFFFFF:
            # The counter was reset: count updates instead.
            ahead = 0
        if max(ahead, self._seen) <= self._stale:
            return
        if self._number and self._taken == self._number:
            return
        frame = decode(self._pv, value)
        lost = ahead - self._stale - 1 if self._taken == 0 else 0
        stamp = FrameStamp(frame.id, frame.time or arrived, max(lost, 0))
        self._receiver.frame(frame.array, stamp)
        self._taken += 1

    def _connect(self) -> None:
        if not self.connected.done():
            self.connected.set_result(None)
