"""Names of fields in a table or Dataset, where two of them are taken by the rows."""

from __future__ import annotations

from collections.abc import Container, Iterable

ROWS = ("seq_num", "time")
"""What tells the rows of every table and Dataset apart."""


def variable_names(keys: Iterable[str]) -> dict[str, str]:
    """Return the name of each field: its own, but for those that are of the rows.

    ``time`` becomes ``time_value``, or ``time_value_`` if there is such a field too.

    Parameters
    ----------
    keys
        All data keys of the stream.
    """
    known = list(keys)
    return {
        key: free_name(f"{key}_value", known) if key in ROWS else key for key in known
    }


def free_name(name: str, taken: Container[str]) -> str:
    """Return a name that no other has: with underscores behind it until it is free."""
    while name in taken:
        name += "_"
    return name
