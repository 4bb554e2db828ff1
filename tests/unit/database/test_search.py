"""Finding runs."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from bluesky_beamtime.database import Runs, SampleMetadata
from bluesky_beamtime.database.conditions import make_conditions
from bluesky_beamtime.database.search import count_incomplete
from bluesky_beamtime.errors import RunNotFoundError


@pytest.fixture
def filled(record, runs):
    """Give a database of twelve runs; the time of each is a day later."""
    for number in range(12):
        start = {
            "uid": f"{'ab'[number % 2]}{number:04d}-{'x' * 30}",
            "time": 86400.0 * (number + 1),
            "scan_id": number // 2 + 1,
            "plan_name": ["count", "scan"][number % 2],
            "sample": ["LaB6", "Si 100%"][number % 3 == 0],
            "tags": ["odd"] * (number % 2) + ["low"] * (number < 6),
            "operator": f"Zoë_{number}",
            "optics": {"energy": 10.0 + number, "mirror.stripe": "Rh", "$n": number},
            "flag": number == 3,
            "nothing": None,
            "one": 1,
            "list": [number, "a"],
            "x.y": number,
            "quote": 'say "hi" \\ ü',
            "nan": float("nan"),
        }
        record([("start", start)])
        if number != 5:
            reason = "beam dump" if number == 7 else ""
            stop = {
                "uid": f"stop{number}",
                "time": start["time"] + 10,
                "run_start": start["uid"],
                "exit_status": "fail" if reason else "success",
                "reason": reason,
            }
            record([("start", start), ("stop", stop)])
    return runs


def found(runs: Runs, **search) -> list[int]:
    metadata = search.pop("metadata", None)
    conditions = make_conditions(metadata=metadata, **search)
    result = Runs(runs._database, runs._journal, conditions)
    numbers = [int(run.uid[1:5]) for run in result]
    assert len(result) == len(numbers)
    assert bool(result) is bool(numbers)
    return numbers


def local(day: int, hour: int = 0) -> dt.datetime:
    return dt.datetime(1970, 1, day, hour)


def test_the_newest_come_first(filled) -> None:
    assert found(filled) == list(range(11, -1, -1))
    assert repr(filled) == "<12 runs, newest first>"


def test_it_is_a_sequence(filled) -> None:
    everything = list(filled)
    assert filled[0] == everything[0]
    assert filled[-1] == everything[-1]
    assert filled[11] == everything[11]
    for cut in (
        slice(None, 3),
        slice(2, 9, 3),
        slice(-2, None),
        slice(None, None, -1),
        slice(5, 2),
    ):
        assert filled[cut] == everything[cut]
    for index in (12, -13):
        with pytest.raises(IndexError, match="only 12 runs"):
            filled[index]


def test_iterating_while_runs_come_gives_each_once(filled, record) -> None:
    seen = []
    for number, run in enumerate(filled):
        seen.append(run.uid)
        if number < 3:
            record([("start", {"uid": f"new{number}", "time": 1.0})])
    assert len(seen) == len(set(seen)) == 12


@pytest.mark.parametrize(
    ("search", "numbers"),
    [
        ({"plan_name": "scan"}, [11, 9, 7, 5, 3, 1]),
        ({"plan_name": "sca"}, []),
        ({"sample": "Si 100%"}, [9, 6, 3, 0]),
        ({"sample": SampleMetadata("LaB6"), "plan_name": "count"}, [10, 8, 4, 2]),
        ({"sample": "nobody"}, []),
        ({"tags": "odd"}, [11, 9, 7, 5, 3, 1]),
        ({"tags": ["odd", "low"]}, [5, 3, 1]),
        ({"tags": []}, list(range(11, -1, -1))),
        ({"tags": "od"}, []),
        ({"since": 86400.0 * 10}, [11, 10, 9]),
        ({"since": 86400 * 10, "until": 86400 * 11}, [10, 9]),
        ({"text": "zOë_3"}, [3]),
        ({"metadata": {"scan_id": 2**70}}, []),
        ({"text": "Zoë_3"}, [3]),
        ({"text": "ZO"}, list(range(11, -1, -1))),
        ({"text": "Beam dump"}, [7]),
        ({"text": "si 100%"}, [9, 6, 3, 0]),
        ({"text": "_1%"}, []),
        ({"text": 'say "hi" \\ ü'}, list(range(11, -1, -1))),
        ({"text": "100"}, [9, 6, 3, 0]),
        ({"metadata": {"scan_id": 3}}, [5, 4]),
        ({"metadata": {"operator": "Zoë_3"}}, [3]),
        ({"metadata": {"operator": 3}}, []),
        ({"metadata": {"optics.energy": 12}}, [2]),
        ({"metadata": {"optics.energy": 12.0}}, [2]),
        ({"metadata": {"optics.energy": np.float64(12)}}, [2]),
        ({"metadata": {"optics.energy": "12.0"}}, []),
        ({"metadata": {"optics.$n": 4}}, [4]),
        ({"metadata": {"x.y": 4}}, [4]),
        ({"metadata": {"flag": True}}, [3]),
        ({"metadata": {"flag": 1}}, []),
        ({"metadata": {"one": True}}, []),
        ({"metadata": {"nothing": None, "flag": True}}, [3]),
        ({"metadata": {"absent": None}}, []),
        ({"metadata": {"list": [4, "a"]}}, [4]),
        (
            {"metadata": {"optics": {"energy": 14.0, "mirror.stripe": "Rh", "$n": 4}}},
            [4],
        ),
        ({"metadata": {"nan": float("nan"), "x.y": 1}}, [1]),
        ({"metadata": {"nan": float("inf")}}, []),
        ({"metadata": {"'; DROP TABLE runs; --": 1}}, []),
        ({"metadata": {"operator": "'; DROP TABLE runs; --"}}, []),
    ],
)
def test_searches(filled, search, numbers) -> None:
    assert found(filled, **search) == numbers


@pytest.mark.parametrize(
    ("search", "numbers"),
    [
        ({"since": local(11)}, [11, 10, 9]),
        ({"since": "1970-01-11"}, [11, 10, 9]),
        ({"since": dt.date(1970, 1, 11)}, [11, 10, 9]),
        ({"since": "1970-01-11T00:00:00Z"}, [11, 10, 9]),
        ({"since": "1970-01-11T02:00+01:00"}, [11, 10]),
        ({"until": "1970-01-02"}, [0]),
        ({"until": dt.date(1970, 1, 2)}, [0]),
        ({"until": local(2)}, [0]),
        ({"until": "1970-01-01T23:59"}, []),
    ],
)
def test_times_are_local_unless_they_say_otherwise(
    filled, search, numbers, monkeypatch
) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        assert found(filled, **search) == numbers
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("moment", ["yesterday", "2026-13-01", ""])
def test_what_is_no_time_is_named(moment) -> None:
    with pytest.raises(ValueError, match="no time: give ISO text"):
        make_conditions(since=moment)


def test_a_key_that_no_path_can_name_is_refused() -> None:
    with pytest.raises(ValueError, match="quotation mark"):
        make_conditions(metadata={'a"b': 1})


def test_one_run_by_number_age_or_uid(filled) -> None:
    assert filled.by_scan_id(3).uid.startswith("b0005")
    assert filled.newest(0).uid.startswith("b0011")
    assert filled.newest(11).uid.startswith("a0000")
    assert filled.by_uid("a0004").uid.startswith("a0004-xx")
    full = filled.by_uid("a0004").uid
    assert filled.by_uid(full).uid == full


def test_a_uid_that_begins_another_is_found(filled, record) -> None:
    record([("start", {"uid": "a0004", "time": 1.0})])
    assert filled.by_uid("a0004").uid == "a0004"


def test_what_is_not_there_says_what_is(filled, runs) -> None:
    with pytest.raises(RunNotFoundError, match="run from 1 to 6"):
        filled.by_scan_id(99)
    with pytest.raises(KeyError):
        filled.by_scan_id(2**70)
    with pytest.raises(RunNotFoundError, match=r"no run \[-13\]: there are 12 runs"):
        filled.newest(12)
    with pytest.raises(RunNotFoundError, match="no run whose uid begins with 'zz'"):
        filled.by_uid("zz")
    with pytest.raises(RunNotFoundError, match=r"give more of it: b0011.* and more"):
        filled.by_uid("b")
    with pytest.raises(RunNotFoundError, match="beginning of several"):
        filled.by_uid("")
    for hostile in ("%", "_", "'", "\0"):
        with pytest.raises(RunNotFoundError):
            filled.by_uid(hostile)


def test_an_empty_beamtime_says_so(runs) -> None:
    assert len(runs) == 0
    assert not runs
    with pytest.raises(RunNotFoundError, match="no run yet"):
        runs.newest(0)
    with pytest.raises(RunNotFoundError, match="no run yet"):
        runs.by_scan_id(1)


def test_runs_that_are_not_complete_are_counted(filled) -> None:
    assert count_incomplete(filled._database, filled._journal) == 0
