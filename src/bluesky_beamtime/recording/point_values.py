"""Values of some fields of a stream, by sequence number, as documents tell them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.external import frames_per_event
from bluesky_beamtime.database.masked import without_mask
from bluesky_beamtime.storage import open_frames

Document = Mapping[str, Any]
_BLOCK_BYTES = 16 << 20

TIME = "time"
"""Asked for like a field: the times of the events, where no field is called so."""


@dataclass(frozen=True, slots=True)
class PointValues:
    """Values of one field at some points."""

    key: str
    """Data key."""
    seq_nums: NDArray[np.int64]
    """Sequence number of each point."""
    values: NDArray[Any]
    """One value or array for each, along the first axis."""


class PointReader:
    """Reads what events hold, and what StreamDatums promise, as the documents come.

    Parameters
    ----------
    stream
        Name of the stream.
    open_array
        Opens what a StreamResource tells of: frames along the first axis, with
        ``shape``, ``dtype`` and ``[start:stop]``. By default :func:`open_frames` does.
    """

    def __init__(
        self, stream: str, open_array: Callable[[Document], Any] | None = None
    ) -> None:
        self._stream = stream
        self._open_array = open_array or _open
        self._descriptors: set[str] = set()
        self._resources: dict[str, Document] = {}
        self.data_keys: dict[str, Document] = {}
        """What the descriptors of the stream say of its fields."""

    def descriptor(self, doc: Document) -> bool:
        """Take a descriptor, and return whether it is one of the stream."""
        if doc.get("name") != self._stream:
            return False
        self._descriptors.add(doc["uid"])
        self.data_keys |= doc["data_keys"]
        return True

    def resource(self, doc: Document) -> None:
        """Take a StreamResource."""
        self._resources[doc["uid"]] = doc

    def read(
        self, name: str, doc: Document, wanted: Collection[str]
    ) -> Iterator[PointValues]:
        """Yield the values of the wanted fields that a document brings.

        Frames are read some megabytes at a time.

        Raises
        ------
        StorageError
            Frames that are promised cannot be read.
        """
        if doc.get("descriptor") not in self._descriptors:
            return
        if name == "event":
            yield from self._of_event(doc, wanted)
        elif name == "event_page":
            import event_model

            # Its generator has no types.
            for event in cast("Any", event_model).unpack_event_page(doc):
                yield from self._of_event(event, wanted)
        elif name == "stream_datum":
            resource = self._resources.get(doc["stream_resource"])
            if resource is not None and resource["data_key"] in wanted:
                yield from self._of_datum(doc, resource)

    def _of_event(
        self, event: Document, wanted: Collection[str]
    ) -> Iterator[PointValues]:
        number = np.array([event["seq_num"]], np.int64)
        data = event["data"]
        for key in wanted:
            if key in data:
                # As the beamtime stores it.
                value = np.asarray(without_mask(data[key]))
                yield PointValues(key, number, value[np.newaxis])
        if TIME in wanted and TIME not in self.data_keys:
            yield PointValues(TIME, number, np.array([event["time"]], np.float64))

    def _of_datum(self, datum: Document, resource: Document) -> Iterator[PointValues]:
        key = resource["data_key"]
        array = self._open_array(resource)
        frame: tuple[int, ...] = tuple(array.shape[1:])
        each = frames_per_event(self.data_keys.get(key, {}), len(frame))
        frames = each or 1
        first, last = datum["indices"]["start"], datum["indices"]["stop"]
        bytes_each = frames * math.prod(frame) * int(array.dtype.itemsize)
        step = max(1, _BLOCK_BYTES // max(bytes_each, 1))
        offset = datum["seq_nums"]["start"] - first
        for start in range(first, last, step):
            stop = min(start + step, last)
            values: NDArray[Any] = np.asarray(array[start * frames : stop * frames])
            if each is not None:
                values = values.reshape(stop - start, each, *frame)
            numbers = np.arange(start, stop, dtype=np.int64) + offset
            yield PointValues(key, numbers, values)


def _open(resource: Document) -> Any:
    return open_frames(
        resource["uri"], resource["mimetype"], resource.get("parameters")
    )
