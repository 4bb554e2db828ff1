"""One acquisition as it comes in: frames counted, averaged, stored, or refused."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.devices.data_provider import FrameDataProvider
from bluesky_beamtime.devices.frame_form import FrameForm
from bluesky_beamtime.devices.frame_ids import FrameIds
from bluesky_beamtime.devices.progress import call_soon
from bluesky_beamtime.errors import DroppedFramesError

if TYPE_CHECKING:
    from bluesky_beamtime.devices.camera import FrameStamp


class Reception:
    """What a frame source delivers to during one acquisition.

    Implements :class:`~bluesky_beamtime.devices.FrameReceiver`; :meth:`frame` and
    :meth:`fail` may be called from any thread, everything else belongs to the event
    loop.

    Parameters
    ----------
    provider
        Where rows go.
    number
        Exposures to take, 0 for as many as come until :meth:`stop`.
    exposures_per_collection
        Exposures that are averaged into one row.
    exposure
        Seconds of one exposure, 0 if unknown.
    fail_on_drop
        Whether a frame that was lost ends the acquisition with an error.
    id_range
        As for :class:`~bluesky_beamtime.devices.frame_ids.FrameIds`.
    """

    def __init__(
        self,
        provider: FrameDataProvider,
        number: int,
        exposures_per_collection: int = 1,
        *,
        exposure: float = 0.0,
        fail_on_drop: bool = False,
        id_range: tuple[int, int] | None = None,
    ) -> None:
        self.number = number
        self.received = 0
        self.failure: BaseException | None = None
        self.failure_told = False
        self.stopped = False
        self.over: asyncio.Future[None] = provider.counter.loop.create_future()
        """Done when all exposures are in, the acquisition failed, or was stopped."""
        self._loop = provider.counter.loop
        self._provider = provider
        self._account = provider.account
        self._mean = _Mean(exposures_per_collection, provider.form)
        self._ids = FrameIds(id_range)
        self._exposure = exposure
        self._fail_on_drop = fail_on_drop
        self._latest: float | None = None
        self._before = self._account.copy()
        self._lock = threading.Lock()
        provider.acquisition_begins()
        self._account.expected += number

    @property
    def complete(self) -> bool:
        """Whether every exposure that was asked for is in, of a given number."""
        return 0 < self.number <= self.received

    @property
    def cut_off(self) -> bool:
        """Whether it was stopped before the exposures that were asked for were in."""
        return self.stopped and self.number > 0

    # ------------------------------------------------------------- any thread

    def frame(self, array: NDArray[Any], stamp: FrameStamp | None = None) -> None:
        """Store one exposure; see :class:`~bluesky_beamtime.devices.FrameReceiver`."""
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if self.stopped or self.complete:
                self._account.late += 1
                call_soon(self._loop, self._provider.account_changed)
                return
            try:
                self._take(array, stamp)
            except BaseException as error:
                self._end(error)
                raise
            if self.complete:
                self._end()

    def fail(self, error: BaseException) -> None:
        """End the acquisition with an error; the first one counts."""
        with self._lock:
            self._end(error)

    def ended(self, lost: int = 0) -> None:
        """Take note that no more comes; see :class:`FrameReceiver`."""
        with self._lock:
            if self.failure is not None or self.stopped or self.complete:
                return
            self._account.dropped += max(lost, 0)
            if not self.number:
                self._account.expected += max(lost, 0)
            if self.number or (lost > 0 and self._fail_on_drop):
                self._end(self._dropped_error())
            else:
                self._end()

    def _take(self, array: NDArray[Any], stamp: FrameStamp | None) -> None:
        arrived = time.time()
        known = None if stamp is None else stamp.seconds
        if known is None:
            # What arrives has just been exposed.
            taken, began = arrived, arrived - self._exposure
        else:
            taken = began = known
        dropped = self._account.dropped
        number = self._number(stamp)
        exact = None if stamp is None else stamp.time_ns
        middle = began + self._exposure / 2
        row = self._mean.add(array, taken, number, middle, exact)
        if row is not None:
            waited = time.perf_counter()
            self._provider.write(*row)
            self._account.storage_time += time.perf_counter() - waited
        self.received += 1
        self._account.received += 1
        if not self.number:
            self._account.expected += 1 + self._account.dropped - dropped
        self._time(began)
        if self._fail_on_drop and self._account.dropped > dropped:
            self._end(self._dropped_error())

    def _time(self, began: float) -> None:
        """Account for the time of an exposure."""
        account = self._account
        account.live_time += self._exposure
        if self._latest is None:
            account.span += self._exposure
            self._latest = began
        elif began > self._latest:
            account.span += began - self._latest
            self._latest = began

    def _number(self, stamp: FrameStamp | None) -> int:
        """Return the id of an exposure, and count those that were lost before it."""
        if stamp is None:
            return self._account.received
        account, ids = self._account, self._ids
        if stamp.lost > 0:
            account.dropped += stamp.lost
        if stamp.id is None:
            return account.received
        if stamp.anew:
            ids.begin_anew()
        lost, repeated = ids.lost, ids.repeated
        ids.take(stamp.id)
        account.dropped += ids.lost - lost
        account.repeated += ids.repeated - repeated
        return stamp.id

    def _dropped_error(self) -> DroppedFramesError:
        here = self._account.since(self._before)
        return DroppedFramesError(
            self._provider.key, here.dropped, self.received, self.number
        )

    def _end(self, error: BaseException | None = None) -> None:
        # What is complete can fail no more, unless something is missing in it.
        final = self.complete and not isinstance(error, DroppedFramesError)
        if error is not None and self.failure is None and not final:
            self.failure = error
        # The signal is brought up to the last row before anybody learns of the end.
        self._provider.counter.flush()
        call_soon(self._loop, self._settle)

    # -------------------------------------------------------- the event loop

    def stop(self) -> None:
        """Accept no more; after the source was told to stop."""
        if not self.complete:
            self.stopped = True
        self._provider.counter.sync()
        self._settle()

    def _settle(self) -> None:
        self._provider.show_account()
        if not self.over.done():
            self.over.set_result(None)


class _Mean:
    """Averages groups of exposures into rows of the same dtype.

    Integers are rounded half to even. The row's time and id are those of the first
    exposure of its group, and its moment is in the middle of them all.
    """

    def __init__(self, size: int, form: FrameForm) -> None:
        self._size = size
        self._form = form
        self._count = 0
        self._total: NDArray[Any] | None = None
        self._stamp: tuple[float, int, float, int | None] = (0.0, 0, 0.0, None)

    def add(
        self,
        array: NDArray[Any],
        taken: float,
        number: int,
        moment: float,
        exact: int | None = None,
    ) -> tuple[NDArray[Any], float, int, float, int | None] | None:
        """Return a row when the group is full."""
        if self._size == 1:
            return array, taken, number, moment, exact
        array = np.asarray(array)
        if array.shape != self._form.shape or array.dtype != self._form.dtype:
            # Numpy would broadcast and convert what the store is going to refuse.
            return array, taken, number, moment, exact
        if self._total is None:
            self._total = array.astype(_wide(array.dtype))
            self._stamp = (taken, number, moment, exact)
        else:
            self._total += array
        self._count += 1
        if self._count < self._size:
            return None
        mean = self._total / self._size
        if array.dtype.kind in "iub":
            mean = np.rint(mean)
        self._total, self._count = None, 0
        taken, number, first, exact = self._stamp
        return mean.astype(array.dtype), taken, number, (first + moment) / 2, exact


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype in which many exposures can be summed."""
    if dtype.kind == "c":
        return np.dtype(np.complex128)
    if dtype.kind in "iu" and dtype.itemsize == 8:
        return np.dtype(np.longdouble)
    return np.dtype(np.float64)
