"""Which values a PostgreSQL driver may be left alone with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bluesky_beamtime.sinks.postgres_types import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    NUMERIC,
    TEXT,
    TIME,
    are_left_to_driver,
)

KINDS = (TEXT, TIME, BIGINT, DOUBLE, DOUBLE, BOOLEAN)
ROW = ("daq", datetime(2026, 11, 21, tzinfo=UTC), 1, 0.5, -0.0, True)


@pytest.mark.parametrize(
    ("place", "value", "left"),
    [
        (2, None, True),
        (3, None, True),
        (3, float("nan"), True),
        (2, -0.5, False),  # the driver would store 0
        (2, True, False),
        (3, 2**53 + 1, False),  # and this one rounded
        (4, 1, False),
        (4, True, False),
        (4, "1", False),
        (0, 1, True),  # these it refuses itself
        (1, "2026-11-21", True),
        (5, 1, True),
    ],
)
def test_D_44_D_62_what_the_driver_would_change_is_looked_at(
    place: int, value: Any, left: bool
) -> None:
    """D-44, D-62: COPY is strict, but not with numbers."""
    rows = [ROW, (*ROW[:place], value, *ROW[place + 1 :]), ROW]
    assert are_left_to_driver(KINDS, rows) is left


@pytest.mark.parametrize("kinds", [(NUMERIC,), ("json",), (TEXT, "real")])
def test_D_44_other_types_are_always_looked_at(kinds: tuple[str, ...]) -> None:
    """D-44: those of a table that somebody made."""
    assert not are_left_to_driver(kinds, [("1",) * len(kinds)])


def test_D_44_a_single_number_is_looked_at_too() -> None:
    """D-44: as in a table of one column."""
    assert are_left_to_driver((DOUBLE,), [(1.0,), (2.0,)])
    assert not are_left_to_driver((DOUBLE,), [(1.0,), (2,)])
