"""One device's frames on their way into a store, row by row."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time as clock
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.devices.accounting import (
    FrameAccount,
    FrameSignals,
    RunAccounts,
    SlowFollower,
)
from bluesky_beamtime.devices.frame_form import FrameForm
from bluesky_beamtime.devices.positions import FrameTrack, PendingPositions
from bluesky_beamtime.devices.progress import FrameCounter, call_soon
from bluesky_beamtime.errors import DeviceError, SinkClosedError, StorageError
from bluesky_beamtime.storage import FrameSink, FrameStore

_logger = logging.getLogger("bluesky_beamtime.devices")

STAMP_BLOCK = 256
"""Stamps that are kept in memory at most before they are written."""

ACCOUNT_PERIOD = 0.05
"""Seconds after which the counters in the array's attributes are renewed."""

_SETTLE_PERIOD = 0.05


class FrameRows:
    """Rows in the sinks of one store; see :class:`FrameDataProvider`."""

    def __init__(
        self,
        frames: FrameStore,
        key: str,
        *,
        form: FrameForm,
        tracks: Sequence[FrameTrack],
        signals: FrameSignals | None,
    ) -> None:
        self.key = key
        self.form = form
        self.tracks = tuple(tracks)
        self._frames = frames
        self._lock = threading.Lock()
        self._closed = False
        self._refused = False
        self._sinks = _attach(frames, key, form, tracks)
        self._image, self._time, self._id, *axes = self._sinks
        self._exact_time = axes.pop() if form.exact_times else None
        self._axes = [
            (sink, PendingPositions(track), list[float]())
            for sink, track in zip(axes, tracks, strict=True)
        ]
        self._times: list[float] = []
        self._ids: list[int] = []
        self._exact_times: list[int] = []
        self._rows = 0
        self.account = FrameAccount()
        self._runs = RunAccounts(self.account)
        self._accounted = -math.inf
        self._settling: asyncio.Task[None] | None = None
        self.counter = FrameCounter(asyncio.get_running_loop(), f"{key}-written")
        self.collections_written_signal = self.counter.signal
        self._signals = signals
        self._shown = SlowFollower(self._show)
        self.counter.follower = self._shown.soon
        self.show_account()

    @property
    def rows(self) -> int:
        """Frames written; a row may still wait for the position of an axis."""
        return self._rows

    @property
    def closed(self) -> bool:
        """Whether the sinks are closed."""
        return self._closed

    # ------------------------------------------------------------- any thread

    def write(
        self,
        frame: NDArray[Any],
        time: float,
        number: int,
        moment: float | None = None,
        exact: int | None = None,
    ) -> None:
        """Append one row; blocks until its frame would survive ``kill -9``.

        Parameters
        ----------
        frame
            The frame; its memory may be used again when this returns.
        time
            When it was taken, seconds since 1970.
        number
            The source's own number of it.
        moment
            The middle of its exposure, when positions are wanted; by default ``time``.
        exact
            The time in nanoseconds since 1970, of a form that has exact times; by
            default ``time`` as exact as that is.

        Raises
        ------
        FrameMismatchError, StoreWriteError, SinkClosedError
            What the store raised; the row is not counted.
        """
        with self._lock:
            try:
                self._image.write(frame)
                self._times.append(time)
                self._ids.append(number)
                if self._exact_time is not None:
                    self._exact_times.append(
                        round(time * 1e9) if exact is None else exact
                    )
                # The frame is safe and belongs to the count, whatever its stamp meets.
                self._rows += 1
                if self._axes:
                    for _, pending, _ in self._axes:
                        pending.add(time if moment is None else moment)
                    self._settle()
                    call_soon(self.counter.loop, self._settle_later)
                else:
                    self.counter.raise_to(self._rows)
                if len(self._times) >= STAMP_BLOCK:
                    self._write_stamps()
                if clock.monotonic() - self._accounted > ACCOUNT_PERIOD:
                    self._account()
            except BaseException:
                self._refused = True
                raise

    def publish(self) -> int:
        """Let fresh readers see every row; return how many all three arrays show.

        Raises
        ------
        StoreWriteError
            The disk refused.
        """
        with self._lock:
            try:
                if not self._closed:
                    self._write_stamps()
                    self._account()
                return min(sink.publish() for sink in self._sinks)
            except BaseException:
                self._refused = True
                raise

    def close(self) -> None:
        """Publish the exact length and detach from the store; may be called again.

        Raises
        ------
        StoreWriteError
            The disk refused, and nobody was told before.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            failures: list[StorageError] = []
            try:
                self._settle(all_of_them=True)
                self._write_stamps()
            except StorageError as error:
                failures.append(error)
            self._account()
            for sink in self._sinks:
                try:
                    self._frames.detach(sink)
                except StorageError as error:
                    failures.append(error)
        for failure in failures:
            if not self._refused:
                raise failure
            # The plan has failed for this already; let the clean-up go on.
            _logger.warning("%s: while closing: %s", self.key, failure)

    def _settle(self, *, all_of_them: bool = False) -> None:
        """Take the positions that have become known, and count complete rows."""
        if not self._axes:
            return
        for _, pending, values in self._axes:
            values += pending.take(all_of_them=all_of_them)
        settled = min(pending.settled for _, pending, _ in self._axes)
        if settled > self.counter.count:
            self.counter.raise_to(settled)

    def _write_stamps(self) -> None:
        _write_block(self._time, self._times)
        _write_block(self._id, self._ids)
        if self._exact_time is not None:
            _write_block(self._exact_time, self._exact_times)
        for sink, _, values in self._axes:
            _write_block(sink, values)

    def _account(self) -> None:
        self._accounted = clock.monotonic()
        counters = {**self.account.counters(), "written": self._rows}
        counters["runs"] = self._runs.counters(self._rows)
        # A store that was aborted has closed the sink already.
        with suppress(SinkClosedError):
            self._image.set_attributes({"accounting": counters})

    # -------------------------------------------------------- the event loop

    def acquisition_begins(self) -> None:
        """Note that what is counted from here on belongs to an acquisition."""
        self._runs.acquisition_begins(self._rows)

    def account_changed(self) -> None:
        """Let the signals follow the account soon."""
        self._shown.soon()

    def show_account(self) -> None:
        """Let the signals say what the account says now."""
        self._shown.now()

    def _show(self) -> None:
        if self._signals is not None:
            self._signals.show(self.account, self._rows)

    def _settle_later(self) -> None:
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle_all())

    async def _settle_all(self) -> None:
        """Complete rows as their axes tell where they are."""
        while not self._closed and any(len(axis[1]) for axis in self._axes):
            await asyncio.sleep(_SETTLE_PERIOD)
            # Who holds the lock may be waiting for a disk, and settles by itself.
            if self._lock.acquire(blocking=False):
                try:
                    self._settle()
                finally:
                    self._lock.release()

    async def settled(self) -> None:
        """Wait until every row is complete, for as long as a frame waits at most."""
        while not self._closed and self.counter.count < self._rows:
            await asyncio.sleep(_SETTLE_PERIOD / 2)
        self.counter.sync()


def _attach(
    frames: FrameStore,
    key: str,
    form: FrameForm,
    tracks: Sequence[FrameTrack],
) -> list[FrameSink]:
    """Attach all sinks, or none."""
    sinks: list[FrameSink] = []
    try:
        sinks.append(
            frames.attach(
                key,
                dtype=form.dtype,
                shape=form.shape,
                units=form.units,
                dims=form.dims(key),
                metadata=form.metadata or None,
            )
        )
        sinks.append(frames.attach(f"{key}_time", dtype="<f8", shape=(), units="s"))
        sinks.append(frames.attach(f"{key}_id", dtype="<u8", shape=()))
        for track in tracks:
            name = f"{key}_{track.name}"
            if name in [sink.data_key for sink in sinks]:
                raise DeviceError(
                    f"the positions of {track.name!r} at the frames of {key!r} would "
                    f"be called {name!r}, as something else is; name the axis anew"
                )
            sinks.append(frames.attach(name, dtype="<f8", shape=(), units=track.units))
        if form.exact_times:
            sinks.append(frames.attach(f"{key}_t0", dtype="<i8", shape=(), units="ns"))
    except BaseException:
        for sink in sinks:
            frames.detach(sink)
        raise
    return sinks


def _write_block(sink: FrameSink, values: list[Any]) -> None:
    """Write numbers and take those that are safe out of the list."""
    if not values:
        return
    before = sink.frames_written
    try:
        sink.write_many(np.array(values, sink.dtype))
    finally:
        del values[: sink.frames_written - before]
