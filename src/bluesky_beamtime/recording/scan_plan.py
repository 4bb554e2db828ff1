"""What a run's first documents say of the array that its scan makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.grid_positions import runs_row_by_row
from bluesky_beamtime.database.grids import (
    axis_fields,
    axis_positions,
    scan_axes,
    scan_cells,
    scan_shape,
    scan_snaking,
)
from bluesky_beamtime.database.kinds import (
    is_integer,
    is_list,
    mapping_in,
    texts_in,
)
from bluesky_beamtime.database.rowframes import frame_dims
from bluesky_beamtime.errors import DocumentError, MetadataError
from bluesky_beamtime.recording.point_values import TIME
from bluesky_beamtime.storage.layout import plain_json

Document = Mapping[str, Any]
_NUMBERS = {"number": "f8", "integer": "i8", "boolean": "?"}


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """The points of one scan: how many along each axis, and what says where they are.

    A run without a ``shape`` that says how many points it has is one axis of points;
    so is one that does not run row by row: only its readings will say where it was.
    """

    start: Document
    """The RunStart document."""
    shape: tuple[int, ...]
    """Points along each axis, slowest first."""
    fields: tuple[tuple[str, ...], ...]
    """Data keys that tell the position along each axis."""
    names: tuple[str, ...]
    """A name for each axis."""
    coordinates: tuple[str | None, ...]
    """Of those, the one whose values stand along the axis; None counts from 0."""

    def cells(self, seq_nums: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the flat position of each point, -1 for those beyond the scan."""
        return scan_cells(
            seq_nums, self.shape, scan_snaking(self.start, list(self.names))
        )

    def axes(self, positions: Mapping[str, NDArray[np.float64]]) -> list[Any]:
        """Return the coordinates along each axis, measured where they were measured.

        Parameters
        ----------
        positions
            Of each field the readings, in the shape of the scan, NaN where there is
            none yet.
        """
        found: list[Any] = []
        for number, field in enumerate(self.coordinates):
            values = np.full(self.shape[number], np.nan)
            if field is not None:
                values = axis_positions(positions[field], number, self.start)
            if np.isnan(values).all():
                values = np.arange(self.shape[number], dtype=np.float64)
            found.append(values)
        return found

    def others(
        self, positions: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, list[float | None]]:
        """Return the positions along an axis of what moved there besides, for JSON."""
        found: dict[str, list[float | None]] = {}
        for number, fields in enumerate(self.fields):
            for field in fields:
                if field != self.coordinates[number]:
                    values = axis_positions(positions[field], number, {}).tolist()
                    found[field] = [v if np.isfinite(v) else None for v in values]
        return found


def choose_field(asked: str | None, descriptor: Document, start: Document) -> str:
    """Return the field whose values make the array.

    Parameters
    ----------
    asked
        The field that was asked for; None for the first image that the devices hint at,
        or else the first number that is no axis, where one that they hint at is before
        the others.
    descriptor, start
        Documents of the run.

    Raises
    ------
    DocumentError
        There is none, or it lies where it cannot be read.
    """
    keys: Mapping[str, Document] = descriptor["data_keys"]
    if asked is not None:
        if asked not in keys:
            raise DocumentError(
                f"the stream {descriptor.get('name')!r} has no field {asked!r}; it has "
                f"{', '.join(keys)}"
            )
        if not _is_readable(keys[asked]):
            raise DocumentError(
                f"{asked!r} is no number or array, or lies in files of another kind"
            )
        return asked
    axes = set(axis_fields(start))
    hinted = [
        field
        for hint in mapping_in(descriptor.get("hints")).values()
        for field in texts_in(mapping_in(hint).get("fields"))
        if field in keys and field not in axes and _is_readable(keys[field])
    ]
    images = [field for field in hinted if _rank(keys[field]) > 1]
    for field in (*images, *hinted, *_numbers(descriptor, axes)):
        return field
    raise DocumentError(
        f"no device of the stream {descriptor.get('name')!r} hints at an image, and no "
        f"field is a number and no axis; say which to take: {', '.join(keys)}"
    )


