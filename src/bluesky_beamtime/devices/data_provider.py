"""One device's frames in a store: rows written, and documents that announce them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

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

from bluesky_beamtime.devices.accounting import FrameAccount
from bluesky_beamtime.devices.datakeys import frame_dims, make_datakey
from bluesky_beamtime.devices.progress import FrameCounter
from bluesky_beamtime.errors import SinkClosedError, StorageError
from bluesky_beamtime.storage import FrameSink, FrameStore

_logger = logging.getLogger("bluesky_beamtime.devices")

STAMP_BLOCK = 256
"""Stamps that are kept in memory at most before they are written."""


class FrameDataProvider(StreamableDataProvider):
    """Three sinks of one store, ``<key>``, ``<key>_time`` and ``<key>_id``, in step.

    A *row* is one collection: one frame in ``<key>`` and one number in each of the
    other two. Rows are written by the camera's thread, published and announced from the
    event loop. A row is announced only after all three arrays show it to a fresh
    reader.

    Parameters
    ----------
    frames
        The store.
    key
        Name of the data key of the frames.
    shape, dtype
        Of one frame.
    source
        What stands as ``source`` in the data keys.
    units
        Units of the frames.

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
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        source: str,
        units: str | None = None,
    ) -> None:
        self.key = key
        self._frames = frames
        self._source = source
        self._units = units
        self._lock = threading.Lock()
        self._closed = False
        self._refused = False
        self._sinks = _attach(frames, key, shape, dtype, units)
        self._image, self._time, self._id = self._sinks
        self._times: list[float] = []
        self._ids: list[int] = []
        self.account = FrameAccount()
        self.counter = FrameCounter(asyncio.get_running_loop(), f"{key}-written")
        self.collections_written_signal = self.counter.signal
        self.announced = 0
        self.base = 0
        self._bundles: list[ComposeStreamResourceBundle] = []
        self._handed_out: list[StreamDatum] = []

    @property
    def rows(self) -> int:
        """Rows written."""
        return self.counter.count

    @property
    def closed(self) -> bool:
        """Whether the sinks are closed."""
        return self._closed

    # ------------------------------------------------------------- any thread

    def write(self, frame: NDArray[Any], time: float, number: int) -> None:
        """Append one row; blocks until its frame would survive ``kill -9``.

        Parameters
        ----------
        frame
            The frame; its memory may be used again when this returns.
        time
            When it was taken, seconds since 1970.
        number
            The source's own number of it.

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
                # The frame is safe and belongs to the count, whatever its stamp meets.
                self.counter.raise_to(self.rows + 1)
                if len(self._times) >= STAMP_BLOCK:
                    self._write_stamps()
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

    def _write_stamps(self) -> None:
        _write_block(self._time, self._times)
        _write_block(self._id, self._ids)

    def _account(self) -> None:
        counters = {**self.account.counters(), "written": self.rows}
        # A store that was aborted has closed the sink already.
        with suppress(SinkClosedError):
            self._image.set_attributes({"accounting": counters})

    # -------------------------------------------------------- the event loop

    def skip(self, collections_per_event: int) -> None:
        """Do not announce the rows that are there and not announced yet.

        A trigger that is repeated after a pause, and an acquisition that was cut off,
        leave such rows: no event belongs to them.
        """
        self._take_back_lost()
        first = -(-self.rows // collections_per_event)
        self.base += first - self.announced
        self.announced = first

    def rows_missing(self, collections_per_event: int) -> int:
        """Return how many rows an event that was cut off lacks.

        The next event must begin at a multiple of ``collections_per_event``.
        """
        return -self.rows % collections_per_event

    def begin_stream(self, collections_per_event: int) -> None:
        """Count events from here: what follows belongs to a new stream."""
        self.skip(collections_per_event)
        self.base = self.announced

    async def make_datakeys(self, collections_per_event: int) -> dict[str, DataKey]:
        """Return the three data keys, and get ready for a new StreamResource.

        Called once per descriptor. Each run wants StreamResources of its own, so that
        those that a run has seen are replaced.
        """
        if not self._bundles or any(map(_was_emitted, self._bundles)):
            self._bundles = [self._compose(sink) for sink in self._sinks]
        n = collections_per_event
        image, time, number = self._sinks
        axis = f"{self.key}_frame"
        return {
            image.data_key: make_datakey(
                image,
                self._source,
                n,
                axis,
                self._units,
                frame_dims(self.key, image.shape),
            ),
            time.data_key: make_datakey(time, self._source, n, axis, "s"),
            number.data_key: make_datakey(number, self._source, n, axis),
        }

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
        """
        # Other devices use the event loop meanwhile, so it does not wait for a disk.
        published = await asyncio.to_thread(self.publish)
        self._take_back_lost()
        stop = min(collections_written, published) // collections_per_event
        if stop <= self.announced:
            return
        indices = StreamRange(start=self.announced, stop=stop)
        # The schema holds by construction, and the tests check it: validating each
        # document would cost as much as the event itself.
        self._handed_out = [
            bundle.compose_stream_datum(indices.copy(), validate=False)
            for bundle in self._bundles
        ]
        self.announced = stop
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
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    units: str | None,
) -> list[FrameSink]:
    """Attach the three sinks, or none."""
    sinks: list[FrameSink] = []
    try:
        sinks.append(
            frames.attach(
                key, dtype=dtype, shape=shape, units=units, dims=frame_dims(key, shape)
            )
        )
        sinks.append(frames.attach(f"{key}_time", dtype="<f8", shape=(), units="s"))
        sinks.append(frames.attach(f"{key}_id", dtype="<u8", shape=()))
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
