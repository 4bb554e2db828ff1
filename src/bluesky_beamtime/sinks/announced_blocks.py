"""Blocks that documents announce, read once they can be."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import (
    ErrorContext,
    MissingExtraError,
    SinkError,
    SinkSchemaError,
)
from bluesky_beamtime.sinks.documents import (
    Document,
    Stream,
    began,
    run_metadata,
    text_of,
    time_of,
    time_of_ns,
)
from bluesky_beamtime.sinks.records import DaqBlock

_AGAIN_AFTER = 0.05
"""Seconds between two looks at a store that is late."""


@dataclass(frozen=True, slots=True)
class _Announced:
    """Blocks that a StreamDatum tells of."""

    resource: Document
    stream: Stream
    start: int
    stop: int

    @property
    def key(self) -> str:
        return self.resource["data_key"]

    @property
    def data_key(self) -> Document:
        return self.stream.data_keys.get(self.key, {})

    @property
    def _each(self) -> int:
        """How many blocks an event has."""
        shape: list[Any] = self.data_key.get("shape") or []
        return shape[0] if len(shape) == 3 and isinstance(shape[0], int) else 1

    @property
    def first(self) -> int:
        """Number of the first block."""
        return self.start * self._each

    @property
    def count(self) -> int:
        """How many blocks it tells of."""
        return (self.stop - self.start) * self._each

    def missing(self, found: int) -> SinkError:
        """Return the error for blocks that are not there."""
        return SinkError(
            f"{self.key!r}: blocks {self.first} to {self.first + self.count - 1} were "
            f"announced, and {found} of them can be read from "
            f"{self.resource.get('uri')}; verify the store",
            context=ErrorContext("blocks", str(self.resource.get("uri"))),
        )


class AnnouncedBlocks:
    """Makes blocks of the StreamDatums of one run, in their order for each data key.

    A StreamDatum may cover several blocks. It may also come before the times of its
    blocks, whose StreamDatum is another, and with stores of others before a reader can
    see the data: it waits then, and is tried again with each that follows and at the
    end of the run.

    Parameters
    ----------
    block_keys
        Data keys that hold blocks, beside those whose dimensions say so.
    open_array
        Opens what a StreamResource tells of.
    patience
        Seconds that the end of the run waits for data that cannot be read yet. With 0
        what cannot be read when it is announced is an error at once.
    """

    def __init__(
        self,
        block_keys: Collection[str],
        open_array: Callable[[Document], Any],
        patience: float,
    ) -> None:
        self.run_start: Document = {}
        """The RunStart document, when it has come."""
        self._block_keys = frozenset(block_keys)
        self._open_array = open_array
        self._patience = patience
        self._resources: dict[str, Document] = {}
        self._arrays: dict[str, Document] = {}
        self._published: dict[str, int] = {}
        self._waiting: list[_Announced] = []
        self._ended = False

    def add(self, resource: Document) -> None:
        """Take a StreamResource."""
        self._resources[resource["uid"]] = resource
        self._arrays[resource["data_key"]] = resource

    def announce(self, datum: Document, stream: Stream | None) -> Iterator[DaqBlock]:
        """Take a StreamDatum, and yield the blocks that can be read now."""
        resource = self._resources.get(datum["stream_resource"])
        if resource is None or stream is None:
            return
        indices = datum["indices"]
        announced = _Announced(resource, stream, indices["start"], indices["stop"])
        self._published[announced.key] = announced.stop
        if self._holds_blocks(announced):
            self._waiting.append(announced)
        yield from self._read_waiting(patient=self._patience > 0)

    def end(self) -> Iterator[DaqBlock]:
        """Yield what waits yet, at the end of the run.

        Raises
        ------
        SinkError
            Something that was announced cannot be read; the rest has been yielded.
        """
        # What was not announced by now does not come any more.
        self._ended = True
        give_up = time.monotonic() + self._patience
        while self._waiting and time.monotonic() < give_up:
            yield from self._read_waiting(patient=True)
            if self._waiting:
                time.sleep(_AGAIN_AFTER)
        yield from self._read_waiting(patient=False)

    def _holds_blocks(self, announced: _Announced) -> bool:
        dims = [str(dim) for dim in announced.data_key.get("dims", ())][-2:]
        return announced.key in self._block_keys or (
            len(dims) == 2
            and dims[0].endswith("channel")
            and dims[1].endswith("sample")
        )

    def _read_waiting(self, *, patient: bool) -> Iterator[DaqBlock]:
        waiting, self._waiting = self._waiting, []
        late: set[str] = set()
        failure: Exception | None = None
        for each in waiting:
            blocks: list[DaqBlock] | None = None
            if each.key not in late and self._has_times(each):
                try:
                    blocks = self._read(each, patient)
                    if blocks is not None and len(blocks) < each.count:
                        failure = failure or each.missing(len(blocks))
                except (MissingExtraError, SinkSchemaError) as error:
                    # To wait does not help.
                    failure, blocks = failure or error, []
                except Exception as error:
                    if not patient:
                        failure, blocks = failure or error, []
            if blocks is None:
                # In their order: those behind it wait with it.
                late.add(each.key)
                self._waiting.append(each)
            else:
                yield from blocks
        if failure is not None:
            raise failure

    def _has_times(self, announced: _Announced) -> bool:
        """Return whether the times of the blocks are announced too."""
        return self._ended or all(
            self._published.get(companion, 0) >= announced.stop
            for companion in (f"{announced.key}_t0", f"{announced.key}_time")
            if companion in announced.stream.data_keys
        )

    def _read(self, announced: _Announced, whole: bool) -> list[DaqBlock] | None:
        """Return the blocks that are there; None if all shall be, and are not."""
        key, stream = announced.key, announced.stream
        first, count = announced.first, announced.count
        array = self._open_array(announced.resource)
        frames: NDArray[Any] = np.asarray(array[first : first + count])
        frames = frames.reshape(-1, *frames.shape[-2:])
        moments = self._times(key, first, count)
        if whole and (len(frames) < count or len(moments) < count):
            return None
        moments += [None] * (count - len(moments))
        known = _Axes.of(key, announced.data_key, frames.shape[1])
        blocks: list[DaqBlock] = []
        for number, (samples, moment) in enumerate(
            zip(frames, moments, strict=False), first
        ):
            metadata = run_metadata(self.run_start, stream) | {"data_key": key}
            if moment is None:
                metadata["t_utc"] = "the run's, since the blocks have no times"
            blocks.append(
                DaqBlock(
                    device=stream.object_of(key),
                    task=self.run_start.get("plan_name"),
                    channels=known.channels,
                    data=samples,
                    block_index=number,
                    first_sample_index=number * samples.shape[1],
                    sample_rate_hz=known.rate,
                    block_period_ns=known.period_ns,
                    t_mono_ns=None,
                    t_utc=moment or began(self.run_start),
                    units=known.units,
                    metadata=metadata,
                )
            )
        return blocks

    def _times(self, key: str, first: int, count: int) -> list[datetime | None]:
        """Return when the blocks began, by what was streamed beside them."""
        for companion, convert in ((f"{key}_t0", time_of_ns), (f"{key}_time", time_of)):
            resource = self._arrays.get(companion)
            if resource is not None:
                array = self._open_array(resource)
                stored = np.asarray(array[first : first + count]).reshape(-1)
                return [convert(value) for value in stored.tolist()]
        return [None] * count


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
            given = [text_of(data_key.get("units"))] * count
        step = coordinates.get(f"{key}_sample", {}).get("step")
        if not isinstance(step, (int, float)) or not step > 0:
            return cls(channels, dict(zip(channels, given, strict=False)), None, None)
        period = step * 1e9
        whole = round(period) if abs(period - round(period)) < 1e-6 * period else None
        units = dict(zip(channels, given, strict=False))
        return cls(channels, units, 1 / step, whole or None)
