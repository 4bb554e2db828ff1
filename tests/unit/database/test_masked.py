"""Masked arrays: what stands where neither Zarr nor JSON has a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.masked import without_mask

NAN = float("nan")


def masked(values: Any, mask: Any, dtype: Any = None) -> Any:
    return np.ma.array(values, mask=mask, dtype=dtype)


CASES = [
    (masked([1.0, 1e30], [0, 1]), np.array([1.0, NAN])),
    (masked([1.0, 2.0], [0, 1], "f2"), np.array([1.0, NAN], "f2")),
    (masked([1.0, 2j], [0, 1]), np.array([1.0, NAN], complex)),
    (masked([[1, 7]], [[0, 1]], "u2"), np.array([[1.0, NAN]])),
    (masked([1, 2**63], [0, 1], "u8"), np.array([1.0, NAN])),
    (masked([2**53 + 1, 7], [0, 1]), np.array([2**53 + 1, None], object)),
    (masked([True, False], [0, 1]), np.array([True, None], object)),
    (masked([5, 6], [1, 1]), np.array([NAN, NAN])),
    (masked(["a", "b"], [0, 1]), np.array(["a", None], object)),
    (
        masked(["2026-01-01", "2026-01-02"], [0, 1], "M8[s]"),
        np.array(["2026-01-01", "NaT"], "M8[s]"),
    ),
    (masked([3, 4], [0, 0], ">i2"), np.array([3, 4], ">i2")),
    (masked([3, 4], np.ma.nomask, "i2"), np.array([3, 4], "i2")),
]


@pytest.mark.parametrize(("value", "expected"), CASES, ids=repr)
def test_something_stands_where_an_array_is_masked(value: Any, expected: Any) -> None:
    lost: list[str] = []
    found = without_mask(value, lost)
    assert type(found) is np.ndarray and found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert len(lost) == bool(value.mask.any())
    back: Any = decode(encode({"nested": [value]}))["nested"][0]
    assert back.dtype == expected.dtype
    np.testing.assert_array_equal(back, expected)


def test_one_masked_value_is_no_number() -> None:
    assert np.isnan(decode(encode(np.ma.masked)))


def test_structures_have_a_mask_for_each_field() -> None:
    dtype = [("a", "i4"), ("b", "f8")]
    value: Any = masked([(1, 2.0), (3, 4.0)], [(0, 1), (0, 0)], dtype)
    assert without_mask(value).tolist() == [(1, None), (3, 4.0)]
    plain = masked([(1, 2.0)], [(0, 0)], dtype)
    assert without_mask(plain).dtype == np.dtype(dtype)
