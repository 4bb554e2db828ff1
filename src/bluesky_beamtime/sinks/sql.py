"""Names, columns and values of SQL tables, whatever is in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from bluesky_beamtime.sinks.layout import FLOATS, INTEGERS, TIMES, is_text
from bluesky_beamtime.sinks.texts import as_utf8

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def check_identifier(name: str, label: str) -> str:
    """Return the name of a table, if it is a plain one.

    Raises
    ------
    ValueError
        It is not made of letters, digits and underscores, or too long.
    """
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise ValueError(
            f"{label}={name!r}: a letter or underscore, then letters, digits or "
            "underscores, 63 at most"
        )
    return name


def check_word(label: str, value: str, known: tuple[str, ...]) -> str:
    """Return one of SQLite's words, in capitals.

    Raises
    ------
    ValueError
        It is none of those that are known.
    """
    if not isinstance(value, str) or value.upper() not in known:
        raise ValueError(f"{label}={value!r}: one of {', '.join(known)}")
    return value.upper()


def quote(name: str) -> str:
    """Return a name as an SQL identifier, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def define(name: str) -> str:
    """Return the definition of a column in SQLite: channels have no type."""
    if name in INTEGERS:
        return f"{quote(name)} INTEGER"
    if name in FLOATS:
        return f"{quote(name)} REAL"
    if name in TIMES or is_text(name):
        return f"{quote(name)} TEXT"
    return quote(name)


def mended(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows with what SQLite refuses as text that it takes.

    That is numbers of more than 64 bits, and text that is no UTF-8.
    """
    return [tuple(map(_mended_value, row)) for row in rows]


def _mended_value(value: Any) -> Any:
    if isinstance(value, str):
        return as_utf8(value)
    if type(value) is int and not -(2**63) <= value < 2**63:
        return str(value)
    return value
