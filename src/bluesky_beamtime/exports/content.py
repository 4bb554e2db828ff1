"""What a run holds, stream by stream and field by field, as every format takes it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database import Run, Stream
from bluesky_beamtime.database.declared_axes import declared_coordinates
from bluesky_beamtime.database.descriptions import Descriptions, told_units
from bluesky_beamtime.database.external import FrameRows, frame_rows
from bluesky_beamtime.database.kinds import is_list, mapping_in, texts_in
from bluesky_beamtime.database.reading import StreamReading
from bluesky_beamtime.database.rowframes import frame_dims
from bluesky_beamtime.database.variable_names import variable_names
from bluesky_beamtime.errors import BeamtimeWarning, DocumentError
from bluesky_beamtime.exports.fields import Axis, Field, StreamContent


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

    def warn_of_units(self) -> None:
        """Warn of fields whose units changed: for formats with one unit for a field."""
        for stream in self.streams.values():
            for field in stream.fields.values():
                if field.units_of_rows:
                    warnings.warn(
                        f"{self.run.label}: the units of {field.key!r} changed within "
                        f"the stream {stream.name!r}: "
                        f"{told_units(field.units_of_rows)}. Its values are written as "
                        "they were measured; csv, xlsx and parquet have the units of "
                        "each row",
                        BeamtimeWarning,
                        # Past the format and Run.export.
                        stacklevel=5,
                    )

    def scan_axes(self, stream: str) -> list[str]:
        """Return the data keys of the axes that a plan scanned, slowest first."""
        dimensions: Any = mapping_in(self.run.start.get("hints")).get("dimensions")
        found: list[str] = []
        for dimension in dimensions if is_list(dimensions) else ():
            if is_list(dimension) and len(dimension) == 2 and dimension[1] == stream:
                keys = texts_in(dimension[0])
                found += [key for key in keys if key in self.streams[stream].fields]
        return [key for key in found if key != "time"]


def read_stream(stream: Stream) -> StreamContent:
    """Return what a stream holds, each field with all the rows that it has.

    Other than in :meth:`Stream.read`, no row is left out because another field lacks
    it: in a run that was cut off one camera may have got further than another, or than
    the events.
    """
    described = Descriptions(stream)
    data_keys, units = described.data_keys(), described.units_of_rows()
    uids = [uid for uid, _ in stream.descriptor_rows()]
    streamed = frame_rows(stream.run.database, stream.run.uid, uids)
    names = variable_names(data_keys)
    whole = [key for key in data_keys if key not in streamed]
    table: Any = StreamReading(stream, whole, dask=False).dataset()
    # Half of the reading, and only some formats want them.
    stamps = cache(stream.timestamps)
    fields: dict[str, Field] = {}
    for key, data_key in data_keys.items():
        device = _device_of(stream, key)
        if key in streamed:
            field = _streamed(stream, key, device, data_key, streamed[key])
            fields[key] = replace(field, units_of_rows=units.get(key, ()))
            continue
        name = names[key]
        if name in table.variables:
            seq_nums = np.asarray(table["seq_num"].values, np.int64)
            fields[key] = Field(
                key=key,
                stream=stream.name,
                device=device,
                data_key=data_key,
                seq_nums=seq_nums,
                values=_values(stream, key, table[name]),
                taken=partial(_aligned, stamps, name, seq_nums),
                dims=tuple(map(str, table[name].dims[1:])),
                axes=tuple(_axes(table[name])),
                units_of_rows=units.get(key, ()),
            )
    found = [field.seq_nums for field in fields.values()]
    if table.sizes["time"] or not found:
        found.append(np.asarray(table["seq_num"].values, np.int64))
    rows = np.unique(np.concatenate(found))
    times = _times(table, fields, rows)
    return StreamContent(stream, rows, times, fields, table.attrs, names)


def _streamed(
    stream: Stream, key: str, device: str, data_key: Mapping[str, Any], rows: FrameRows
) -> Field:
    """Return a field whose values are in files of the detector."""
    frames = rows.frames(rows.seq_nums, data_key)
    several = frames.per_row is not None
    dims = frame_dims(key, frames.ndim - 1, data_key.get("dims"), per_row=several)
    sizes = dict(zip(dims, frames.shape[1:], strict=True))
    axes = [
        Axis(name, along, values, told.get("units"))
        for name, ((along,), values, told) in declared_coordinates(
            data_key, sizes
        ).items()
    ]
    return Field(
        key=key,
        stream=stream.name,
        device=device,
        data_key=data_key,
        seq_nums=rows.seq_nums,
        values=frames if frames.ndim > 1 else frames[:],
        dims=dims,
        axes=tuple(axes),
    )


def _device_of(stream: Stream, key: str) -> str:
    for descriptor in stream.descriptors:
        for device, keys in mapping_in(descriptor.get("object_keys")).items():
            if key in texts_in(keys):
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
    stamps: Callable[[], Any], name: str, seq_nums: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    dataset = stamps()
    taken = dataset.get(name)
    if taken is None or taken.ndim != 1 or taken.dtype.kind != "f":
        return None
    return spread(dataset["seq_num"].values, taken.values, seq_nums)


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
        Sequence number of each value, ascending.
    values
        One for each of them.
    rows
        Sequence numbers of the result, ascending.
    """
    found = np.full(len(rows), np.nan)
    if len(seq_nums):
        places = np.minimum(np.searchsorted(seq_nums, rows), len(seq_nums) - 1)
        known = seq_nums[places] == rows
        found[known] = np.asarray(values, np.float64)[places[known]]
    return found
