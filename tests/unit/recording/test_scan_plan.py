"""What a run's first documents say of the array that its scan makes."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_beamtime.errors import DocumentError
from bluesky_beamtime.recording.scan_plan import choose_field

NUMBER = {"source": "s", "dtype": "number", "shape": []}
KEYS: dict[str, Any] = {
    "x_setpoint": NUMBER,
    "x": NUMBER,
    "state": {**NUMBER, "dtype": "string"},
    "trace": {**NUMBER, "dtype": "array", "shape": [8]},
    "cam_time": {**NUMBER, "coordinate_of": "cam"},
    "away": {**NUMBER, "external": "FILESTORE:"},
    "current": NUMBER,
    "diode": {**NUMBER, "dtype": "integer"},
    "cam": {**NUMBER, "dtype": "array", "shape": [1, 4, 5], "external": "STREAM:"},
}
OBJECTS = {"x": ["x_setpoint", "x"], "d": [key for key in KEYS if key[0] != "x"]}
START = {"hints": {"dimensions": [[["x"], "primary"]]}}


@pytest.mark.parametrize(
    ("hinted", "field"),
    [
        (["diode", "trace", "cam"], "cam"),
        (["trace", "diode"], "trace"),
        (["diode"], "diode"),
        (["x", "state", "nothing"], "current"),
        ([], "current"),
    ],
)
def test_field_is_the_first_image_or_else_the_first_number(
    hinted: list[str], field: str
) -> None:
    """L-27: those that are hinted at before the others; not what belongs to an axis."""
    descriptor = {
        "name": "primary",
        "data_keys": KEYS,
        "object_keys": OBJECTS,
        "hints": {"d": {"fields": hinted}},
    }
    assert choose_field(None, descriptor, START) == field
    assert choose_field("trace", descriptor, START) == "trace"


def test_without_a_number_the_fields_are_named() -> None:
    """L-27: so that one can be asked for."""
    few = {key: KEYS[key] for key in ("x", "x_setpoint", "state", "cam_time")}
    descriptor = {"name": "primary", "data_keys": few, "object_keys": OBJECTS}
    with pytest.raises(DocumentError, match="which to take: x, x_setpoint, state"):
        choose_field(None, descriptor, START)


@pytest.mark.parametrize("objects", [OBJECTS, {**OBJECTS, "odd": None}])
@pytest.mark.parametrize("hints", [None, 5, {"d": None}, {"d": {"fields": None}}])
def test_a_wrong_word_in_the_hints_costs_no_array(hints: Any, objects: Any) -> None:
    """L-27: a device may say anything there."""
    descriptor = {
        "name": "primary",
        "data_keys": KEYS,
        "object_keys": objects,
        "hints": hints,
    }
    assert choose_field(None, descriptor, START) == "current"
