"""Grid scans: from a row per event to an axis per motor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.grid_positions import (
    cells_of_positions,
    runs_row_by_row,
)
from bluesky_beamtime.database.kinds import is_array, is_integer, is_list, is_mapping
from bluesky_beamtime.errors import DocumentError

if TYPE_CHECKING:
    import xarray as xr

Start = Mapping[str, Any]


def to_grid(
    start: Start, stream: str, dataset: xr.Dataset, *, fill: Any = None
) -> xr.Dataset:
    """Return a Dataset with one dimension per axis of the scan.

    Parameters
    ----------
    start
        The RunStart document: ``shape`` gives the size of each axis, ``hints`` their
        names, ``snaking`` or ``snake_axes`` which run back and forth, ``extents`` where
        they run. Where the hint ``gridding`` says that it does not run row by row, as a
        square spiral, the readings of the motors say which point each event is.
    stream
        Name of the stream.
    dataset
        What :meth:`Stream.read` returned.
    fill
        What stands in the variables where nothing was measured; by default NaN.

    Returns
    -------
    xarray.Dataset
        The axes' coordinates are the mean readings along each axis; where nothing was
        measured, what the plan intended. The readings themselves are the variables
        ``<motor>_readback``. Integers become floats if a point is missing and no
        ``fill`` is given; ``seq_num`` is 0 and ``measured`` is False there.

    Raises
    ------
    DocumentError
        The run is no grid scan, this stream does not belong to the grid, or its events
        cannot be told to be each at a point of its own.
    """
    import xarray as xr

    shape = scan_shape(start)
    fields = scan_axes(start, stream, len(shape))
    names = [axis[0] if axis else f"axis_{n}" for n, axis in enumerate(fields)]
    seq_nums = dataset["seq_num"].values
    check_fits(int(seq_nums.max(initial=0)), shape)
    if runs_row_by_row(start):
        cells = scan_cells(seq_nums, shape, scan_snaking(start, names))
    else:
        known = [dataset[name].values if name in dataset else None for name in names]
        cells = cells_of_positions(start, shape, known)
    rows = np.full(int(np.prod(shape)), -1)
    inside = np.flatnonzero(cells >= 0)
    rows[cells[inside]] = inside

    motors = {field for axis in fields for field in axis}
    coordinates: dict[str, Any] = {}
    for number, axis in enumerate(fields):
        for field in axis:
            if field in dataset:
                grid = _spread(dataset[field].values, rows, shape)
                # The plan says where the axis runs, not what else it moves.
                plan: Start = start if field == axis[0] else {}
                coordinates[field] = (
                    names[number],
                    axis_positions(grid, number, plan),
                    dataset[field].attrs,
                )
    variables: dict[str, Any] = {}
    for key, variable in dataset.variables.items():
        if (
            not variable.dims
            or variable.dims[0] != "time"
            or key in ("time", "seq_num")
        ):
            continue
        name = f"{key}_readback" if key in motors else str(key)
        dims = (*names, *map(str, variable.dims[1:]))
        data = cast("Any", variable).data
        values = _spread(data, rows, shape, fill)
        variables[name] = (dims, values, variable.attrs)
    numbers = np.where(rows < 0, 0, seq_nums[rows] if len(cells) else 0)
    coordinates["seq_num"] = (names, numbers.reshape(shape))
    coordinates["measured"] = (names, (rows >= 0).reshape(shape))
    times = _spread(dataset["time"].values, rows, shape)
    coordinates["time"] = (names, times, dataset["time"].attrs)
    # The time of each frame, and positions at each.
    for key in [str(key) for key in dataset.coords if key in variables]:
        coordinates[key] = variables.pop(key)
    # What stands along the axes of a frame is the same at each point.
    for key in map(str, dataset.coords):
        along = cast("Any", dataset.variables[key])
        if "time" not in along.dims:
            coordinates.setdefault(key, along)
    return xr.Dataset(variables, coordinates, attrs=dataset.attrs)


def scan_shape(start: Start) -> tuple[int, ...]:
    """Return the number of points along each axis, slowest first.

    Raises
    ------
    DocumentError
        The run is no grid scan.
    """
    shape = start.get("shape")
    if not is_list(shape) or not all(is_integer(n) and n > 0 for n in shape):
        raise DocumentError(
            f"run {start.get('scan_id', start.get('uid'))} is no grid scan: its start "
            "document has no 'shape'; use read()"
        )
    return tuple(shape)


def scan_axes(start: Start, stream: str, rank: int) -> list[list[str]]:
    """Return the fields of each axis, slowest first.

    Raises
    ------
    DocumentError
        The stream does not belong to the grid.
    """
    hints = start.get("hints")
    dimensions = hints.get("dimensions") if is_mapping(hints) else None
    if not is_list(dimensions) or len(dimensions) != rank:
        motors = start.get("motors")
        if is_list(motors) and len(motors) == rank:
            return [[str(motor)] for motor in motors]
        return [[] for _ in range(rank)]
    streams = {name for _, name in dimensions}
    if streams != {stream}:
        raise DocumentError(
            f"the stream {stream!r} does not belong to the grid, which is in "
            f"{', '.join(map(repr, sorted(streams)))}"
        )
    return [[str(field) for field in axis] for axis, _ in dimensions]


def scan_snaking(start: Start, names: list[str]) -> list[bool]:
    """Return which axes run back and forth; the slowest never does."""
    snaking = start.get("snaking")
    if is_list(snaking) and len(snaking) == len(names):
        return [bool(value) for value in snaking]
    pattern = start.get("plan_pattern_args")
    axes = start.get("snake_axes")
    if axes is None and is_mapping(pattern):
        axes = pattern.get("snake_axes")
    if axes in (True, "True"):
        return [False] + [True] * (len(names) - 1)
    # A list of the motors themselves, which a document holds as text.
    text = str(axes)
    return [
        number > 0 and f"'{n}'" in text.replace('"', "'")
        for number, n in enumerate(names)
    ]


def scan_cells(
    seq_nums: NDArray[np.integer[Any]], shape: tuple[int, ...], snaking: list[bool]
) -> NDArray[np.intp]:
    """Return the flat position of each event in the grid, -1 outside."""
    order = np.asarray(seq_nums, np.int64) - 1
    inside = (order >= 0) & (order < int(np.prod(shape)))
    places = list(np.unravel_index(np.where(inside, order, 0), shape))
    # How often the axes before this one have stepped says which way it runs.
    steps = np.zeros_like(order)
    for axis, size in enumerate(shape):
        forward = places[axis]
        if snaking[axis]:
            places[axis] = np.where(steps % 2, size - 1 - forward, forward)
        steps = steps * size + forward
    flat = np.ravel_multi_index(tuple(places), shape)
    return np.where(inside, flat, -1)


def check_fits(events: int, shape: tuple[int, ...]) -> None:
    """Raise if there are more events than points.

    Raises
    ------
    DocumentError
        Which of them were at which point is not known.
    """
    points = int(np.prod(shape))
    if events > points:
        raise DocumentError(
            f"there are {events} events for the {points} points of the scan, so that "
            "nothing says where each belongs; read() has them all"
        )


def axis_fields(start: Start) -> list[str]:
    """Return the fields that a scan's axes are made of, as its hints say."""
    hints = start.get("hints")
    dimensions = hints.get("dimensions") if is_mapping(hints) else None
    found: list[str] = []
    for dimension in dimensions if is_list(dimensions) else ():
        if is_list(dimension) and len(dimension) == 2 and is_list(dimension[0]):
            found += [str(field) for field in dimension[0]]
    return found


