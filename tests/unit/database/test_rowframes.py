"""Frames in the order of events."""

from __future__ import annotations

import numpy as np
import pytest

from bluesky_beamtime.database.rowframes import RowFrames, frame_dims
from bluesky_beamtime.errors import StoreReadError


def numbered(count: int, first: int = 0) -> np.ndarray:
    """Return frames of 2 × 3 whose values are unlike each other."""
    return np.arange(first * 6, (first + count) * 6).reshape(count, 2, 3)


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_rows_come_from_where_they_are() -> None:
    one, other = numbered(4), numbered(3, first=100)
    frames = RowFrames([one, other], rows(0, 1, 1, 0), rows(2, 0, 2, 3))
    expected = np.stack([one[2], other[0], other[2], one[3]])
    assert frames.shape == (4, 2, 3)
    assert frames.dtype == one.dtype
    np.testing.assert_array_equal(frames, expected)
    for key in (
        0,
        -1,
        slice(1, 3),
        slice(None, None, -1),
        (slice(None), 1),
        (2, slice(None), slice(0, 2)),
        (slice(0, 2), 0, 1),
        (..., 1),
        (np.array([3, 0]),),
    ):
        np.testing.assert_array_equal(frames[key], expected[key])


def test_an_event_may_have_several_frames() -> None:
    stored = numbered(10)
    frames = RowFrames([stored], rows(0, 0), rows(1, 3), per_row=2)
    assert frames.shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(frames[:], np.stack([stored[2:4], stored[6:8]]))
    np.testing.assert_array_equal(frames[1, 0], stored[6])


def test_frames_without_dimensions() -> None:
    frames = RowFrames([np.arange(5.0)], rows(0, 0, 0), rows(1, 2, 4))
    assert frames[:].tolist() == [1.0, 2.0, 4.0]


def test_no_rows_are_no_frames() -> None:
    frames = RowFrames([numbered(4)], rows(), rows())
    assert frames[:].shape == (0, 2, 3)
    assert frames.lazy("a").compute().shape == (0, 2, 3)


def test_different_frames_do_not_fit() -> None:
    with pytest.raises(StoreReadError, match="do not fit"):
        RowFrames([numbered(2), np.zeros((2, 2, 4))], rows(0, 1), rows(0, 0))


def test_blocks_are_read_one_by_one() -> None:
    class Counting:
        shape = (10, 1024, 1024)
        dtype = np.dtype(np.uint16)
        path = "/somewhere"
        read = 0

        def __getitem__(self, key: slice) -> object:
            Counting.read += 1
            return np.zeros((key.stop - key.start, *self.shape[1:]), self.dtype)

    lazy = RowFrames([Counting()], rows(*[0] * 10), rows(*range(10))).lazy("cam")
    assert lazy.chunks[0] == (4, 4, 2)
    assert Counting.read == 0
    lazy[5].compute()
    assert Counting.read == 1
    again = RowFrames([Counting()], rows(*[0] * 10), rows(*range(10))).lazy("cam")
    assert again.name == lazy.name
    other = RowFrames([Counting()], rows(*[0] * 9), rows(*range(1, 10))).lazy("cam")
    assert other.name != lazy.name


@pytest.mark.parametrize(
    ("rank", "declared", "per_row", "expected"),
    [
        (0, None, False, ()),
        (1, None, False, ("k_x",)),
        (2, None, False, ("k_y", "k_x")),
        (3, None, False, ("k_z", "k_y", "k_x")),
        (3, None, True, ("k_frame", "k_y", "k_x")),
        (1, None, True, ("k_frame",)),
        (4, None, False, ("k_dim_0", "k_dim_1", "k_dim_2", "k_dim_3")),
        (2, ["a", "b"], False, ("a", "b")),
        (2, ["a"], False, ("k_y", "k_x")),
        (2, ["a", "a"], False, ("k_y", "k_x")),
        (2, "ab", False, ("k_y", "k_x")),
    ],
)
def test_axes_have_names(rank, declared, per_row, expected) -> None:
    assert frame_dims("k", rank, declared, per_row=per_row) == expected
