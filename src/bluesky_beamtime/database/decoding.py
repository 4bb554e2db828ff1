"""JSON text back into values; see :mod:`bluesky_beamtime.database.encoding`."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import io
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import orjson

from bluesky_beamtime.database.encoding import ArrayReference
from bluesky_beamtime.database.kinds import is_list, shown
from bluesky_beamtime.errors import DocumentError


def decode(text: str | bytes) -> Any:
    """Return the value that :func:`encode` was given.

    An array in the Zarr store comes back as an :class:`ArrayReference`.

    Raises
    ------
    DocumentError
        The text is damaged.
    """
    try:
        value = orjson.loads(text)
    except ValueError:
        try:
            value = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise DocumentError(
                f"a stored document is damaged, it is no JSON: {shown(text)}"
            ) from error
    marked = '"$' in text if isinstance(text, str) else b'"$' in text
    return untag(value) if marked else value


def untag(value: Any) -> Any:
    """Return what a value of parsed JSON stands for, its tags taken off."""
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        if len(mapping) == 1:
            ((key, item),) = mapping.items()
            untagger = _UNTAGGERS.get(key)
            if untagger is not None:
                try:
                    return untagger(item)
                except (TypeError, ValueError, KeyError, ArithmeticError) as error:
                    raise DocumentError(
                        f"a stored value is damaged: {str(mapping)[:80]}"
                    ) from error
        return {
            key[1:] if key.startswith("$$") else key: untag(item)
            for key, item in mapping.items()
        }
    if isinstance(value, list):
        return [untag(item) for item in cast("list[Any]", value)]
    return value


def _json_to_array(described: dict[str, Any]) -> np.ndarray[Any, Any]:
    shape = tuple(described["shape"])
    if "items" in described:
        dtype = (
            np.dtypes.StringDType()
            if described["dtype"] == "StringDType()"
            else np.dtype(object)
        )
        array = np.empty(math.prod(shape), dtype)
        for index, item in enumerate(described["items"]):
            array[index] = untag(item)
        return array.reshape(shape)
    buffer = io.BytesIO(base64.b64decode(described["npy"]))
    return np.load(buffer, allow_pickle=False)


_UNTAGGERS: dict[str, Callable[[Any], Any]] = {
    "$float": float,
    "$int": lambda item: int(item, 0),
    "$complex": lambda item: complex(untag(item[0]), untag(item[1])),
    "$bytes": base64.b64decode,
    "$str": lambda item: base64.b64decode(item).decode("utf-8", "surrogatepass"),
    "$datetime": dt.datetime.fromisoformat,
    "$date": dt.date.fromisoformat,
    "$time": dt.time.fromisoformat,
    "$timedelta": lambda item: dt.timedelta(item[0], item[1], item[2]),
    "$path": pathlib.PurePath,
    "$decimal": decimal.Decimal,
    "$set": lambda item: {_hashable(member) for member in untag(item)},
    "$frozenset": lambda item: frozenset(map(_hashable, untag(item))),
    "$map": lambda item: {_hashable(untag(k)): untag(v) for k, v in item},
    "$ndarray": _json_to_array,
    "$scalar": lambda item: _json_to_array(item)[()],
    "$array": lambda item: ArrayReference(item["path"], item["index"], item["dtype"]),
    "$repr": untag,
}


def _hashable(key: Any) -> Any:
    """Return a key or a member of a set, whose tuples came back as lists."""
    return tuple(_hashable(item) for item in key) if is_list(key) else key
