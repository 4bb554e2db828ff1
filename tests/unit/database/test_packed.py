"""Columns of long runs: the same as their rows, and never believed against them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Database, event_table
from bluesky_beamtime.database.event_values import Gathered, pick
from bluesky_beamtime.database.packed import (
    FEWEST_EVENTS,
    load_packed,
    pack_stream,
    unpacked_streams,
)
from bluesky_beamtime.recording.packer import Packer
from bluesky_beamtime.testing import assert_documents_equal

KEY = {"source": "s", "dtype": "number", "shape": []}
COUNT = FEWEST_EVENTS + 3

VALUES: dict[str, list[Any]] = {
    "float": [0.1 * n for n in range(COUNT)],
    "nan": [float("nan") if n % 7 == 0 else float("-inf") for n in range(COUNT)],
    "int": [n - 2**62 for n in range(COUNT)],
    "whole": list(range(COUNT)),
    "bool": [n % 2 == 0 for n in range(COUNT)],
    "text": [f"é{n}" for n in range(COUNT)],
    "mixed": [n if n % 2 else n + 0.5 for n in range(COUNT)],
    "huge": [2**70 + n for n in range(COUNT)],
    "none": [None if n == 5 else n for n in range(COUNT)],
    "$dollar": [1.5] * COUNT,
    "list": [[n, n + 1] for n in range(COUNT)],
    "nans": [[float("nan"), n] for n in range(COUNT)],
    "complex": [complex(n, -1) for n in range(COUNT)],
    "seq_num": [1.0] * COUNT,
}
PACKED = {"float", "nan", "int", "whole", "bool", "$dollar", "seq_num"}


def documents(values: dict[str, list[Any]], uid: str = "r") -> list[tuple[str, Any]]:
    keys = {key: {**KEY} for key in values}
    keys |= {k: {**KEY, "dtype": "integer"} for k in ("int", "whole") if k in values}
    docs: list[tuple[str, Any]] = [
        ("start", {"uid": uid, "time": 1.0}),
        (
            "descriptor",
            {
                "uid": f"{uid}-d",
                "run_start": uid,
                "time": 1.0,
                "name": "primary",
                "data_keys": keys,
                "configuration": {},
            },
        ),
    ]
    count = len(next(iter(values.values())))
    for n in range(count):
        event = {
            "uid": f"{uid}-e{n}",
            "time": 10.0 + n,
            "data": {key: each[n] for key, each in values.items()},
            "timestamps": dict.fromkeys(values, 5.0 + n),
            "seq_num": n + 1,
            "filled": {},
            "descriptor": f"{uid}-d",
        }
        docs.append(("event", event))
    stop = {"uid": f"{uid}-s", "time": 9e9, "run_start": uid, "exit_status": "success"}
    return [*docs, ("stop", stop)]


@pytest.fixture(autouse=True)
def not_by_itself(monkeypatch) -> None:
    """Leave it to the tests when a run is packed."""
    monkeypatch.setattr(Packer, "stopped", lambda *args: None)


@pytest.fixture
def packed(record, database: Database) -> Any:
    run = record(documents(VALUES))
    before = (run.primary.read(), run.primary.timestamps())
    assert unpacked_streams(database) == ["r-d"]
    assert pack_stream(database, "r-d")
    assert unpacked_streams(database) == []
    return run, before


def assert_identical(one: xr.Dataset, other: xr.Dataset) -> None:
    """Compare types too, and objects that are NaN inside."""
    assert list(one.variables) == list(other.variables)
    for key, variable in one.variables.items():
        values, expected = variable.values, other[key].values
        assert values.dtype == expected.dtype, key
        for value, wanted in zip(values.tolist(), expected.tolist(), strict=True):
            assert type(value) is type(wanted), key
            np.testing.assert_equal(value, wanted)


def no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("rows were read")

    monkeypatch.setattr(event_table, "gather_rows", refuse)


def test_columns_give_what_the_rows_gave(packed: Any) -> None:
    run, (data, timestamps) = packed
    assert_identical(run.primary.read(), data)
    assert_identical(run.primary.timestamps(), timestamps)
    assert data["int"].dtype == np.int64
    assert data["int"].values[3] == 3 - 2**62
    assert data["whole"].dtype == np.int64
    assert_documents_equal(run.documents(), documents(VALUES))


def test_what_is_of_one_type_is_packed_and_nothing_else(packed, database) -> None:
    parts = [("data", key) for key in VALUES]
    assert set(load_packed(database, "r-d", parts)) == {
        ("seq_num", ""),
        ("time", ""),
        *(("data", key) for key in PACKED),
    }


def test_numbers_are_read_without_their_rows(packed, monkeypatch) -> None:
    run, (data, _) = packed
    no_rows(monkeypatch)
    fields = sorted(PACKED)
    dataset = run.primary.read(fields)
    for field in set(fields) - {"seq_num"}:
        np.testing.assert_array_equal(dataset[field], data[field])
    dataset["float"].values[0] = 17.0  # nobody else's memory
    assert len(run.primary.to_pandas(fields)) == COUNT
    with pytest.raises(AssertionError, match="rows were read"):
        run.primary.read(["text"])


def test_an_event_that_comes_late_is_read(packed, record) -> None:
    run, _ = packed
    more = {key: each[0] for key, each in VALUES.items()}
    event = {
        "uid": "late",
        "time": 1.0,
        "data": more,
        "timestamps": dict.fromkeys(more, 1.0),
        "seq_num": COUNT + 1,
        "filled": {},
        "descriptor": "r-d",
    }
    record([("start", {"uid": "r", "time": 1.0}), ("event", event)])
    assert run.primary.read(["float"])["float"].values[-1] == VALUES["float"][0]
    assert run.primary.read().sizes["time"] == COUNT + 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE event_columns SET content = substr(content, 1, 100)",
        "UPDATE event_columns SET content = x'00', part = 'time' WHERE part = 'time'",
        "UPDATE event_columns SET dtype = 'nonsense'",
        "UPDATE event_columns SET num_events = 2",
        "DELETE FROM event_columns WHERE part = 'time'",
        "DELETE FROM event_columns WHERE field = 'float'",
    ],
)
def test_a_damaged_copy_is_not_read(packed, database, damage) -> None:
    run, (data, _) = packed
    with closing(sqlite3.connect(database.path)) as connection:
        connection.execute(damage)
        connection.commit()
    assert_identical(run.primary.read(), data)


def test_the_last_of_a_repeated_event_is_read(record, database) -> None:
    docs = documents({"x": [float(n) for n in range(COUNT)]})
    for _, doc in docs[4:-1]:
        doc["seq_num"] -= 1
    run = record(docs)
    pack_stream(database, "r-d")
    dataset = run.primary.read()
    assert dataset["x"].values[:3].tolist() == [0.0, 2.0, 3.0]
    assert dataset["seq_num"].values.tolist() == list(range(1, COUNT))
    assert_documents_equal(run.documents(), docs)


def test_streams_described_anew_are_one_dataset(record, database) -> None:
    docs = documents({"x": [float(n) for n in range(2 * COUNT)]})
    second = {**docs[1][1], "uid": "r-d2"}
    for _, doc in docs[COUNT + 2 : -1]:
        doc["descriptor"] = "r-d2"
    docs.insert(COUNT + 2, ("descriptor", second))
    run = record(docs)
    before = run.primary.read()
    pack_stream(database, "r-d")
    assert_identical(run.primary.read(), before)
    pack_stream(database, "r-d2")
    assert_identical(run.primary.read(), before)


def test_packing_stops_when_it_is_told_and_begins_again(record, database) -> None:
    run = record(documents({"x": VALUES["float"]}))
    for rounds in range(6):
        asked = iter([True] * rounds)
        assert not pack_stream(database, "r-d", lambda asked=asked: next(asked, False))
        assert run.primary.read()["x"].values.tolist() == VALUES["float"]
        assert unpacked_streams(database) == ["r-d"]
    assert pack_stream(database, "r-d")
    assert pack_stream(database, "r-d")
    assert run.primary.read()["x"].values.tolist() == VALUES["float"]


def test_a_beamtime_packs_and_a_reader_changes_nothing(tmp_path) -> None:
    path = tmp_path / "x.db"
    with Beamtime(path) as beamtime:
        for name, doc in documents({"x": VALUES["float"]}):
            beamtime(name, doc)
        beamtime.pack()
        assert beamtime.pack() == 0
    before = path.read_bytes()
    with Beamtime(path, mode="r") as beamtime:
        assert beamtime[-1].primary.read()["x"].values.tolist() == VALUES["float"]
        with pytest.raises(RuntimeError, match="mode='r' and cannot pack"):
            beamtime.pack()
    assert path.read_bytes() == before


def test_plain_sql_still_has_every_row(packed, database) -> None:
    with closing(sqlite3.connect(database.path)) as connection:
        query = "SELECT json_extract(data, '$.whole') FROM events ORDER BY seq_num"
        assert [n for (n,) in connection.execute(query)] == VALUES["whole"]


@pytest.mark.parametrize(
    ("texts", "key", "expected"),
    [
        (['{"a":1}', '{"a":{"$float":"inf"}}'], "a", [1, float("inf")]),
        (['{"$$a":1,"$a":2}'], "$a", [1]),
        (['{"$map":[["a",{"$int":"1180591620717411303424"}]]}'], "a", [2**70]),
        (['{"a":[{"$complex":[1,2]}]}'], "a", [[1 + 2j]]),
        (['{"a":{"$$b":1}}', '{"a":3}'], "a", [{"$b": 1}, 3]),
        (['{"a":"\\"$"}'], "a", ['"$']),
    ],
)
def test_values_are_picked_from_many_rows(texts, key, expected) -> None:
    (values,) = pick(texts, [key])
    assert values == expected


def test_pages_of_several_types_become_a_list_of_the_very_values() -> None:
    gathered = Gathered()
    for page in ([1, 2], [1.5], [True], [2**80]):
        gathered.add(page)
    values = gathered.values()
    assert values == [1, 2, 1.5, True, 2**80]
    assert list(map(type, values)) == [int, int, float, bool, int]
