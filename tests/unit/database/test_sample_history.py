"""What samples were before they were changed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from bluesky_beamtime import Beamtime, SampleMetadata
from bluesky_beamtime.database import Database
from bluesky_beamtime.database.samples import (
    read_sample,
    sample_at,
    sample_changes,
    upsert_sample,
)
from bluesky_beamtime.errors import SampleNotFoundError


@pytest.fixture
def beamtime(tmp_path):
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime


def store(database: Database, since: float | None = None, **known: Any) -> int:
    with database.writing() as connection:
        return upsert_sample(connection, SampleMetadata(**known), since)


def history(database: Database, number: int) -> list[tuple[float, str | None]]:
    with database.reading() as connection:
        changes = sample_changes(connection, number)
    return [(change.time, change.sample.formula) for change in changes]


def at(database: Database, number: int, moment: float | None) -> SampleMetadata | None:
    with database.reading() as connection:
        return sample_at(connection, number, moment)


def test_a_change_keeps_what_was(database: Database) -> None:
    number = store(database, 10.0, name="a", formula="Si")
    store(database, 20.0, name="a")
    store(database, 30.0, name="a", formula="Si")
    store(database, 40.0, name="a", formula="SiO2", tags=["wet"], extra={"mass": 1.5})
    assert history(database, number) == [(10.0, "Si"), (40.0, "SiO2")]
    first, last = at(database, number, 39.9), at(database, number, 40.0)
    assert first == SampleMetadata("a", "Si", id=number)
    expected = SampleMetadata("a", "SiO2", tags=["wet"], extra={"mass": 1.5}, id=number)
    assert last == expected
    assert at(database, number, 1.0) == first
    assert at(database, number, None) == last
    with database.reading() as connection:
        assert read_sample(connection, number) == last


@pytest.mark.parametrize("position", ["B3", "12.5", "null", 12.5, [1, 2], {"x": 1.5}])
def test_history_keeps_every_value(database: Database, position: Any) -> None:
    extra = {"nan": float("nan"), "$key": {"deep": ["ü", 2**70]}}
    number = store(database, 1.0, name="a", beamline_pos=position, extra=extra)
    store(database, 2.0, name="a", beamline_pos="elsewhere")
    was = at(database, number, 1.0)
    assert was is not None
    assert was.beamline_pos == position
    assert str(was.extra) == str(extra)
    with database.reading() as connection:
        stored = connection.exec_driver_sql(
            "SELECT sample FROM sample_history ORDER BY id"
        ).scalars()
        assert [json.loads(each)["beamline_pos"] for each in stored] == [
            position,
            "elsewhere",
        ]


def test_the_past_does_not_change_the_present(database: Database) -> None:
    """As when the runs of an old file are imported."""
    number = store(database, 100.0, name="a", formula="new")
    store(database, 50.0, name="a", formula="old", serial="7")
    # The serial number, of which nothing was said since, holds today too.
    expected = [(50.0, "old"), (100.0, "new"), (100.0, "new")]
    assert history(database, number) == expected
    with database.reading() as connection:
        now = read_sample(connection, number)
    assert now == SampleMetadata("a", "new", "7", id=number)
    assert at(database, number, 70.0) == SampleMetadata("a", "old", "7", id=number)
    # The same again adds nothing.
    store(database, 50.0, name="a", formula="old", serial="7")
    assert history(database, number) == expected


def test_a_sample_of_before_there_was_a_history(database: Database) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql(
            "INSERT INTO samples(name, formula, tags, extra)"
            " VALUES ('a', 'Si', '[]', '{}')"
        )
    assert at(database, 1, 5.0) == SampleMetadata("a", "Si", id=1)
    store(database, 10.0, name="a", formula="SiO2")
    assert history(database, 1) == [(0.0, "Si"), (10.0, "SiO2")]


def test_a_run_has_the_sample_as_it_was(beamtime) -> None:
    def run(uid: str, **metadata: Any):
        beamtime("start", {"uid": uid, "time": time.time(), **metadata})
        return beamtime[uid]

    beamtime.sample = {"name": "LaB6", "formula": "LaB6", "temperature": 300}
    first = run("one")
    beamtime.sample = {"name": "LaB6", "extra": {"temperature": 450}}
    second = run("two")
    third = run("three", sample={"name": "LaB6", "serial": "660c"})
    assert first.sample.extra == {"temperature": 300}
    assert second.sample.extra == {"temperature": 450}
    assert (second.sample.serial, third.sample.serial) == (None, "660c")
    sample = beamtime.samples["LaB6"]
    temperatures = [change.sample.extra["temperature"] for change in sample.history]
    assert temperatures == [300, 450, 450]
    assert sample.metadata == third.sample
    assert (sample.formula, sample.serial, sample.tags) == ("LaB6", "660c", [])
    assert sample.extra == {"temperature": 450}
    assert sample.beamline_pos is None
    assert list(sample.runs) == [third, second, first]
    assert repr(sample) == "<Sample 'LaB6': LaB6, 660c, 3 runs>"
    # And is found by what it was.
    assert list(beamtime.search(text="450")) == [third, second]
    assert list(beamtime.search(text="300")) == [first]


def test_all_samples(beamtime) -> None:
    assert dict(beamtime.samples) == {}
    with pytest.raises(SampleNotFoundError, match="'LaB6': there is none yet"):
        beamtime.samples["LaB6"]
    for name in "bcdaef":
        beamtime.sample = name
    assert list(beamtime.samples) == list("bcdaef")
    assert len(beamtime.samples) == 6
    assert "a" in beamtime.samples
    assert "x" not in beamtime.samples
    assert beamtime.samples["a"] == beamtime.samples["a"] != beamtime.samples["b"]
    assert len({beamtime.samples["a"], beamtime.samples["a"]}) == 1
    with pytest.raises(KeyError, match="there are 'c', 'd', 'a', 'e', 'f' and others"):
        beamtime.samples["x"]
    assert beamtime.samples.get("x") is None
    with Beamtime(beamtime.path, mode="r") as reader:
        assert list(reader.samples) == list("bcdaef")
