"""FrameArray is indexed as NumPy is, whatever the index, the rank and the codec."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluesky_beamtime.storage import FrameArray, ShardedArray, open_frames

QUICK = settings(derandomize=True, database=None, deadline=None, max_examples=50)
SCALE = int(os.environ.get("BEAMTIME_TEST_SCALE", "1"))
COUNT = 11
SHAPES = [(), (5,), (4, 6), (3, 2, 4)]


def make(path: Path, shape: tuple[int, ...], codec: str) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(len(shape))
    data = rng.integers(0, 1 << 16, (COUNT, *shape)).astype("<u2")
    with ShardedArray.create(
        path,
        dtype="<u2",
        shape=shape,
        frames_per_shard=4,
        compression=codec,  # type: ignore[arg-type]
    ) as array:
        for frame in data:
            array.append(frame)
    return data


@pytest.fixture(scope="module", params=["none", "lz4"])
def stored(
    request: pytest.FixtureRequest,
) -> Iterator[list[tuple[np.ndarray[Any, Any], FrameArray]]]:
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        found = []
        for shape in SHAPES:
            path = Path(folder) / str(len(shape))
            found.append((make(path, shape, request.param), open_frames(path)))
        yield found


def integers(size: int) -> st.SearchStrategy[Any]:
    """Return indices in and out of range, of Python and of NumPy."""
    number = st.integers(-size - 2, size + 1)
    return st.one_of(number, number.map(np.int64), number.map(np.asarray))


def lists(size: int) -> st.SearchStrategy[Any]:
    numbers = st.lists(st.integers(-size - 1, size), max_size=6)
    inside = st.lists(st.integers(-size, size - 1), max_size=6)
    either = st.one_of(inside, inside, numbers)
    return st.one_of(either, either.map(lambda some: np.array(some, int)))


def masks(size: int) -> st.SearchStrategy[Any]:
    length = st.sampled_from([size, size, size, size + 1])
    mask = length.flatmap(lambda n: st.lists(st.booleans(), min_size=n, max_size=n))
    return st.one_of(mask, mask.map(np.array))


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    parts: list[Any] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        parts.append(
            draw(
                st.one_of(
                    integers(size),
                    st.slices(size),
                    st.slices(size + 3),
                    lists(size),
                    masks(size),
                )
            )
        )
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), Ellipsis)
    if draw(st.integers(0, 9)) == 0:
        parts.append(draw(st.one_of(st.just(Ellipsis), integers(2))))
    if len(parts) == 1 and draw(st.booleans()):
        return parts[0]
    return tuple(parts)


def attempt(array: Any, key: Any) -> Any:
    try:
        return array[key]
    except IndexError as error:
        return error


@settings(QUICK, max_examples=300 * SCALE)
@given(st.data(), st.sampled_from(range(len(SHAPES))))
def test_every_index_gives_what_numpy_gives(
    stored: list[tuple[np.ndarray[Any, Any], FrameArray]],
    data: st.DataObject,
    rank: int,
):
    """Integers, slices with steps, lists, masks, ellipses, tuples, out of range."""
    numpy, frames = stored[rank]
    key = data.draw(keys(numpy.shape))
    expected, got = attempt(numpy, key), attempt(frames, key)
    assert isinstance(got, IndexError) == isinstance(expected, IndexError), (key, got)
    if not isinstance(expected, IndexError):
        assert np.shape(got) == np.shape(expected)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@QUICK
@given(st.data())
def test_masks_within_the_frames(
    stored: list[tuple[np.ndarray[Any, Any], FrameArray]], data: st.DataObject
):
    """A region of interest: a mask over both axes of a frame."""
    numpy, frames = stored[2]
    bits = data.draw(st.lists(st.booleans(), min_size=24, max_size=24))
    mask = np.array(bits).reshape(4, 6)
    for key in ((..., mask), (slice(None), mask), (3, mask), (..., mask[0])):
        np.testing.assert_array_equal(frames[key], numpy[key])


@pytest.mark.parametrize(
    "key",
    [
        None,
        (0, None),
        True,
        np.True_,
        (0, False),
        1.0,
        "x",
        np.ones((11, 4), bool),
        (..., ...),
        (0, 0, 0, 0),
        [0.5],
        {},
    ],
    ids=str,
)
def test_what_is_no_index_is_an_index_error(
    stored: list[tuple[np.ndarray[Any, Any], FrameArray]], key: Any
):
    _, frames = stored[2]
    with pytest.raises(IndexError):
        frames[key]


def test_nested_lists_choose_frames_in_their_shape(
    stored: list[tuple[np.ndarray[Any, Any], FrameArray]],
):
    numpy, frames = stored[2]
    for key in ([[0, 1], [10, 3]], ([[0], [1]], [2, 3]), ([[0, 1]], slice(1, 3), 2)):
        np.testing.assert_array_equal(frames[key], numpy[key])


def test_it_behaves_like_an_array(
    stored: list[tuple[np.ndarray[Any, Any], FrameArray]],
):
    """Length, iteration, conversion, pickling."""
    for numpy, frames in stored:
        assert len(frames) == COUNT
        assert (frames.shape, frames.ndim) == (numpy.shape, numpy.ndim)
        assert (frames.size, frames.nbytes) == (numpy.size, numpy.nbytes)
        np.testing.assert_array_equal(np.asarray(frames), numpy)
        assert np.asarray(frames, "f8").dtype == np.dtype("f8")
        np.testing.assert_array_equal(list(frames), list(numpy))
        again = pickle.loads(pickle.dumps(frames))
        np.testing.assert_array_equal(again[2:5], numpy[2:5])
        with pytest.raises(ValueError, match="copy"):
            np.array(frames, copy=False)


@QUICK
@given(st.lists(st.integers(-3, COUNT + 2), max_size=8))
def test_read_takes_published_frames_only(
    stored: list[tuple[np.ndarray[Any, Any], FrameArray]], numbers: list[int]
):
    numpy, frames = stored[2]
    if all(0 <= number < COUNT for number in numbers):
        got = frames.read(np.array(numbers, int))
        np.testing.assert_array_equal(got, numpy[np.array(numbers, int)])
    else:
        with pytest.raises(IndexError):
            frames.read(np.array(numbers))
