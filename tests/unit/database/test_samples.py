"""Samples and how they are told apart."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_beamtime.database import Database, SampleMetadata
from bluesky_beamtime.database.samples import read_sample, upsert_sample
from bluesky_beamtime.errors import DocumentError


def store(database: Database, sample: SampleMetadata) -> SampleMetadata:
    with database.writing() as connection:
        number = upsert_sample(connection, sample)
    assert sample.id == number
    with database.reading() as connection:
        stored = read_sample(connection, number)
    assert stored is not None
    return stored


@pytest.mark.parametrize(
    "position",
    [None, "B3", "12.5", "null", '"', 12.5, 3, [1, 2], {"x": 1.5}, float("inf")],
)
def test_a_sample_comes_back(database: Database, position: Any) -> None:
    sample = SampleMetadata(
        "LaB6", "LaB6", "NIST 660c", ["calibrant", "ü"], position, {"a": {"$b": [1.5]}}
    )
    assert store(database, sample) == sample


def test_a_name_is_one_row_and_what_is_known_is_kept(database: Database) -> None:
    first = store(database, SampleMetadata("a", formula="H2O", tags=["x"]))
    assert store(database, SampleMetadata("a")) == first
    changed = store(database, SampleMetadata("a", serial="7", tags=["y"]))
    assert changed.id == first.id
    assert (changed.formula, changed.serial, changed.tags) == ("H2O", "7", ["y"])
    assert store(database, SampleMetadata("b")).id != first.id


def test_a_sample_can_be_said_in_several_ways() -> None:
    assert SampleMetadata.of("a") == SampleMetadata("a")
    sample = SampleMetadata("a")
    assert SampleMetadata.of(sample) is sample
    said = {
        "name": "a",
        "formula": "H2O",
        "tags": "x",
        "thickness": 2,
        "extra": {"b": 1},
    }
    assert SampleMetadata.of(said) == SampleMetadata(
        "a", "H2O", None, ["x"], None, {"thickness": 2, "b": 1}
    )
    assert SampleMetadata.of({"color": "red", "size": 3}).name == "color=red, size=3"
    assert SampleMetadata.of({"color": "red"}).extra == {"color": "red"}


@pytest.mark.parametrize("value", ["", "  ", {}, 3, None, "\ud800", SampleMetadata("")])
def test_what_is_no_sample_is_refused(value: Any) -> None:
    with pytest.raises(DocumentError):
        SampleMetadata.of(value)


def test_an_unknown_number_is_no_sample(database: Database) -> None:
    with database.reading() as connection:
        assert read_sample(connection, 12) is None
