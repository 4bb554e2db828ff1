"""Runs in another order, by the page, and the values of their keys."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_beamtime.database import Runs
from bluesky_beamtime.database.conditions import make_conditions


@pytest.fixture
def filled(record, runs):
    energies = [7.0, None, 12.5, 9, 9, 11]
    for number, energy in enumerate(energies):
        start = {
            "uid": f"r{number}",
            "time": 100.0 - number,
            "scan_id": 10 + number,
            "plan_name": ["count", "scan", "scan"][number % 3],
            "sample": ["b", "a"][number % 2],
            "tags": ["odd"] * (number % 2) + ["all"],
            "users": ["Ada", "Bob"][: number % 3],
            "flag": number < 2,
            "list": [1, "x"] if number == 4 else [2],
            "x.y": number // 2,
            "map": {"b": 1},
        }
        if energy is not None:
            start["optics"] = {"energy": energy}
        record([("start", start)])
        if number == 3:
            stop = {
                "uid": "s",
                "run_start": "r3",
                "time": 200.0,
                "exit_status": "success",
            }
            record([("stop", stop)])
    return runs


def uids(runs: Any) -> str:
    return "".join(run.uid[1:] for run in runs)


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        (["time"], "543210"),
        (["-time"], "012345"),
        (["scan_id"], "012345"),
        (["uid"], "012345"),
        (["-uid"], "543210"),
        (["optics.energy"], "043521"),
        (["-optics.energy"], "254301"),
        (["plan_name"], "305421"),
        (["plan_name", "time"], "305421"),
        (["plan_name", "-time"], "031245"),
        (["sample"], "531420"),
        (["-sample", "scan_id"], "024135"),
        (["x.y"], "105432"[0:2] + "3254"),
        (["duration"], "354210"),
        (["exit_status"], "354210"),
        (["nobody has this"], "543210"),
    ],
)
def test_orders(filled, keys, order) -> None:
    ordered = filled.sorted_by(*keys)
    assert uids(ordered) == order
    assert len(ordered) == 6
    assert uids(ordered[1:4]) == order[1:4]
    assert uids([ordered[0], ordered[-1]]) == order[0] + order[-1]
    assert repr(ordered) == "<6 runs, sorted>"


def test_order_of_a_search(filled) -> None:
    conditions = make_conditions(plan_name="scan", text="Ada")
    found = Runs(filled._database, filled._journal, conditions)
    assert uids(found) == "5421"
    assert uids(found.sorted_by("optics.energy")) == "4521"
    assert uids(found.sorted_by("time").limit(2, skip=1)) == "42"


def test_pages(filled) -> None:
    assert uids(filled.limit(2)) == "54"
    assert uids(filled.limit(2, skip=2)) == "32"
    assert uids(filled.limit(4, skip=4)) == "10"
    assert uids(filled.limit(0)) == uids(filled.limit(3, skip=6)) == ""
    page = filled.limit(3, skip=1)
    assert len(page) == 3
    assert uids(page[:]) == uids(page[0:99]) == "432"
    assert uids([page[0], page[-1]]) == "42"
    with pytest.raises(IndexError):
        page[3]
    assert not filled.limit(3, skip=6)
    assert len(filled.limit(3, skip=6)) == 0
    assert [line["uid"] for line in page.summaries()] == ["r4", "r3", "r2"]


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7])
def test_pages_end_to_end(filled, monkeypatch, size) -> None:
    monkeypatch.setattr("bluesky_beamtime.database.search._PAGE", size)
    assert uids(filled) == "543210"
    assert uids(filled.sorted_by("time")) == "543210"
    assert uids(filled.limit(5)) == "54321"


def test_what_cannot_be_sorted_or_paged_is_named(filled) -> None:
    for keys in ((), ("",), ("-",)):
        with pytest.raises(ValueError, match="give a key to sort by, such as time"):
            filled.sorted_by(*keys)
    with pytest.raises(ValueError, match="quotation mark"):
        filled.sorted_by('a"b')
    for number, skip in ((-1, 0), (1, -1)):
        with pytest.raises(ValueError, match="no negative size"):
            filled.limit(number, skip=skip)
    for change in (
        lambda page: page.limit(1),
        lambda page: page.sorted_by("time"),
        lambda page: page.distinct("time"),
    ):
        with pytest.raises(ValueError, match="of a page: call it before limit"):
            change(filled.limit(2))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("plan_name", {"scan": 4, "count": 2}),
        ("sample", {"a": 3, "b": 3}),
        ("tags", {"all": 6, "odd": 3}),
        ("user", {"Ada": 4, "Bob": 2}),
        ("exit_status", {"success": 1}),
        ("flag", {False: 4, True: 2}),
        ("list", {(2,): 5, (1, "x"): 1}),
        ("map", {'{"b":1}': 6}),
        ("optics.energy", {9: 2, 11: 1, 12.5: 1, 7.0: 1}),
        ("x.y", {0: 2, 1: 2, 2: 2}),
        ("nobody has this", {}),
        ("proposal", {}),
    ],
)
def test_distinct_values(filled, key, values) -> None:
    found = filled.distinct(key)
    assert found == values
    assert list(found.values()) == sorted(values.values(), reverse=True)
    assert [type(value) for value in found] == [type(value) for value in values]


def test_distinct_values_of_a_search(filled) -> None:
    conditions = make_conditions(text="Ada", plan_name="scan")
    found = Runs(filled._database, filled._journal, conditions)
    assert found.distinct("sample") == {"a": 2, "b": 2}
    assert found.distinct("optics.energy") == {11: 1, 12.5: 1, 9: 1}


@pytest.mark.parametrize(
    ("search", "error"),
    [
        ({"plan_name": 3}, "plan_name is searched by text"),
        ({"sample": 3}, "sample is searched by text"),
        ({"tags": [3]}, "a tag is searched by text"),
        ({"user": 3}, "user is searched by text"),
        ({"exit_status": True}, "exit_status is searched by text"),
    ],
)
def test_what_cannot_be_searched_is_named(search, error) -> None:
    with pytest.raises(TypeError, match=error):
        make_conditions(**search)
