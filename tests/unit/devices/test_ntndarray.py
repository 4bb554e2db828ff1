"""Frames out of NTNDArrays, as p4p and areaDetector build them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.devices.ntndarray import decode
from bluesky_beamtime.errors import SourceError

nt = pytest.importorskip("p4p.nt")


def wrap(array: Any, **attributes: Any) -> Any:
    value = nt.NTNDArray().wrap(array, timestamp=1000.5, attrib=attributes or None)
    value["uniqueId"] = 42
    return value


@pytest.mark.parametrize(
    "code", ["?", "b", "h", "i", "l", "B", "H", "I", "L", "f", "d"]
)
def test_every_number_type(code: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(code)
    frame = decode("pv", wrap(array))
    assert frame.array.dtype == array.dtype
    np.testing.assert_array_equal(frame.array, array)
    assert frame.id == 42
    assert frame.time == 1000.5


@pytest.mark.parametrize(("mode", "axis"), [(2, 2), (3, 1), (4, 0)])
def test_colour_comes_last(mode: int, axis: int) -> None:
    picture = np.arange(4 * 5 * 3, dtype="u1").reshape(4, 5, 3)
    sent = np.ascontiguousarray(np.moveaxis(picture, 2, axis))
    frame = decode("pv", wrap(sent, ColorMode=mode))
    np.testing.assert_array_equal(frame.array, picture)
    assert frame.array.flags.c_contiguous


def test_a_spectrum() -> None:
    frame = decode("pv", wrap(np.arange(7.0), ColorMode=0))
    assert frame.array.tolist() == list(range(7))


def test_id_is_unsigned() -> None:
    value = wrap(np.zeros((2, 2)))
    value["uniqueId"] = -1
    assert decode("pv", value).id == 0xFFFFFFFF


def test_times() -> None:
    value = wrap(np.zeros((2, 2)))
    now = int(time.time())
    value["timeStamp"] = {"secondsPastEpoch": now, "nanoseconds": 0}
    value["dataTimeStamp"] = {"secondsPastEpoch": now - 1, "nanoseconds": 500_000_000}
    assert decode("pv", value).time == now - 0.5
    # A driver that counts from when it was switched on.
    value["dataTimeStamp"] = {"secondsPastEpoch": 631152000 + 60, "nanoseconds": 0}
    assert decode("pv", value).time == now
    value["timeStamp"] = {"secondsPastEpoch": 0, "nanoseconds": 0}
    assert decode("pv", value).time is None


def test_compressed_frames_are_refused() -> None:
    value = wrap(np.zeros((2, 2)))
    value["codec"] = {"name": "lz4"}
    with pytest.raises(SourceError, match="compressed with 'lz4'"):
        decode("pv", value)


def test_an_image_that_was_never_published() -> None:
    with pytest.raises(SourceError, match="no frame yet"):
        decode("pv", nt.NTNDArray.buildType()())


def test_sizes_that_do_not_fit() -> None:
    value = wrap(np.zeros((2, 2)))
    value["dimension"] = [{"size": 3}, {"size": 2}]
    with pytest.raises(SourceError, match="has 4 pixels"):
        decode("pv", value)


def test_something_else() -> None:
    for value in (3.0, nt.NTScalar("d").wrap(1.0), {"value": 3}):
        with pytest.raises(SourceError, match="no NTNDArray"):
            decode("pv", value)
