"""What stands along the axes of an array, as its data key declares it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bluesky_beamtime.database.kinds import is_list, is_mapping, is_number

Coordinate = tuple[tuple[str, ...], Any, dict[str, Any]]
"""Dimensions, values and attributes, as xarray takes them."""


def declared_coordinates(
    data_key: Mapping[str, Any], sizes: Mapping[str, int]
) -> dict[str, Coordinate]:
    """Return the coordinates that a data key declares and that fit.

    A data key may hold ``coordinates``: by name ``dim``, the dimension along which they
    stand, and either ``values``, or ``start`` and ``step``; and ``units``. What does
    not fit is left out: other software may mean something else by the word.

    Parameters
    ----------
    data_key
        As in the descriptor.
    sizes
        Length of each dimension of the array.
    """
    declared: Any = data_key.get("coordinates")
    if not is_mapping(declared):
        return {}
    found: dict[str, Coordinate] = {}
    for name, said in declared.items():
        if not isinstance(name, str) or not is_mapping(said):
            continue
        dim = said.get("dim")
        size = sizes.get(dim) if isinstance(dim, str) else None
        if not isinstance(dim, str) or size is None or (name in sizes and name != dim):
            continue
        values = _values(said, size)
        if values is not None:
            units = said.get("units")
            found[name] = ((dim,), values, {} if units is None else {"units": units})
    return found


def _values(said: Mapping[str, Any], size: int) -> Any:
    values = said.get("values")
    if is_list(values):
        simple = all(isinstance(value, (str, int, float)) for value in values)
        return np.array(list(values)) if simple and len(values) == size else None
    start, step = said.get("start", 0.0), said.get("step")
    if is_number(start) and is_number(step):
        return float(start) + np.arange(size) * float(step)
    return None
