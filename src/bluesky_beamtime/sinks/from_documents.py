"""Bluesky documents as readings and blocks, live or from a database."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, cast

import numpy as np

from bluesky_beamtime.sinks.announced_blocks import AnnouncedBlocks
from bluesky_beamtime.sinks.documents import (
    Document,
    Stream,
    began,
    run_metadata,
    text_of,
    time_of,
)
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading
from bluesky_beamtime.sinks.stored_arrays import open_stored
from bluesky_beamtime.sinks.texts import to_json

logger = logging.getLogger("bluesky_beamtime.sinks")

_SCALARS = (bool, int, float, str, type(None))

MATRIX_VALUES = 1024
"""An array of two or more dimensions with more values than these is a frame."""


class DocumentRecords:
    """Makes readings and blocks of the documents of one run, as they come.

    Each event becomes one reading for each object of it that has values: ``device`` is
    the object's name, ``task`` the plan's, ``t_utc`` the newest timestamp of its values
    and ``received_at`` the event's time; run, scan number, stream and ``seq_num`` stand
    in ``metadata``. Documents have no monotonic clock, so ``t_mono_ns`` is None. An
    array inside an event becomes JSON text; frames, which are arrays of two or more
    dimensions with more than 1024 values, are left out, and the log says so once.

    Data outside of events that are shaped ``(channels, samples)``, as a digitizer's
    are, become blocks. They are known by their dimensions, ``…_channel`` and
    ``…_sample``, or named.

    Parameters
    ----------
    readings, blocks
        What to make.
    block_keys
        Further data keys that hold blocks, without saying so in their dimensions.
    open_array
        Opens what a StreamResource tells of: an object with ``[start:stop]`` along its
        first axis. By default stock readers do, for Zarr and HDF5.
    patience
        Seconds that the end of the run waits for data outside of events that were
        announced and cannot be read yet, as in stores on a network disk. With 0 what
        cannot be read when it is announced is an error at once.
    """

    def __init__(
        self,
        *,
        readings: bool = True,
        blocks: bool = True,
        block_keys: Collection[str] = (),
        open_array: Callable[[Document], Any] | None = None,
        patience: float = 0.0,
    ) -> None:
        self._readings, self._blocks = readings, blocks
        self._start: Document = {}
        self._streams: dict[str, Stream] = {}
        self._left_out: set[str] = set()
        self._announced = AnnouncedBlocks(
            block_keys, open_array or open_stored, patience
        )

    def __call__(self, name: str, doc: Document) -> Iterator[DaqReading | DaqBlock]:
        """Yield the records that a document completes."""
        match name:
            case "start":
                self._start = self._announced.run_start = doc
            case "descriptor":
                self._streams[doc["uid"]] = Stream.of(doc)
            case "event" if self._readings:
                yield from self._of_event(doc)
            case "event_page" if self._readings:
                import event_model

                # Its generator has no types.
                for event in cast("Any", event_model).unpack_event_page(doc):
                    yield from self._of_event(event)
            case "stream_resource" if self._blocks:
                self._announced.add(doc)
            case "stream_datum" if self._blocks:
                stream = self._streams.get(doc["descriptor"])
                yield from self._announced.announce(doc, stream)
            case "stop":
                yield from self.end()
            case _:
                pass

    def end(self) -> Iterator[DaqBlock]:
        """Yield what still waits for more, of a run that has no end of its own.

        A recording that was killed may have announced blocks and not their times.

        Raises
        ------
        SinkError
            Something that was announced cannot be read; the rest has been yielded.
        """
        return self._announced.end()

    # ------------------------------------------------------------------------ events

    def _of_event(self, event: Document) -> Iterator[DaqReading]:
        stream = self._streams[event["descriptor"]]
        data, stamps = event["data"], event.get("timestamps", {})
        received = time_of(event.get("time"))
        for device, keys in stream.objects.items():
            values = {
                key: _value(data[key])
                for key in keys
                if key in data
                and not stream.data_keys.get(key, {}).get("external")
                and not self._is_frame(key, data[key])
            }
            if not values:
                continue
            taken = [time_of(stamps.get(key)) for key in values]
            known = [moment for moment in taken if moment is not None]
            moment = max(known) if known else received
            yield DaqReading(
                device=device,
                task=self._start.get("plan_name"),
                values=values,
                units={
                    key: text_of(stream.data_keys.get(key, {}).get("units"))
                    for key in values
                },
                t_mono_ns=None,
                t_utc=moment or began(self._start),
                received_at=received,
                metadata={
                    **run_metadata(self._start, stream),
                    "seq_num": event.get("seq_num"),
                    "event_uid": event.get("uid"),
                },
            )

    def _is_frame(self, key: str, value: Any) -> bool:
        """Say whether a value is too large for text, and log the first of its key."""
        shape = _shape(value)
        if len(shape) < 2 or math.prod(shape) <= MATRIX_VALUES:
            return False
        if key not in self._left_out:
            self._left_out.add(key)
            logger.warning("sinks.frames.left_out", extra={"key": key, "shape": shape})
        return True


def _shape(value: Any) -> tuple[int, ...]:
    """Return the shape of an array, or of lists by the first item of each."""
    if isinstance(value, np.ndarray):
        return cast("Any", value).shape
    if isinstance(value, (list, tuple)) and value:
        items = cast("list[Any]", value)
        return (len(items), *_shape(items[0]))
    return ()


def _value(value: Any) -> Any:
    plain: Any = value
    if isinstance(value, np.generic):
        plain = cast("Any", value).item()
    return plain if isinstance(plain, _SCALARS) else to_json(plain)
