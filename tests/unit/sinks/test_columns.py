"""The columns of a table, apart from any sink: what is new, dropped, or another's."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from bluesky_beamtime.errors import SinkSchemaError
from bluesky_beamtime.sinks.columns import Columns


def test_D_43_a_dropped_column_is_warned_of_once_whatever_stands_beside_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """D-43: devices in turns, each with that column, are no flood of warnings."""
    columns = Columns("drop", "x", ["a", "b"])
    for batch in (("a", "new"), ("b", "new"), ("new", "a", "b"), ("a", "new")):
        assert columns.missing(batch) == []
        columns.fit(batch, [tuple(batch)])
    columns.missing(("a", "newer"))
    dropped = [record.__dict__["column"] for record in caplog.records]
    assert dropped == ["new", "newer"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_D_43_values_stand_under_their_names_in_any_order() -> None:
    """D-26, D-43: None where a batch has nothing for a column."""
    columns = Columns("evolve", "x", ["a", "b", "c"])
    assert columns.fit(("c", "a"), [(3, 1)]) == [(1, None, 3)]
    assert columns.missing(("d", "a")) == ["d"]
    columns.add(["d"])
    assert columns.fit(("d", "a"), [(4, 1)]) == [(1, None, None, 4)]
    assert columns.fit(("c", "a"), [(3, 1)]) == [(1, None, 3, None)]


def test_D_43_names_that_databases_take_for_one_are_numbered() -> None:
    """D-43, D-46: in the order in which they came, also from batch to batch."""
    columns = Columns("evolve", "x")
    columns.add(columns.missing(("Temp", "TEMP", "temp")))
    assert columns.names == ["Temp", "TEMP_2", "temp_3"]
    assert columns.fit(("Temp", "TEMP", "temp"), [(1, 2, 3)]) == [(1, 2, 3)]
    assert columns.fit(("temp", "Temp"), [(3, 1)]) == [(1, None, 3)]
    assert columns.missing(("temp",)) == []
    assert columns.missing(("teMp",)) == ["teMp_4"]


@pytest.mark.parametrize("last", [("T", "t"), ("T", "t_2"), ("t", "t_2"), ("t_2",)])
@pytest.mark.parametrize("at_once", [True, False])
def test_D_43_a_number_is_not_taken_for_the_name_of_another(
    last: tuple[str, ...], at_once: bool
) -> None:
    """D-43: a channel that is called as another would be numbered keeps its values."""
    columns = Columns("evolve", "x")
    for batch in [("T", "t", "t_2")] if at_once else [("T", "t"), ("T", "t_2")]:
        columns.add(columns.missing(batch))
    (row,) = columns.fit(("T", "t", "t_2"), [("T", "t", "t_2")])
    assert columns.names is not None
    assert sorted(row) == ["T", "t", "t_2"]
    assert columns.missing(last) == []
    (found,) = columns.fit(last, [last])
    assert found == tuple(name if name in last else None for name in row)


@pytest.mark.parametrize("policy", ["evolve", "drop", "raise"])
def test_D_43_the_first_call_decides_with_all_of_its_batches(policy: Any) -> None:
    """D-43: whatever the policy is, and in the order of calls with a batch each."""
    columns = Columns(policy, "x")
    assert columns.learn([("a", "b"), ("a", "c"), ("b", "c")]) == ["a", "b", "c"]
    assert columns.fit(("b", "c"), [(2, 3)]) == [(None, 2, 3)]
    if policy == "evolve":
        assert columns.learn([("a",), ("d", "a"), ("e", "d")]) == ["d", "e"]
    elif policy == "drop":
        assert columns.learn([("a",), ("d", "a")]) == []
    else:
        with pytest.raises(SinkSchemaError, match="'d'"):
            columns.learn([("a",), ("d", "a")])
    empty = Columns(policy, "x")
    assert empty.learn([()]) == []
    assert empty.names == []


def test_D_43_raise_names_every_column_that_is_not_there() -> None:
    """D-43: and what could be done; the table stays as it is."""
    columns = Columns("raise", "table 'x'", ["a"])
    with pytest.raises(SinkSchemaError, match=r"table 'x'.*'b', 'c'.*evolve.*drop"):
        columns.missing(("a", "b", "c"))
    assert columns.names == ["a"]
