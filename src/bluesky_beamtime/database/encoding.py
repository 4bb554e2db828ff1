"""Values as JSON text that gives back every value.

The database, the journal and the exports hold documents as plain JSON, readable by any
tool. What JSON lacks stands in an object with a single key that starts with ``$``:

==============================  ===================================================
``{"$float": "nan"}``           NaN; also ``"inf"`` and ``"-inf"``
``{"$int": "1180591620717…"}``  an integer of more than 64 bits
``{"$complex": [re, im]}``      a complex number
``{"$bytes": "…"}``             bytes, base64
``{"$str": "…"}``               text with lone surrogates, base64 of its UTF-8
``{"$datetime": "…"}``          a :class:`~datetime.datetime`, ISO 8601; also
                                ``$date``, ``$time`` and ``$timedelta`` (days, s, µs)
``{"$path": "…"}``              a :class:`~pathlib.PurePath`
``{"$decimal": "…"}``           a :class:`~decimal.Decimal`
``{"$set": […]}``               a set; ``$frozenset`` a frozen one
``{"$map": [[key, value], …]}``  a mapping with keys that are not text
``{"$ndarray": {…}}``           an array: ``dtype``, ``shape``, and ``npy`` (base64 of a
                                ``.npy`` file) or ``items`` (objects, variable text)
``{"$scalar": {…}}``            the same for a NumPy scalar that is no Python number
``{"$array": {…}}``             an array in the Zarr store (path, index, dtype)
``{"$repr": "…"}``              the text of an object that has no other form
==============================  ===================================================

A real key that starts with ``$`` gets one more ``$``. Tuples become lists, NumPy
numbers Python numbers, members of an :class:`~enum.Enum` their values, UUIDs text, and
pydantic models (ophyd-async's tables are some) mappings of their fields. Where an array
is masked stands NaN, or None where its type has none.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import io
import json
import math
import numbers
import operator
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import orjson

from bluesky_beamtime.database.kinds import is_array, is_integer, is_model
from bluesky_beamtime.database.masked import is_masked, without_mask
from bluesky_beamtime.errors import DocumentError

# Subclasses must not be written as their base by accident: a namedtuple or a
# defaultdict takes the exact way below.
_OPTIONS = (
    orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
)
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
# Python refuses to print integers of more than 4300 digits.
_DECIMAL_BITS = 10_000


@dataclass(frozen=True, slots=True)
class ArrayReference:
    """Says where in the Zarr store an array of a document is."""

    path: str
    """Path of the Zarr array, relative to the root of the store."""
    index: int
    """Position along its first axis."""
    dtype: str
    """Dtype with the byte order that the document had, such as ``">u2"``."""


def encode_plain(value: Any) -> str | None:
    """Return JSON text if ``value`` needs no tag at all, else None.

    Costs about a microsecond for the data of an ordinary event. A value that merely
    looks as if it needed a tag (None, text that starts with ``$``) gives None as well.
    """
    try:
        text = orjson.dumps(value, _python_number, _OPTIONS)
    except TypeError:
        return None
    # NaN and infinities come out as null, so "no null" proves that there was none.
    if b"null" in text or b'"$' in text:
        return None
    return text.decode()


def encode(value: Any, lost: list[str] | None = None) -> str:
    """Return JSON text from which ``decode`` makes ``value`` again.

    Parameters
    ----------
    value
        Anything.
    lost
        Gets a description of every object that can only be kept as its ``repr``, and
        of every array without its mask.

    Raises
    ------
    DocumentError
        The value contains itself, or is nested hundreds of levels deep.
    """
    plain = encode_plain(value)
    if plain is not None:
        return plain
    try:
        return _dump(_tag(value, [] if lost is None else lost))
    except RecursionError:
        raise DocumentError(
            "a value that contains itself or is nested too deeply cannot be stored; "
            "flatten it"
        ) from None


def _python_number(value: Any) -> Any:
    """Give orjson what a NumPy scalar or a subclass amounts to, where that is exact."""
    if type(value) is np.bool or isinstance(value, bool):
        return bool(value)
    if is_integer(value):
        return operator.index(value)
    if isinstance(value, float) or type(value) in (np.float32, np.float16):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError


def _dump(tagged: Any) -> str:
    try:
        return orjson.dumps(tagged).decode()
    except TypeError:
        # More than 254 levels.
        return json.dumps(tagged, ensure_ascii=False, separators=(",", ":"))


def _tag(value: Any, lost: list[str]) -> Any:
    kind = cast("type[Any]", type(value))
    tagger = _TAGGERS.get(kind)
    if tagger is not None:
        return tagger(value, lost)
    return _tag_unusual(value, lost)


def _tag_unusual(value: Any, lost: list[str]) -> Any:
    """Tag what is not exactly of a known type: subclasses and duck types."""
    if isinstance(value, enum.Enum):
        return _tag(value.value, lost)
    if is_masked(value):
        return _tag(without_mask(value, lost), lost)
    if is_array(value):
        return {"$ndarray": _array_to_json(value, lost)}
    if isinstance(value, np.generic):
        return _tag_numpy_scalar(cast("np.generic[Any]", value), lost)
    for kind, tagger in _TAGGERS.items():
        if isinstance(value, kind):
            return tagger(value, lost)
    if isinstance(value, Mapping):
        return _tag_mapping(cast("Mapping[Any, Any]", value), lost)
    if is_model(value):
        return _tag_mapping(dict(value), lost)
    if isinstance(value, pathlib.PurePath):
        return {"$path": str(value)}
    if isinstance(value, numbers.Integral):
        return _tag_int(int(value), lost)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        return _tag_float(float(value), lost)
    if hasattr(value, "__array__"):
        return _tag(np.asarray(value), lost)
    if isinstance(value, Set):
        return {"$set": _tag_list(list(cast("Set[Any]", value)), lost)}
    if isinstance(value, Sequence):
        return _tag_list(list(cast("Sequence[Any]", value)), lost)
    try:
        text = repr(value)
    except Exception:
        text = object.__repr__(value)
    lost.append(f"{type(value).__name__} {text[:80]}")
    return {"$repr": _tag_str(text, lost)}


def _tag_same(value: Any, lost: list[str]) -> Any:
    return value


def _tag_str(value: str, lost: list[str]) -> Any:
    value = str.__str__(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"$str": _base64(value.encode("utf-8", "surrogatepass"))}
    return value


def _tag_int(value: int, lost: list[str]) -> Any:
    value = operator.index(value)
    if _MIN_INT <= value <= _MAX_INT:
        return value
    exact = str(value) if value.bit_length() < _DECIMAL_BITS else hex(value)
    return {"$int": exact}


def _tag_float(value: float, lost: list[str]) -> Any:
    value = float(value)
    if math.isfinite(value):
        return value
    return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}


def _tag_complex(value: complex, lost: list[str]) -> Any:
    return {"$complex": [_tag_float(value.real, lost), _tag_float(value.imag, lost)]}


def _tag_list(value: Sequence[Any], lost: list[str]) -> Any:
    return [_tag(item, lost) for item in value]


def _tag_mapping(value: Mapping[Any, Any], lost: list[str]) -> Any:
    tagged: dict[str, Any] = {}
    for key, item in value.items():
        name = _tag_str(key, lost) if isinstance(key, str) else None
        if not isinstance(name, str):
            return {
                "$map": [[_tag(k, lost), _tag(v, lost)] for k, v in value.items()],
            }
        tagged[f"${name}" if name.startswith("$") else name] = _tag(item, lost)
    return tagged


def _tag_reference(value: ArrayReference, lost: list[str]) -> Any:
    return {
        "$array": {
            "path": value.path,
            "index": value.index,
            "dtype": value.dtype,
        }
    }


def _tag_timedelta(value: dt.timedelta, lost: list[str]) -> Any:
    return {"$timedelta": [value.days, value.seconds, value.microseconds]}


def _tag_numpy_scalar(value: np.generic[Any], lost: list[str]) -> Any:
    try:
        return _tag(_python_number(value), lost)
    except TypeError:
        pass
    if value.dtype.kind == "c" and value.dtype.char != "G":
        return _tag_complex(value.item(), lost)
    if isinstance(value, np.bytes_):
        return {"$bytes": _base64(bytes(value))}
    return {"$scalar": _array_to_json(np.asarray(value), lost)}


def _array_to_json(array: np.ndarray[Any, Any], lost: list[str]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
    }
    if array.dtype.hasobject or array.dtype.kind == "T":
        # tolist() of a structured array gives tuples, which objects would not survive;
        # such arrays come back as arrays of objects.
        described["items"] = _tag_list(array.ravel().tolist(), lost)
        described["dtype"] = "StringDType()" if array.dtype.kind == "T" else "object"
    else:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(array), allow_pickle=False)
        described["npy"] = _base64(buffer.getvalue())
    return described


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_TAGGERS: dict[type, Callable[[Any, list[str]], Any]] = {
    bool: _tag_same,
    type(None): _tag_same,
    str: _tag_str,
    int: _tag_int,
    float: _tag_float,
    complex: _tag_complex,
    list: _tag_list,
    tuple: _tag_list,
    dict: _tag_mapping,
    bytes: lambda value, lost: {"$bytes": _base64(value)},
    bytearray: lambda value, lost: {"$bytes": _base64(bytes(value))},
    memoryview: lambda value, lost: {"$bytes": _base64(bytes(value))},
    # A datetime is a date too: it must come first.
    dt.datetime: lambda value, lost: {"$datetime": value.isoformat()},
    dt.date: lambda value, lost: {"$date": value.isoformat()},
    dt.time: lambda value, lost: {"$time": value.isoformat()},
    dt.timedelta: _tag_timedelta,
    decimal.Decimal: lambda value, lost: {"$decimal": str(value)},
    set: lambda value, lost: {"$set": _tag_list(list(value), lost)},
    frozenset: lambda value, lost: {"$frozenset": _tag_list(list(value), lost)},
    uuid.UUID: lambda value, lost: str(value),
    ArrayReference: _tag_reference,
}
