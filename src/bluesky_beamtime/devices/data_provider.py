"""One device's frames in a store, and the documents that announce them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

from bluesky.protocols import StreamAsset
from event_model import (
    ComposeStreamResource,
    ComposeStreamResourceBundle,
    DataKey,
    StreamDatum,
    StreamRange,
)
from ophyd_async.core import StreamableDataProvider

from bluesky_beamtime.devices.accounting import FrameSignals
from bluesky_beamtime.devices.datakeys import make_datakey
from bluesky_beamtime.devices.frame_form import FrameForm
from bluesky_beamtime.devices.frame_rows import FrameRows
from bluesky_beamtime.devices.positions import FrameTrack
from bluesky_beamtime.errors import DeviceError
from bluesky_beamtime.storage import FrameSink, FrameStore


class FrameDataProvider(FrameRows, StreamableDataProvider):
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
        super().__init__(frames, key, form=form, tracks=tracks, signals=signals)
        self._source = source
        self.announced = 0
        self.base = 0
        self._bundles: list[ComposeStreamResourceBundle] = []
        self._handed_out: list[StreamDatum] = []

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
