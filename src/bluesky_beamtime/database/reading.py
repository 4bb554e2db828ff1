"""The rows of a stream: events and frames brought together, as a Dataset."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.columns import (
    Column,
    make_column,
    referenced_frames,
)
from bluesky_beamtime.database.declared_axes import Coordinate, declared_coordinates
from bluesky_beamtime.database.descriptions import Descriptions, told_units
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.event_table import EventTable
from bluesky_beamtime.database.external import FrameRows, frame_rows
from bluesky_beamtime.database.rowframes import RowFrames, frame_dims
from bluesky_beamtime.database.variable_names import ROWS, free_name, variable_names
from bluesky_beamtime.errors import (
    BeamtimeWarning,
    DocumentError,
    RunNotFoundError,
    StorageError,
)

if TYPE_CHECKING:
    import xarray as xr

    from bluesky_beamtime.database.streams import Stream

Ints = NDArray[np.int64]


class StreamReading:
    """One call of :meth:`Stream.read`."""

    def __init__(
        self,
        stream: Stream,
        fields: Iterable[str] | str | None,
        *,
        scalars: bool = False,
        part: Literal["data", "timestamps"] = "data",
        dask: bool = True,
    ) -> None:
        self._dask = dask
        self._stream = stream
        self._database = stream.run.database
        self._uids = [uid for uid, _ in stream.descriptor_rows()]
        described = Descriptions(stream)
        self._data_keys = described.data_keys()
        self._units_of_rows = described.units_of_rows()
        self._names = variable_names(self._data_keys)
        self._asked = fields is not None
        self._fields = self._check(fields)
        rows = frame_rows(self._database, stream.run.uid, self._uids)
        self._frames = {
            key: rows[key]
            for key in self._fields
            if key in rows and not (scalars and self._data_keys[key].get("shape"))
        }
        candidates = [key for key in self._fields if key not in rows]
        self._part: Literal["data", "timestamps"] = part
        self._events = EventTable(
            self._database, self._uids, [(part, key) for key in candidates]
        )
        # A frame that was promised may be in the event itself.
        self._in_events = [
            key
            for key in candidates
            if self._data_keys[key].get("external") != "STREAM:"
            or self._events.has((part, key))
        ]
        self._seq_nums = self._common_rows()

    def _check(self, fields: Iterable[str] | str | None) -> list[str]:
        if fields is None:
            return list(self._data_keys)
        wanted = [fields] if isinstance(fields, str) else list(fields)
        for field in wanted:
            if field not in self._data_keys:
                raise RunNotFoundError(
                    f"{self._stream.run.label}: the stream {self._stream.name!r} has "
                    f"no field {field!r}; it has {', '.join(self._data_keys)}"
                )
        return wanted

    def _common_rows(self) -> Ints:
        """Return the sequence numbers that every field has."""
        found: list[Ints] = []
        if len(self._events) or self._in_events:
            found.append(self._events.seq_nums)
        found += [rows.seq_nums for rows in self._frames.values()]
        if not found:
            return np.empty(0, np.int64)
        common = found[0]
        for numbers in found[1:]:
            common = np.intersect1d(common, numbers, assume_unique=True)
        return common

    def warn_of_units(self, *, stacklevel: int) -> None:
        """Warn of fields whose units changed: one attribute cannot say them."""
        for key in self._fields:
            if key in self._units_of_rows:
                warnings.warn(
                    f"{self._stream.run.label}: the units of {key!r} changed within "
                    f"the stream {self._stream.name!r}: "
                    f"{told_units(self._units_of_rows[key])}. Its values are as they "
                    "were measured; Stream.units_of_rows has all",
                    BeamtimeWarning,
                    stacklevel=stacklevel,
                )

    # ---------------------------------------------------------------------- dataset

    def dataset(self) -> xr.Dataset:
        """Return the fields as a Dataset."""
        import xarray as xr

        columns = self._event_columns()
        frames = self._frame_columns()
        variables: dict[str, Any] = {}
        along: dict[str, Coordinate] = {}
        sizes: dict[str, int] = {"time": len(self._seq_nums)}
        for key in self._fields:
            column = columns.get(key) or frames.get(key)
            if column is not None:
                dims = ("time", *self._free_dims(key, column, sizes))
                mine = dict(zip(dims, column.values.shape, strict=True))
                sizes |= mine
                along |= declared_coordinates(self._data_keys[key], mine)
                attributes = self._attributes(key)
                variables[self._names[key]] = (dims, column.values, attributes)
        coordinates: dict[str, Any] = {
            "time": ("time", self._times(frames), {"units": "s"}),
            "seq_num": ("time", self._seq_nums),
        }
        taken = self._taken()
        coordinates |= {name: along[name] for name in along if name not in taken}
        for key in filter(self._is_frame_coordinate, self._fields):
            if key not in variables:
                continue
            coordinates[key] = variables.pop(key)
        return xr.Dataset(variables, coordinates, attrs=self._run_attributes())

    def _free_dims(
        self, key: str, column: Column, sizes: Mapping[str, int]
    ) -> tuple[str, ...]:
        """Return a column's dimensions, renamed if they would clash with others.

        Devices may declare dimensions as they like: two cameras of different sizes that
        both say ``y`` and ``x`` do not fit into one Dataset.
        """
        shape, taken = column.values.shape[1:], self._taken()
        clash = any(
            sizes.get(name, size) != size or name in taken
            for name, size in zip(column.dims, shape, strict=True)
        )
        if not clash:
            return column.dims
        names = frame_dims(key, len(shape))
        return tuple(free_name(name, taken) for name in names)

    def _taken(self) -> set[str]:
        """Return the names that fields and rows have."""
        return {*ROWS, *self._data_keys, *self._names.values()}

    def timestamps(self) -> xr.Dataset:
        """Return the times of the fields' values as a Dataset."""
        import xarray as xr

        variables: dict[str, Any] = {}
        for key in self._in_events:
            values = self._events.values((self._part, key), self._seq_nums)
            column = make_column(key, values, {"dtype": "number"}, self._database.store)
            dims = ("time", *column.dims)
            variables[self._names[key]] = (dims, column.values, {"units": "s"})
        coordinates = {
            "time": ("time", self._times({}), {"units": "s"}),
            "seq_num": ("time", self._seq_nums),
        }
        return xr.Dataset(variables, coordinates, attrs=self._run_attributes())

    def _event_columns(self) -> dict[str, Column]:
        return {
            key: make_column(
                key,
                self._events.values((self._part, key), self._seq_nums),
                self._data_keys[key],
                self._database.store,
                dask=self._dask,
            )
            for key in self._in_events
        }

    def _frame_columns(self) -> dict[str, Column]:
        columns: dict[str, Column] = {}
        for key, rows in self._frames.items():
            try:
                columns[key] = self._frame_column(key, rows)
            except StorageError as error:
                if self._asked:
                    raise
                warnings.warn(
                    f"{self._stream.run.label}: the frames of {key!r} cannot be read "
                    f"and are left out: {error}",
                    BeamtimeWarning,
                    stacklevel=4,
                )
        return columns

    def _frame_column(self, key: str, rows: FrameRows) -> Column:
        data_key = self._data_keys[key]
        frames = rows.frames(self._seq_nums, data_key)
        dims = frame_dims(
            key,
            frames.ndim - 1,
            data_key.get("dims"),
            per_row=frames.per_row is not None,
        )
        if frames.ndim == 1:
            return Column(dims, frames[:])
        return Column(dims, frames.lazy(key) if self._dask else frames.indexed())

    def frames(self, key: str) -> RowFrames:
        """Return the frames of a field as an array that reads what is indexed.

        Raises
        ------
        DocumentError
            The field has no frames, or they have not one shape.
        """
        if key in self._frames:
            return self._frames[key].frames(self._seq_nums, self._data_keys[key])
        values = self._events.values((self._part, key), self._seq_nums)
        frames = referenced_frames(values, self._database.store)
        if frames is None:
            raise DocumentError(
                f"{self._stream.run.label}: the values of {key!r} are no frames of one "
                "shape; read() has them"
            )
        return frames

    def _is_frame_time(self, key: str) -> bool:
        """Say whether a field holds the times of another field's frames."""
        return (
            key.endswith("_time")
            and self._data_keys[key].get("external") == "STREAM:"
            and key.removesuffix("_time") in self._data_keys
        )

    def _is_frame_coordinate(self, key: str) -> bool:
        """Say whether a field tells of another's frames when or where each was taken.

        Cameras mark positions of axes with ``coordinate_of``.
        """
        of: object = self._data_keys[key].get("coordinate_of")
        return self._is_frame_time(key) or (
            isinstance(of, str) and of != key and of in self._data_keys
        )

    def _times(self, frames: Mapping[str, Column]) -> NDArray[np.float64]:
        """Return the time of each row: its event's, else that of its first frame."""
        if len(self._events):
            return self._events.times_of(self._seq_nums)
        for key in filter(self._is_frame_time, frames):
            values = np.asarray(frames[key].values, np.float64)
            return values.reshape(len(values), -1)[:, 0] if values.ndim > 1 else values
        return np.full(len(self._seq_nums), np.nan)

    def _attributes(self, key: str) -> dict[str, Any]:
        data_key = self._data_keys[key]
        told = {
            name: data_key[name]
            for name in ("units", "precision", "source")
            if data_key.get(name) is not None
        }
        if key in self._units_of_rows:
            told["units_of_rows"] = encode(self._units_of_rows[key])
        return told

    def _run_attributes(self) -> dict[str, Any]:
        run = self._stream.run
        attributes: dict[str, Any] = {"stream": self._stream.name}
        for key, value in run.start.items():
            simple = isinstance(value, (str, int, float)) and not isinstance(
                value, bool
            )
            if value is not None:
                attributes[key] = value if simple else encode(value)
        sample = run.sample
        if sample is not None:
            attributes["sample"] = sample.name
        status = run.exit_status
        if status is not None:
            attributes["exit_status"] = status
        return attributes
