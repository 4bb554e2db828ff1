"""What a value of a document is: JSON's own types, and NumPy's beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

_EXACT_IN_FLOAT = 2**53


def is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    """Say whether a value is a mapping."""
    return isinstance(value, Mapping)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Say whether a value is a list; in documents a tuple is one too."""
    return isinstance(value, (list, tuple))


def texts_in(value: Any) -> list[str]:
    """Return the texts of a list, or a lone one; what else is there says nothing.

    A plan may say anything where names are wanted, and must not cost a plot or an
    export by that.
    """
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if is_list(value) else []


def mapping_in(value: Any) -> Mapping[Any, Any]:
    """Return a mapping; of what is none an empty one."""
    return value if is_mapping(value) else {}


def is_array(value: Any) -> TypeGuard[NDArray[Any]]:
    """Say whether a value is a NumPy array."""
    return isinstance(value, np.ndarray)


def is_integer(value: Any) -> TypeGuard[int]:
    """Say whether a value is an integer; a bool is none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Say whether a value is an integer or a real number; a bool is none."""
    return is_integer(value) or isinstance(value, (float, np.floating))


def is_model(value: Any) -> TypeGuard[Iterable[tuple[str, Any]]]:
    """Say whether a value is a pydantic model, such as a table of ophyd-async.

    Iterating over one gives the names and values of its fields.
    """
    return hasattr(cast("Any", type(value)), "model_fields") and hasattr(
        value, "__iter__"
    )


def shown(value: object) -> str:
    """Return the start of a value's ``repr`` for a message, whatever its class does.

    Documents hold what devices returned, and a ``repr`` may raise; an error that tells
    of a document must not be replaced by that.
    """
    try:
        return f"{value!r:.80}"
    except Exception:
        return object.__repr__(value)


def is_exact_as_float(value: Any) -> bool:
    """Say whether floats hold an integer, or all those of an array."""
    if is_array(value):
        if value.dtype.kind not in "iu" or not value.size:
            return True
        return is_exact_as_float(int(value.min())) and is_exact_as_float(
            int(value.max())
        )
    return type(value) is not int or -_EXACT_IN_FLOAT <= value <= _EXACT_IN_FLOAT
