"""What a run holds, stream by stream and field by field, as every format takes it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database import Run, Stream
from bluesky_beamtime.errors import DocumentError

BLOCK_BYTES = 8 << 20
"""What is held in memory at a time of a stack of frames."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Coordinates along an axis of each value, such as the energies of a spectrum."""

    name: str
    """Their name."""
    dim: str
    """Name of the axis."""
    values: NDArray[Any]
    """One for each place."""
    units: str | None
    """Their units, None without."""


@dataclass(frozen=True, slots=True)
class Field:
    """One data key of one stream, with a row for each event that has it."""

    key: str
    """Data key."""
    stream: str
    """Name of the stream."""
    device: str
    """Name of the object that it belongs to."""
    data_key: Mapping[str, Any]
    """What the descriptor says of it."""
    seq_nums: NDArray[np.int64]
    """Sequence number of each row, ascending."""
    values: Any
    """NumPy array, or a lazy one with the same ``[start:stop]``; rows first."""
    timestamps: NDArray[np.float64] | None
    """When each value was taken, seconds since 1970; None where nobody says."""
    dims: tuple[str, ...] = ()
    """Names of the axes behind that of the rows."""
    axes: tuple[Axis, ...] = ()
    """Coordinates of those axes that have some."""

    @property
    def units(self) -> str | None:
        """Units, None without."""
        units = self.data_key.get("units")
        return units if isinstance(units, str) else None

    @property
    def attributes(self) -> dict[str, Any]:
        """What the descriptor says of the values themselves."""
        told = ("units", "precision", "source")
        return {k: self.data_key[k] for k in told if self.data_key.get(k) is not None}

    @property
    def streamed(self) -> bool:
        """Whether its values are in files of the detector."""
        return self.data_key.get("external") == "STREAM:"

    def is_coordinate(self, keys: Container[str]) -> bool:
        """Say whether it tells when or where, of another field.

        Parameters
        ----------
        keys
            Data keys of the stream.
        """
        of: Any = self.data_key.get("coordinate_of")
        if isinstance(of, str) and of != self.key and of in keys:
            return True
        camera = self.key.removesuffix("_time")
        return self.streamed and camera != self.key and camera in keys

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, rows first."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values; ``object`` for what has no common type or shape."""
        return np.dtype(self.values.dtype)

    @property
    def is_image(self) -> bool:
        """Whether each row is a frame or several."""
        return len(self.shape) > 2

    @property
    def frames_per_row(self) -> int | None:
        """Frames of one event; None for one, without an axis of its own."""
        return getattr(self.values, "per_row", None)

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the rows a few megabytes at a time, each with its first row's index."""
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        for first in range(0, self.shape[0], step):
            yield first, np.asarray(self.values[first : first + step])


@dataclass(frozen=True, slots=True)
class StreamContent:
    """One stream of a run."""

    stream: Stream
    """The stream itself, with its descriptors and settings."""
    seq_nums: NDArray[np.int64]
    """Sequence numbers that any field has, ascending."""
    times: NDArray[np.float64]
    """Time of each, seconds since 1970; NaN where nobody took it."""
    fields: Mapping[str, Field]
    """The fields by data key."""
    attributes: Mapping[str, Any]
    """What is known of the run, in simple values: a Dataset has it as attributes."""

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.stream.name

    @property
    def images(self) -> list[Field]:
        """The fields whose rows are frames."""
        return [field for field in self.fields.values() if field.is_image]

    @property
    def hinted(self) -> list[str]:
        """Data keys that the devices recommend for a plot."""
        keys: list[str] = []
        for descriptor in self.stream.descriptors:
            for hint in descriptor.get("hints", {}).values():
                keys += hint.get("fields", [])
        return [key for key in dict.fromkeys(keys) if key in self.fields]


