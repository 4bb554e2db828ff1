"""What data keys declare along the axes of an array."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_beamtime.database.declared_axes import declared_coordinates

SIZES = {"time": 7, "scope_channel": 2, "scope_sample": 3}


def declared(**coordinates: Any) -> dict[str, Any]:
    return declared_coordinates({"coordinates": coordinates}, SIZES)


def test_values_and_steps() -> None:
    found = declared(
        scope_channel={"dim": "scope_channel", "values": ["a", "b"]},
        scope_sample={"dim": "scope_sample", "start": 1, "step": 0.5, "units": "s"},
        gain={"dim": "scope_channel", "values": [1.5, 2]},
    )
    dims, values, attributes = found["scope_channel"]
    assert (dims, values.tolist(), attributes) == (("scope_channel",), ["a", "b"], {})
    dims, values, attributes = found["scope_sample"]
    assert (dims, values.tolist()) == (("scope_sample",), [1.0, 1.5, 2.0])
    assert attributes == {"units": "s"}
    assert found["gain"][1].tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    "said",
    [
        None,
        3,
        [],
        {},
        {"dim": "elsewhere", "values": ["a", "b"]},
        {"dim": ["scope_channel"], "values": ["a", "b"]},
        {"dim": "scope_channel", "values": ["a"]},
        {"dim": "scope_channel", "values": [["a"], ["b"]]},
        {"dim": "scope_channel", "values": [None, {}]},
        {"dim": "scope_channel", "start": "a", "step": 1},
        {"dim": "scope_channel", "start": 1},
        {"dim": "scope_channel", "step": True},
    ],
)
def test_what_does_not_fit_is_left_out(said: Any) -> None:
    assert declared(x=said) == {}


def test_other_meanings_of_the_word() -> None:
    for coordinates in (None, "polar", ["x", "y"], {3: {"dim": "time"}}):
        assert declared_coordinates({"coordinates": coordinates}, SIZES) == {}
    assert declared_coordinates({}, SIZES) == {}
    # A dimension has no other dimension's coordinate.
    assert declared(time={"dim": "scope_channel", "values": ["a", "b"]}) == {}