def _spread(
    values: Any, rows: NDArray[np.intp], shape: tuple[int, ...], fill: Any = None
) -> Any:
    """Return ``values`` with their first axis spread over the grid."""
    missing = bool((rows < 0).any())
    rest = tuple(values.shape[1:])
    if not missing:
        return values[rows].reshape(shape + rest)
    dtype: np.dtype[Any] = values.dtype
    if fill is not None:
        # A fill that the type cannot hold widens it.
        with np.errstate(invalid="ignore"):
            kept = np.array(fill).astype(dtype, casting="unsafe")
        if not bool(np.all(kept == np.array(fill))):
            dtype = np.result_type(dtype, np.array(fill).dtype)
    elif dtype.kind in "OUSb":
        dtype = np.dtype(object)
    else:
        fill = np.nan
        dtype = np.result_type(dtype, np.float32)
    if is_array(values):
        padded = np.full((len(values) + 1, *rest), fill, dtype)
        padded[:-1] = values
    else:
        import dask.array

        da: Any = dask.array
        blank = da.full((1, *rest), fill, dtype=dtype, chunks=(1, *rest))
        padded = da.concatenate([values.astype(dtype), blank])
    return padded[rows].reshape(shape + rest)


def axis_positions(grid: NDArray[Any], axis: int, start: Start) -> NDArray[np.float64]:
    """Return the position of each step of an axis."""
    readings = np.moveaxis(np.asarray(grid, np.float64), axis, 0)
    readings = readings.reshape(readings.shape[0], -1)
    measured = np.isfinite(readings)
    counts = measured.sum(axis=1)
    sums = np.where(measured, readings, 0).sum(axis=1)
    values = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    unknown = np.isnan(values)
    extents = start.get("extents")
    if unknown.any() and is_list(extents) and axis < len(extents):
        first, last = (float(end) for end in extents[axis])
        planned = np.linspace(first, last, len(values), dtype=np.float64)
        # A relative scan's extents are relative to where it began.
        offset = 0.0 if unknown.all() else float(np.nanmedian(values - planned))
        values = np.where(unknown, planned + offset, values)
    return values