def _numbers(descriptor: Document, axes: Set[str]) -> Iterator[str]:
    """Yield the numbers that are measured, hinted at or not."""
    keys: Mapping[str, Document] = descriptor["data_keys"]
    moved = {
        field
        for fields in map(texts_in, mapping_in(descriptor.get("object_keys")).values())
        if not axes.isdisjoint(fields)
        for field in fields
    }
    for field, key in keys.items():
        # Neither the setpoint of a motor, nor the time of a frame.
        beside = field in axes | moved or "coordinate_of" in key
        if not beside and _is_readable(key) and key.get("dtype") in _NUMBERS:
            yield field


def plan_scan(start: Document, stream: str, field: str, keys: Document) -> ScanPlan:
    """Return the plan of a scan.

    Parameters
    ----------
    start
        The RunStart document.
    stream
        Name of the stream.
    field
        The field whose values make the array.
    keys
        The data keys of the stream.

    Raises
    ------
    DocumentError
        Nothing says how many points there will be, or the stream is not the scan's.
    """
    if start.get("shape") is not None and runs_row_by_row(start):
        shape = scan_shape(start)
        axes = scan_axes(start, stream, len(shape))
        names = tuple(axis[0] if axis else f"axis_{n}" for n, axis in enumerate(axes))
        known = tuple(tuple(f for f in axis if f in keys) for axis in axes)
        firsts = tuple(axis[0] if axis else None for axis in known)
        return ScanPlan(start, shape, known, names, firsts)
    count = start.get("num_points")
    if not is_integer(count) or count < 1:
        raise DocumentError(
            "its start document has neither 'shape' nor 'num_points', so that nobody "
            "knows how many points there will be"
        )
    fields = [name for name in axis_fields(start) if name in keys]
    dimensions = 1
    if fields:
        dimensions = len(start["hints"]["dimensions"])
    else:
        followed = [key for key in keys if keys[key].get("coordinate_of") == field]
        stamps = [key for key in (f"{field}_time",) if key in keys]
        fields = followed or stamps or [TIME]
    # Two dimensions and one row of points, as in a spiral: no axis is a motor's.
    first = fields[0] if dimensions == 1 else None
    name = first or "point"
    return ScanPlan(start, (int(count),), (tuple(fields),), (name,), (first,))


def describe_scan(
    plan: ScanPlan, stream: str, field: str, keys: Mapping[str, Document], rank: int
) -> dict[str, Any]:
    """Return the tags of an array: what it holds, and what stands along its axes.

    Parameters
    ----------
    plan
        The plan of the scan.
    stream, field
        Where its values come from.
    keys
        The data keys of the stream.
    rank
        Number of axes of one value.
    """
    tags: dict[str, Any] = {"field": field, "stream": stream}
    for key in ("plan_name", "scan_id", "uid", "sample", "sample_name"):
        if key in plan.start:
            tags[key] = _plain(plan.start[key])
    tags["dims"] = [*plan.names, *frame_dims(field, rank, keys[field].get("dims"))]
    if isinstance(keys[field].get("units"), str):
        tags["units"] = keys[field]["units"]
    known = [keys.get(name, {}) for name in plan.names]
    tags["axis_units"] = [_plain(key.get("units")) for key in known]
    return tags


def declared_cell(data_key: Document) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Return shape and type of one value, None if only the first value will tell."""
    shape = data_key.get("shape")
    dtype = declared_type(data_key)
    if dtype is None or not is_list(shape) or not all(is_integer(n) for n in shape):
        return None
    # A streamed frame may be declared with an axis that its array does not have.
    if data_key.get("external") and shape[:1] in ([1], (1,)):
        return None
    return tuple(int(n) for n in shape), dtype


def declared_type(data_key: Document) -> np.dtype[Any] | None:
    """Return the type of the numbers of a field, None if it is not declared."""
    said = data_key.get("dtype_numpy")
    if isinstance(said, str):
        try:
            return np.dtype(said)
        except TypeError:
            return None
    kind = _NUMBERS.get(str(data_key.get("dtype")))
    return None if kind is None else np.dtype(kind)


def _is_readable(data_key: Document) -> bool:
    external = data_key.get("external")
    return data_key.get("dtype") != "string" and external in (None, "STREAM:")


def _rank(data_key: Document) -> int:
    shape = data_key.get("shape") or ()
    return len(shape[1:] if shape[:1] in ([1], (1,)) else shape)


def _plain(value: Any) -> Any:
    """Return a value of a document as JSON has it, or as text."""
    try:
        return plain_json(value)
    except MetadataError:
        return str(value)
