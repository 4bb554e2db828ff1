"""Columns of the right type."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bluesky_beamtime.database.columns import MISSING, make_column
from bluesky_beamtime.database.encoding import ArrayReference
from bluesky_beamtime.storage import ShardedArray

NAN = math.nan


def column(values: list[Any], **data_key: Any) -> np.ndarray[Any, Any]:
    made = make_column("k", values, data_key, Path("/nowhere"))
    assert made.dims == ()
    return made.values


@pytest.mark.parametrize(
    ("values", "data_key", "expected"),
    [
        ([1, 2], {"dtype": "integer"}, np.array([1, 2], np.int64)),
        ([1, 2], {}, np.array([1, 2], np.int64)),
        ([1, 2], {"dtype": "number"}, np.array([1.0, 2.0])),
        (
            [1, 2],
            {"dtype": "number", "dtype_numpy": "<f4"},
            np.array([1, 2], np.float32),
        ),
        ([1, 2], {"dtype_numpy": "<u2"}, np.array([1, 2], np.uint16)),
        ([1, 70000], {"dtype_numpy": "<u2"}, np.array([1, 70000], np.int64)),
        ([1, -2], {"dtype_numpy": ">u2"}, np.array([1, -2], np.int64)),
        ([1, 2], {"dtype_numpy": "nonsense"}, np.array([1, 2], np.int64)),
        ([1, 2], {"dtype_numpy": [["a", "<i4"]]}, np.array([1, 2], np.int64)),
        ([2**63, 1], {}, np.array([2**63, 1], np.uint64)),
        ([0.5, NAN], {"dtype_numpy": "<f4"}, np.array([0.5, NAN], np.float32)),
        ([0.1, NAN], {"dtype_numpy": "<f4"}, np.array([0.1, NAN])),
        ([1e300, 1.0], {"dtype_numpy": "<f4"}, np.array([1e300, 1.0])),
        ([1, 0.5], {}, np.array([1.0, 0.5])),
        ([1, None, MISSING], {}, np.array([1.0, NAN, NAN])),
        ([None, None], {"dtype": "number"}, np.array([NAN, NAN])),
        ([True, False], {}, np.array([True, False])),
        ([1j, 1], {}, np.array([1j, 1])),
        ([1j, None], {}, np.array([1j, complex(NAN)])),
        (["a", "bcd"], {"dtype": "string"}, np.array(["a", "bcd"])),
        ([], {"dtype": "number"}, np.array([], np.float64)),
    ],
)
def test_scalars_have_their_type(
    values: list[Any], data_key: dict[str, Any], expected: Any
) -> None:
    made = column(values, **data_key)
    assert made.dtype == expected.dtype
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(
    "values",
    [
        ["a", None],
        ["a", 1],
        [2**70, 1],
        [2**60, 0.5],
        [{"a": 1}, {}],
        [[1, 2], [3]],
        [[1, "a"], [2, "b"]],
        [[1, 2], None],
        ["x" * 1000, "y"],
        [b"x", b"y"],
    ],
)
def test_what_has_no_common_type_keeps_its_values(values: list[Any]) -> None:
    made = column(values)
    assert made.dtype == object
    assert made.tolist() == values


def test_missing_text_is_none() -> None:
    assert column(["a", MISSING]).tolist() == ["a", None]
    assert column([None, MISSING], dtype="string").tolist() == [None, None]


def test_half_a_surrogate_pair_among_objects_is_spelt_out() -> None:
    """A Dataset hands objects to pandas, which makes UTF-8 of them and fails."""
    for values in (["a\ud800", "ö", None], ["a\ud800", "x" * 1000, "ö"]):
        made = column(values)
        assert made.tolist() == ["a\\ud800", *values[1:]]
        assert xr.Dataset({"k": ("time", made)})["k"].values[0] == made[0]
    assert column(["a\ud800", "b"]).tolist() == ["a\ud800", "b"]


def test_lists_of_one_shape_are_arrays() -> None:
    made = make_column("k", [[1, 2, 3], [4, 5, 6]], {}, Path())
    assert made.dims == ("k_x",)
    np.testing.assert_array_equal(made.values, [[1, 2, 3], [4, 5, 6]])
    made = make_column("k", [[[1.5]], [[2.5]]], {"dims": ["a", "b"]}, Path())
    assert made.dims == ("a", "b")
    made = make_column("k", [["a"], ["bc"]], {}, Path())
    assert made.values.tolist() == [["a"], ["bc"]]
    made = make_column("k", [[], []], {}, Path())
    assert made.values.shape == (2, 0)


def test_arrays_of_the_store_are_lazy(tmp_path: Path) -> None:
    references: list[Any] = []
    with ShardedArray.create(tmp_path / "a", dtype="<u2", shape=(2, 3)) as array:
        for number in range(4):
            index = array.append(np.full((2, 3), number, "<u2"))
            references.append(ArrayReference("a", index, "<u2"))
        array.publish()
    made = make_column("k", [references[3], references[1]], {}, tmp_path)
    assert made.dims == ("k_y", "k_x")
    assert made.values.shape == (2, 2, 3)
    assert made.values.dtype == np.uint16
    assert type(made.values).__module__.startswith("dask")
    assert made.values[:, 0, 0].compute().tolist() == [3, 1]


def test_arrays_of_several_shapes_keep_theirs(tmp_path: Path) -> None:
    references: list[Any] = []
    for name, shape in (("a", (2,)), ("b", (3,))):
        with ShardedArray.create(tmp_path / name, dtype="<f8", shape=shape) as array:
            array.append(np.ones(shape))
        references.append(ArrayReference(name, 0, "<f8"))
    made = make_column("k", references, {}, tmp_path)
    assert [value.shape for value in made.values] == [(2,), (3,)]
    made = make_column("k", [references[0], MISSING], {}, tmp_path)
    assert made.values[0].tolist() == [1.0, 1.0]
    assert made.values[1] is None


@pytest.mark.parametrize(
    "values",
    [
        [[2**53 + 1], [0.5]],
        [[2**64 - 1], [-1]],
        [[[2**53 + 1, 1]], [[0.5, 1j]]],
        [np.array([2**53 + 1]), np.array([0.5])],
        [np.array([2**64 - 1], "u8"), np.array([-1])],
        [["a\0"], ["b"]],
    ],
)
def test_lists_that_numpy_would_change_stay_lists(values: list[Any]) -> None:
    made = column(values)
    assert made.dtype == object
    assert made.tolist() == values


def test_lists_of_large_floats_are_arrays() -> None:
    made = make_column("k", [[1e300, 2**53], [1, NAN]], {}, Path("/nowhere"))
    np.testing.assert_array_equal(made.values, [[1e300, 2**53], [1, NAN]])
    assert made.values.dtype == np.float64
