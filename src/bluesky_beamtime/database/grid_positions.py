"""Grid scans that do not run row by row: the readings tell the cell of each event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.kinds import is_list, is_mapping
from bluesky_beamtime.errors import DocumentError

Start = Mapping[str, Any]

# Of a step: a reading farther from its point may as well belong to the next one.
_FARTHEST = 0.25


def runs_row_by_row(start: Start) -> bool:
    """Return whether the events of a grid scan come in the order of its cells.

    Bluesky's hint ``gridding`` says where they do not, as in a square spiral.
    """
    hints = start.get("hints")
    said = hints.get("gridding") if is_mapping(hints) else None
    return said != "rectilinear_nonsequential"


def cells_of_positions(
    start: Start, shape: tuple[int, ...], readings: Sequence[Any]
) -> NDArray[np.intp]:
    """Return the flat position of each event in the grid, by where it was measured.

    Parameters
    ----------
    start
        The RunStart document: its ``extents`` say where the axes run; those of a
        relative scan, relative to where it began.
    shape
        Points along each axis, slowest first.
    readings
        For each axis the readings of its motor at each event; None where they are not
        known.

    Raises
    ------
    DocumentError
        The readings do not give each event a cell of its own.
    """
    extents = start.get("extents")
    if not is_list(extents) or len(extents) != len(shape):
        raise _not_told("its start document has no 'extents' for each axis")
    steps = [
        _steps(number, size, extents[number], readings[number])
        for number, size in enumerate(shape)
    ]
    cells = np.ravel_multi_index(tuple(steps), shape)
    _, firsts, counts = np.unique(cells, return_index=True, return_counts=True)
    if (counts > 1).any():
        twice = cells[firsts[counts > 1][0]]
        first, second = np.flatnonzero(cells == twice)[:2] + 1
        raise _not_told(f"its events {first} and {second} are at the same point")
    return cells


def _steps(number: int, size: int, extent: Any, readings: Any) -> NDArray[np.intp]:
    """Return at which point of an axis each event is."""
    try:
        first, last = (float(end) for end in extent)
        values = np.asarray(readings, np.float64)
    except (TypeError, ValueError):
        values, first, last = np.array([np.nan]), 0.0, 0.0
    if values.ndim != 1 or not np.isfinite([*values, first, last]).all():
        raise _not_told(f"where axis {number} was at each event is not known")
    if size == 1 or first == last or not values.size:
        return np.zeros(values.shape, np.intp)
    found = (values - first) * ((size - 1) / (last - first))
    # A relative scan begins between the points that its extents speak of.
    offset = float(np.angle(np.exp(2j * np.pi * found).mean())) / (2 * np.pi)
    steps = np.rint(found - offset).astype(np.intp)
    low, high = int(steps.min()), int(steps.max())
    if np.abs(found - offset - steps).max() > _FARTHEST or high - low >= size:
        raise _not_told(
            f"the readings along axis {number} are not at {size} points as far from "
            "each other as its 'extents' say"
        )
    if low < 0 or high >= size:
        if high - low < size - 1:
            raise _not_told(f"which points of axis {number} were visited is not known")
        steps = steps - low
    return steps


def _not_told(why: str) -> DocumentError:
    return DocumentError(f"the scan does not run row by row, and {why}; use read()")
