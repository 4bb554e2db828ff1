"""What a descriptor says of a field, where nobody said it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bluesky_beamtime.database.kinds import is_array, is_integer, is_mapping, is_number
from bluesky_beamtime.errors import DocumentError

SOURCE = "RunWriter"


def describe_value(value: Any) -> dict[str, Any]:
    """Return the data key of a field whose first value is ``value``."""
    if isinstance(value, (bool, np.bool)):
        return {"source": SOURCE, "dtype": "boolean", "shape": []}
    if is_integer(value):
        return {"source": SOURCE, "dtype": "integer", "shape": []}
    if is_number(value):
        return {"source": SOURCE, "dtype": "number", "shape": []}
    if is_array(value):
        key = {"source": SOURCE, "dtype": "array", "shape": list(value.shape)}
        return {**key, "dtype_numpy": value.dtype.str} if value.ndim else key
    if isinstance(value, (list, tuple)):
        shape = list(np.shape(np.asarray(value, dtype=object)))
        return {"source": SOURCE, "dtype": "array", "shape": shape}
    return {"source": SOURCE, "dtype": "string", "shape": []}


def complete_data_keys(data_keys: Any) -> dict[str, dict[str, Any]]:
    """Return data keys as the event model wants them, what is missing added.

    Parameters
    ----------
    data_keys
        By field: ``dtype``, ``shape``, ``units`` and so on, or nothing at all.

    Raises
    ------
    DocumentError
        They are no mapping of mappings.
    """
    if not is_mapping(data_keys):
        raise DocumentError(
            "data_keys is a mapping from the name of each field to what is known of "
            f"it, such as {{'x': {{'units': 'mm'}}}}, not {data_keys!r:.80}"
        )
    complete: dict[str, dict[str, Any]] = {}
    for field, key in data_keys.items():
        if not isinstance(field, str) or not is_mapping(key):
            raise DocumentError(
                f"the field {field!r:.80} is described by {key!r:.80}; give a mapping, "
                "such as {'dtype': 'number', 'shape': [], 'units': 'mm'}"
            )
        complete[field] = _complete(key)
    return complete


def _complete(key: Mapping[str, Any]) -> dict[str, Any]:
    shape = [int(size) if is_integer(size) else size for size in key.get("shape") or ()]
    known: dict[str, Any] = {
        "source": SOURCE,
        "dtype": "array" if shape else "number",
    }
    return {**known, **key, "shape": shape}
