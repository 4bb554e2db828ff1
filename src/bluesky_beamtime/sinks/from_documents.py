"""Bluesky documents as readings and blocks, live or from a database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.sinks.records import DaqBlock, DaqReading
from bluesky_beamtime.sinks.stored_arrays import open_stored
from bluesky_beamtime.sinks.texts import to_json

Document = Mapping[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SCALARS = (bool, int, float, str, type(None))


@dataclass(frozen=True, slots=True)
class _Stream:
    """What a descriptor says."""

    name: str
    data_keys: Mapping[str, Document]
    objects: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, descriptor: Document) -> _Stream:
        name = descriptor.get("name", "")
        keys = descriptor["data_keys"]
        objects = dict(descriptor.get("object_keys") or {})
        claimed = {key for each in objects.values() for key in each}
        # What no object claims is the stream's.
        if rest := [key for key in keys if key not in claimed]:
            objects[name] = [*objects.get(name, ()), *rest]
        return cls(name, keys, objects)

    def object_of(self, key: str) -> str:
        return next((name for name, keys in self.objects.items() if key in keys), key)


class DocumentRecords:
    """Makes readings and blocks of the documents of one run, as they come.

    Each event becomes one reading for each object of it that has values: ``device`` is
    the object's name, ``task`` the plan's, ``t_utc`` the newest timestamp of its values
    and ``received_at`` the event's time; run, scan number, stream and ``seq_num`` stand
    in ``metadata``. Documents have no monotonic clock, so ``t_mono_ns`` is None. An
    array inside an event becomes JSON text.

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
    """

    def __init__(
        self,
        *,
        readings: bool = True,
        blocks: bool = True,
        block_keys: Collection[str] = (),
        open_array: Callable[[Document], Any] | None = None,
    ) -> None:
        self._readings, self._blocks = readings, blocks
        self._block_keys = frozenset(block_keys)
        self._open_array = open_array or open_stored
        self._start: Document = {}
        self._streams: dict[str, _Stream] = {}
        self._resources: dict[str, Document] = {}
        self._arrays: dict[str, Document] = {}
        self._published: dict[str, int] = {}
        self._waiting: list[Document] = []

    def __call__(self, name: str, doc: Document) -> Iterator[DaqReading | DaqBlock]:
        """Yield the records that a document completes."""
        match name:
            case "start":
                self._start = doc
            case "descriptor":
                self._streams[doc["uid"]] = _Stream.of(doc)
            case "event" if self._readings:
                yield from self._of_event(doc)
            case "event_page" if self._readings:
                import event_model

                # Its generator has no types.
                for event in cast("Any", event_model).unpack_event_page(doc):
                    yield from self._of_event(event)
            case "stream_resource" if self._blocks:
                self._resources[doc["uid"]] = doc
                self._arrays[doc["data_key"]] = doc
            case "stream_datum" if self._blocks:
                yield from self._of_datum(doc)
            case "stop":
                waiting, self._waiting = self._waiting, []
                for datum in waiting:
                    yield from self._read_blocks(datum)
            case _:
                pass

    # ------------------------------------------------------------------------ events

    def _of_event(self, event: Document) -> Iterator[DaqReading]:
        stream = self._streams[event["descriptor"]]
        data, stamps = event["data"], event.get("timestamps", {})
        received = _time(event.get("time"))
        for device, keys in stream.objects.items():
            values = {
                key: _value(data[key])
                for key in keys
                if key in data and not stream.data_keys.get(key, {}).get("external")
            }
            if not values:
                continue
            taken = [_time(stamps.get(key)) for key in values]
            known = [moment for moment in taken if moment is not None]
            moment = max(known) if known else received
            yield DaqReading(
                device=device,
                task=self._start.get("plan_name"),
                values=values,
                units={
                    key: _text(stream.data_keys.get(key, {}).get("units"))
                    for key in values
                },
                t_mono_ns=None,
                t_utc=moment or _time(self._start.get("time")) or _EPOCH,
                received_at=received,
                metadata={
                    **self._run_metadata(stream),
                    "seq_num": event.get("seq_num"),
                    "event_uid": event.get("uid"),
                },
            )

    def _run_metadata(self, stream: _Stream) -> dict[str, Any]:
        return {
            "run_uid": self._start.get("uid"),
            "scan_id": self._start.get("scan_id"),
            "stream": stream.name,
        }

    # ------------------------------------------------------------------------ blocks

    def _of_datum(self, datum: Document) -> Iterator[DaqBlock]:
        resource = self._resources.get(datum["stream_resource"])
        stream = self._streams.get(datum["descriptor"])
        if resource is None or stream is None:
            return
        key = resource["data_key"]
        self._published[key] = datum["indices"]["stop"]
        if self._holds_blocks(key, stream.data_keys.get(key, {})):
            self._waiting.append(datum)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if self._is_complete(each):
                yield from self._read_blocks(each)
            else:
                self._waiting.append(each)

    def _holds_blocks(self, key: str, data_key: Document) -> bool:
        dims = [str(dim) for dim in data_key.get("dims", ())][-2:]
        return key in self._block_keys or (
            len(dims) == 2
            and dims[0].endswith("channel")
            and dims[1].endswith("sample")
        )

    def _is_complete(self, datum: Document) -> bool:
        """Return whether the times of the blocks are published too."""
        key = self._resources[datum["stream_resource"]]["data_key"]
        stream = self._streams[datum["descriptor"]]
        return all(
            self._published.get(companion, 0) >= datum["indices"]["stop"]
            for companion in (f"{key}_t0", f"{key}_time")
            if companion in stream.data_keys
        )

    def _read_blocks(self, datum: Document) -> Iterator[DaqBlock]:
        resource = self._resources[datum["stream_resource"]]
        stream = self._streams[datum["descriptor"]]
        key = resource["data_key"]
        data_key = stream.data_keys.get(key, {})
        shape: list[Any] = data_key.get("shape") or []
        each: int = shape[0] if len(shape) == 3 and isinstance(shape[0], int) else 1
        first: int = datum["indices"]["start"] * each
        last: int = datum["indices"]["stop"] * each
        frames: NDArray[Any] = np.asarray(self._open_array(resource)[first:last])
        frames = frames.reshape(-1, *frames.shape[-2:])
        moments = self._times(key, first, last)
        known = _Axes.of(key, data_key, frames.shape[1])
        for number, samples in enumerate(frames, first):
            moment = moments[number - first] if moments is not None else None
            metadata = self._run_metadata(stream) | {"data_key": key}
            if moment is None:
                metadata["t_utc"] = "the run's, since the blocks have no times"
            yield DaqBlock(
                device=stream.object_of(key),
                task=self._start.get("plan_name"),
                channels=known.channels,
                data=samples,
                block_index=number,
                first_sample_index=number * samples.shape[1],
                sample_rate_hz=known.rate,
                block_period_ns=known.period_ns,
                t_mono_ns=None,
                t_utc=moment or _time(self._start.get("time")) or _EPOCH,
                units=known.units,
                metadata=metadata,
            )

    def _times(self, key: str, first: int, last: int) -> list[datetime | None] | None:
        """Return when the blocks began, by what was streamed beside them."""
        for companion, convert in ((f"{key}_t0", _time_ns), (f"{key}_time", _time)):
            resource = self._arrays.get(companion)
            if resource is not None:
                stored = np.asarray(self._open_array(resource)[first:last]).reshape(-1)
                return [convert(value) for value in stored.tolist()]
        return None


@dataclass(frozen=True, slots=True)
class _Axes:
    """What stands along the axes of a block."""

    channels: tuple[str, ...]
    units: dict[str, str | None]
    rate: float | None
    period_ns: int | None

    @classmethod
    def of(cls, key: str, data_key: Document, count: int) -> _Axes:
        coordinates = data_key.get("coordinates", {})
        names: list[Any] = coordinates.get(f"{key}_channel", {}).get("values") or []
        if len(names) != count:
            names = [f"ch{number}" for number in range(count)]
        channels = tuple(map(str, names))
        given = coordinates.get(f"{key}_unit", {}).get("values")
        if given is None:
            given = [_text(data_key.get("units"))] * count
        step = coordinates.get(f"{key}_sample", {}).get("step")
        if not isinstance(step, (int, float)) or not step > 0:
            return cls(channels, dict(zip(channels, given, strict=False)), None, None)
        period = step * 1e9
        whole = round(period) if abs(period - round(period)) < 1e-6 * period else None
        units = dict(zip(channels, given, strict=False))
        return cls(channels, units, 1 / step, whole or None)


def _value(value: Any) -> Any:
    plain: Any = value
    if isinstance(value, np.generic):
        plain = cast("Any", value).item()
    return plain if isinstance(plain, _SCALARS) else to_json(plain)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _time(value: Any) -> datetime | None:
    """Return a time of seconds since 1970; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _time_ns(value: Any) -> datetime | None:
    """Return a time of nanoseconds since 1970."""
    return _EPOCH + timedelta(microseconds=(int(value) + 500) // 1000)
