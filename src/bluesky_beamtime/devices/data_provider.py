"""One device's frames in a store: rows written, and documents that announce them."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time as clock
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, cast

import numpy as np
from bluesky.protocols import StreamAsset
from event_model import (
    ComposeStreamResource,
    ComposeStreamResourceBundle,
    DataKey,
    StreamDatum,
    StreamRange,
)
from numpy.typing import NDArray
from ophyd_async.core import StreamableDataProvider

from bluesky_beamtime.devices.accounting import (
    FrameAccount,
    FrameSignals,
    RunAccounts,
    SlowFollower,
)
from bluesky_beamtime.devices.datakeys import make_datakey
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


class FrameDataProvider(StreamableDataProvider):
    """Sinks of one store, ``<key>``, ``<key>_time``, ``<key>_id`` and more, in step.

    A *row* is one collection: one frame in ``<key>`` and one number in each of the
    others. Rows are written by the camera's thread, published and announced from the
    event loop. A row is announced only after all arrays show it to a fresh reader.

    Each axis that is followed adds ``<key>_<axis>``: where it was in the middle of the
    frame's exposure. That becomes known with the axis's next update, and until then the
    row is not complete: it is neither counted by the signal nor announced.

    Parameters
    ----------
    frames
        The store.
    key
        Name of the data key of the frames.
    form
        What one frame is like.
    source
        What stands as ``source`` in the data keys.
    tracks
        Axes whose position at each frame is recorded.
    signals
        Signals that shall follow the account.

    Notes
    -----
    Make it in the event loop of the device. Attaching to the store creates the arrays.

    ``base`` and ``announced`` count events from the beginning of the arrays:
    ``announced`` is where the next StreamDatum begins, ``base`` where the current
    stream begins to count. They differ from zero when rows were skipped, or when an
    earlier run of the same staging has used the arrays.
    """

    def __init__(
        self,
        frames: FrameStore,
        key: str,
        *,
        form: FrameForm,
        source: str,
        tracks: Sequence[FrameTrack] = (),
        signals: FrameSignals | None = None,
    ) -> None:
        self.key = key
        self.form = form
        self.tracks = tuple(tracks)
        self._frames = frames
        self._source = source
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
        self.announced = 0
        self.base = 0
        self._bundles: list[ComposeStreamResourceBundle] = []
        self._handed_out: list[StreamDatum] = []

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

    def skip(self, collections_per_event: int, rows: int | None = None) -> None:
        """Do not announce the rows that are there and not announced yet.

        A trigger that is repeated after a pause, and an acquisition that was cut off,
        leave such rows: no event belongs to them. With ``rows`` only the first so many
        are meant: an acquisition that waits for external triggers may have begun.
        """
        self._take_back_lost()
        with self._lock:
            self._settle(all_of_them=True)
        first = -(-(self.rows if rows is None else rows) // collections_per_event)
        self.base += first - self.announced
        self.announced = first

    def rows_missing(self, collections_per_event: int) -> int:
        """Return how many rows an event that was cut off lacks.

        The next event must begin at a multiple of ``collections_per_event``.
        """
        return -self.rows % collections_per_event

    def begin_stream(self, collections_per_event: int, rows: int | None = None) -> None:
        """Count events from here: what follows belongs to a new stream.

        With ``rows`` that is what follows these, of an acquisition that has begun.
        """
        self.skip(collections_per_event, rows)
        self.base = self.announced
        if rows is None:
            self._runs.forget_acquisition()

    async def make_datakeys(self, collections_per_event: int) -> dict[str, DataKey]:
        """Return the data keys, and get ready for a new StreamResource.

        Called once per descriptor. Each run wants StreamResources of its own, so that
        those that a run has seen are replaced.
        """
        if not self._bundles or any(map(_was_emitted, self._bundles)):
            self._bundles = [self._compose(sink) for sink in self._sinks]
        self._runs.begin(self._bundles[0].stream_resource_doc["uid"], self._rows)
        n = collections_per_event
        image, time, number = self._sinks[:3]
        axis = f"{self.key}_frame"
        keys = {
            image.data_key: self.form.describe(
                self.key,
                make_datakey(
                    image,
                    self._source,
                    n,
                    axis,
                    self.form.units,
                    self.form.dims(self.key),
                ),
            ),
            time.data_key: make_datakey(time, self._source, n, axis, "s"),
            number.data_key: make_datakey(number, self._source, n, axis),
        }
        if self._exact_time is not None:
            key = make_datakey(self._exact_time, self._source, n, axis, "ns")
            exact = cast("DataKey", {**key, "coordinate_of": self.key})
            keys[self._exact_time.data_key] = exact
        for sink, pending, _ in self._axes:
            track = pending.track
            key = make_datakey(sink, track.source, n, axis, track.units)
            # For those who read: it tells where each frame of that key was taken.
            keys[sink.data_key] = cast("DataKey", {**key, "coordinate_of": self.key})
        return keys

    @staticmethod
    def _compose(sink: FrameSink) -> ComposeStreamResourceBundle:
        return ComposeStreamResource()(
            mimetype=sink.mimetype,
            uri=sink.uri,
            data_key=sink.data_key,
            parameters=sink.parameters,
        )

    async def make_stream_docs(
        self, collections_written: int, collections_per_event: int
    ) -> AsyncIterator[StreamAsset]:
        """Publish, then announce what was not announced, up to a row.

        Parameters
        ----------
        collections_written
            The row, counted from the beginning of the arrays.
        collections_per_event
            Rows of one event.

        Raises
        ------
        StoreWriteError
            The disk refused; nothing is announced.
        DeviceError
            The stream's descriptor does not tell of these arrays.
        """
        # Other devices use the event loop meanwhile, so it does not wait for a disk.
        published = await asyncio.to_thread(self.publish)
        self._take_back_lost()
        stop = min(collections_written, published) // collections_per_event
        if stop <= self.announced:
            return
        if not self._bundles:
            raise DeviceError(
                f"{self.key} was prepared for other frames than those that this stream "
                f"was described with, and gives {self.form.dtype} of "
                f"{self.form.shape} now; begin a new stream or a new run for them"
            )
        indices = StreamRange(start=self.announced, stop=stop)
        # The schema holds by construction, and the tests check it: validating each
        # document would cost as much as the event itself.
        self._handed_out = [
            bundle.compose_stream_datum(indices.copy(), validate=False)
            for bundle in self._bundles
        ]
        self.announced = stop
        self._runs.forget_acquisition()
        for bundle in self._bundles:
            if not _was_emitted(bundle):
                yield "stream_resource", bundle.stream_resource_doc
        for datum in self._handed_out:
            yield "stream_datum", datum

    def _take_back_lost(self) -> None:
        """Announce rows again whose documents were handed out and never emitted.

        A pause can interrupt the RunEngine between collecting documents and emitting
        them, and an event can be dropped. It fills in the run of each StreamResource
        that it emits, and the descriptor of each StreamDatum.
        """
        if any(not datum["descriptor"] for datum in self._handed_out):
            self.announced = self._handed_out[0]["indices"]["start"]
        self._handed_out = []


def _was_emitted(bundle: ComposeStreamResourceBundle) -> bool:
    return "run_start" in bundle.stream_resource_doc


def _attach(
    frames: FrameStore,
    key: str,
    form: FrameForm,
    tracks: Sequence[FrameTrack] = (),
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
