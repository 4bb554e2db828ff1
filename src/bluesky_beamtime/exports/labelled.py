"""Runs as labelled arrays for xarray: netCDF and Zarr, a Dataset for each stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.kinds import is_integer
from bluesky_beamtime.database.variable_names import ROWS
from bluesky_beamtime.exports.fields import BLOCK_BYTES, Field, StreamContent
from bluesky_beamtime.exports.names import level_name, unique_names
from bluesky_beamtime.exports.texts import cell_text, json_text, plain_text


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of a Dataset."""

    name: str
    """Name in the file."""
    dims: tuple[str, ...]
    """Names of its dimensions."""
    values: Any
    """NumPy array, or a lazy one with ``[start:stop]`` along its first dimension."""
    attributes: Mapping[str, Any]
    """Units and the like."""
    coordinate: bool = False
    """Whether it tells where or when, of others."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values; ``object`` for texts."""
        dtype = np.dtype(self.values.dtype)
        return np.dtype(object) if dtype.kind == "U" else dtype.newbyteorder("=")

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield a few megabytes at a time, each with its first row's index."""
        size = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        step = max(1, BLOCK_BYTES // max(1, size))
        for first in range(0, self.shape[0], step):
            yield first, _plain(np.asarray(self.values[first : first + step]))


class Dataset:
    """What a stream holds as labelled arrays: as ``run[stream].read()`` returns it.

    Every row of every field is there. A field that lacks some rows of the stream has a
    dimension of its own, ``<key>_event``, and ``<key>_seq_num`` beside it, so that
    integers stay integers and nobody takes a value that was made up for a measured one.

    Parameters
    ----------
    stream
        The stream.

    Attributes
    ----------
    sizes : dict of str to int
        Size of each dimension.
    variables : list of Variable
        The arrays, coordinates first.
    attributes : dict
        What the start document says of the run.
    """

    def __init__(self, stream: StreamContent) -> None:
        self.attributes: dict[str, Any] = {
            f"{key}_" if key == "coordinates" else key: _attribute(value)
            for key, value in stream.attributes.items()
        }
        self.sizes = {"time": len(stream.seq_nums)}
        self.variables = [
            Variable("time", ("time",), stream.times, {"units": "s"}, True),
            Variable("seq_num", ("time",), stream.seq_nums, {}, True),
        ]
        variables = {key: stream.names[key] for key in stream.fields}
        names = unique_names(variables.values(), level_name, ROWS)
        self._taken = {*ROWS, *names.values()}
        for key, field in stream.fields.items():
            self._add(field, names[variables[key]], stream)

    def _add(self, field: Field, name: str, stream: StreamContent) -> None:
        attributes = dict(field.attributes)
        if name != field.key:
            attributes["bluesky_name"] = field.key
        first = "time"
        if not np.array_equal(field.seq_nums, stream.seq_nums):
            first = self._dimension(f"{name}_event", len(field.seq_nums))
            mine = unique_names([f"{name}_seq_num"], level_name, self._taken)
            (rows,) = mine.values()
            self._taken.add(rows)
            self.variables.append(Variable(rows, (first,), field.seq_nums, {}, True))
        inner = {
            dim: self._dimension(dim, size, name)
            for dim, size in zip(field.dims, field.shape[1:], strict=True)
        }
        for axis in field.axes:
            # Those of a dimension that had to be renamed keep their meaning by it.
            dim = inner[axis.dim]
            along = dim if axis.name == axis.dim else level_name(axis.name)
            if along not in self._taken:
                self._taken.add(along)
                units = {} if axis.units is None else {"units": axis.units}
                self.variables.append(Variable(along, (dim,), axis.values, units, True))
        told = {key: _attribute(value) for key, value in attributes.items()}
        coordinate = field.is_coordinate(stream.fields)
        dims = (first, *inner.values())
        self.variables.append(Variable(name, dims, field.values, told, coordinate))

    def _dimension(self, name: str, size: int, owner: str | None = None) -> str:
        """Return a dimension of this size, with this name if that fits."""
        free = level_name(name)
        number = 2
        while self.sizes.get(free, size) != size or free in self._fields():
            free = f"{owner}_{name}" if owner else f"{name}_{number}"
            free, owner, number = level_name(free), None, number + 1
        self.sizes[free] = size
        return free

    def _fields(self) -> set[str]:
        """Return names that belong to arrays which are no axes."""
        axes = {v.name for v in self.variables if v.dims == (v.name,)}
        return self._taken - axes


def _attribute(value: Any) -> Any:
    if isinstance(value, str):
        return plain_text(value)
    # netCDF has no truth values.
    fits = is_integer(value) and -(2**63) <= value < 2**63
    return value if fits or isinstance(value, float) else json_text(value)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Return values as files have them; what has no type of its own is JSON text."""
    if values.dtype.kind not in "OU":
        return values
    rows: list[Any] = values.reshape(-1).tolist()
    texts = [cell_text(value) for value in rows]
    found = np.empty(len(texts), object)
    found[:] = texts
    return found.reshape(values.shape)