class RunContent:
    """All that a run has to give away.

    Parameters
    ----------
    run
        The run.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def streams(self) -> dict[str, StreamContent]:
        """The streams by name; frames are read when they are asked for.

        Raises
        ------
        StorageError
            Frames are missing or cannot be read.
        """
        return {name: read_stream(s) for name, s in self.run.streams.items()}

    @property
    def images(self) -> list[Field]:
        """The fields of all streams whose rows are frames."""
        return [field for stream in self.streams.values() for field in stream.images]

    def scan_axes(self, stream: str) -> list[str]:
        """Return the data keys of the axes that a plan scanned, slowest first."""
        hints: Any = self.run.start.get("hints")
        dimensions: list[Any] = []
        if isinstance(hints, Mapping):
            dimensions = list(hints.get("dimensions") or [])  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        found: list[str] = []
        for dimension in dimensions:
            keys, name = dimension
            if name == stream:
                found += [key for key in keys if key in self.streams[stream].fields]
        return [key for key in found if key != "time"]


def read_stream(stream: Stream) -> StreamContent:
    """Return what a stream holds, each field with all the rows that it has.

    Other than in :meth:`Stream.read`, no row is left out because another field lacks
    it: in a run that was cut off one camera may have got further than another.
    """
    data_keys = stream.data_keys
    streamed = {k for k, d in data_keys.items() if d.get("external") == "STREAM:"}
    in_events = [key for key in data_keys if key not in streamed]
    table: Any = stream.read(in_events, chunks=None)
    stamps: Any = stream.timestamps()
    fields: dict[str, Field] = {}
    for key in data_keys:
        dataset: Any = stream.read([key], chunks=None) if key in streamed else table
        name = f"{key}_value" if key in ("time", "seq_num") else key
        if name not in dataset.variables:
            continue
        seq_nums = np.asarray(dataset["seq_num"].values, np.int64)
        taken: Any = stamps.get(name)
        fields[key] = Field(
            key=key,
            stream=stream.name,
            device=_device_of(stream, key),
            data_key=data_keys[key],
            seq_nums=seq_nums,
            values=_values(stream, key, dataset[name]),
            timestamps=None if taken is None else _aligned(stamps, taken, seq_nums),
            dims=tuple(map(str, dataset[name].dims[1:])),
            axes=tuple(_axes(dataset[name])),
        )
    found = [field.seq_nums for field in fields.values()]
    if table.sizes["time"] or not found:
        found.append(np.asarray(table["seq_num"].values, np.int64))
    rows = np.unique(np.concatenate(found))
    times = _times(table, fields, rows)
    return StreamContent(stream, rows, times, fields, table.attrs)


def _device_of(stream: Stream, key: str) -> str:
    for descriptor in stream.descriptors:
        for device, keys in descriptor.get("object_keys", {}).items():
            if key in keys:
                return device
    return key


def _axes(variable: Any) -> Iterator[Axis]:
    for name, found in variable.coords.items():
        if found.ndim == 1 and found.dims[0] in variable.dims[1:]:
            dim, units = str(found.dims[0]), found.attrs.get("units")
            yield Axis(str(name), dim, found.values, units)


def _values(stream: Stream, key: str, variable: Any) -> Any:
    if variable.ndim > 1:
        try:
            return stream.frames(key)
        except DocumentError:
            # Arrays that are in the events themselves are here already.
            pass
    return variable.values


def _aligned(
    stamps: Any, taken: Any, seq_nums: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    if taken.ndim != 1 or taken.dtype.kind != "f":
        return None
    return spread(stamps["seq_num"].values, taken.values, seq_nums)


def _times(
    table: Any, fields: Mapping[str, Field], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the time of each row: its event's, else that of its first frame."""
    times = spread(table["seq_num"].values, table["time"].values, rows)
    for key, field in fields.items():
        of = key.removesuffix("_time")
        if key == of or of not in fields or not field.streamed:
            continue
        first = np.asarray(field.values[:], np.float64)
        first = first.reshape(len(first), -1)[:, 0] if first.ndim > 1 else first
        times = np.where(np.isnan(times), spread(field.seq_nums, first, rows), times)
    return times


def spread(
    seq_nums: NDArray[np.int64], values: Any, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return numbers at the rows they belong to, NaN at others.

    Parameters
    ----------
    seq_nums
        Sequence number of each value.
    values
        One for each of them.
    rows
        Sequence numbers of the result, ascending.
    """
    known = dict(zip(seq_nums.tolist(), np.asarray(values).tolist(), strict=True))
    return np.array([known.get(row, np.nan) for row in rows.tolist()], np.float64)
