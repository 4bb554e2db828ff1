"""Values as text: times in ISO 8601, errors, and JSON with its NaN tagged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, cast

import orjson

_ZONE = attrgetter("tzinfo")

_WHOLE = {bool, int, str, type(None)}


def iso_texts(moments: Sequence[datetime | None]) -> list[str | None]:
    """Return times as text, each as its ``isoformat`` would write it."""
    kinds = set(map(type, moments))
    if kinds == {type(None)}:
        return [None] * len(moments)
    if kinds == {datetime} and set(map(_ZONE, moments)) == {UTC}:
        # A tenth of the time that as many calls of isoformat take.
        text = orjson.dumps(moments if isinstance(moments, list) else list(moments))
        return cast("list[str | None]", text[2:-2].decode().split('","'))
    return [None if moment is None else moment.isoformat() for moment in moments]


def is_one_text(column: Sequence[Any]) -> bool:
    """Return whether a column holds one text, or None, in all of its rows.

    Devices, units and errors mostly do, and it takes little to see that: only text and
    None are nothing else's equals.
    """
    first = column[0]
    return (first is None or type(first) is str) and column.count(first) == len(column)


def to_json(value: Any) -> str:
    """Return JSON text of what belongs to a record; NaN and infinities are tagged."""
    return json.dumps(_tagged(value), ensure_ascii=False, default=str, allow_nan=False)


def _tagged(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_tagged_key(str(key)): _tagged(item) for key, item in items}
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        return items if _is_plain(items) else [_tagged(item) for item in items]
    tolist = getattr(value, "tolist", None)
    plain = tolist() if callable(tolist) else value
    # Extended precision has no number of Python's that it could become.
    return value if type(plain) is type(value) else _tagged(plain)


def _is_plain(items: Sequence[Any]) -> bool:
    """Say whether there is nothing to tag; waveforms have a million items."""
    kinds = set(map(type, items))
    return kinds <= _WHOLE or (kinds == {float} and all(map(math.isfinite, items)))


def _tagged_key(key: str) -> str:
    return f"${key}" if key.startswith("$") else key


def describe_error(error: BaseException) -> tuple[str, str]:
    """Return the name of an error's class, with its module, and its text."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}", str(error)


def as_utf8(text: str) -> str:
    """Return text that can be UTF-8: half of a surrogate pair becomes its escape.

    Devices cut texts, and a database of ours holds what they say; the exports write it
    like this.
    """
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def as_text(value: Any) -> Any:
    """Return a value as text tables hold it: times in ISO 8601, the rest as it is."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, complex):
        return str(value)
    return value
