"""Frames out of NTNDArrays, as p4p and areaDetector build them."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.devices.ntndarray import (
    COLOUR_MODES,
    PvaAttribute,
    attributes,
    colour_mode,
    decode,
    numbers,
)
from bluesky_beamtime.errors import MissingExtraError, SourceError

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


def packed(array: Any, codec: str, data: bytes, parameter: Any = None) -> Any:
    """An NTNDArray as areaDetector's codec plugin sends it."""
    value = nt.NTNDArray.buildType()()
    value["uniqueId"] = 42
    value["dimension"] = [{"size": size} for size in reversed(array.shape)]
    if parameter is None:
        parameter = PVDATA[array.dtype.str[1:]]
    value["value"] = ("ubyteValue", np.frombuffer(data, np.uint8))
    value["codec"] = {"name": codec, "parameters": parameter}
    value["compressedSize"] = len(data)
    value["uncompressedSize"] = array.nbytes
    return value


PVDATA = {
    "i1": 1,
    "i2": 2,
    "i4": 3,
    "i8": 4,
    "u1": 5,
    "u2": 6,
    "u4": 7,
    "u8": 8,
    "f4": 9,
    "f8": 10,
}
SHAPES = [(64, 80), (517, 3), (1, 1), (3, 7), (129, 67)]


def picture(dtype: str, shape: tuple[int, ...]) -> Any:
    random = np.random.default_rng(3)
    return random.poisson(40, shape).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", list(PVDATA))
class TestCodecs:
    def test_lz4(self, dtype: str, shape: tuple[int, int]) -> None:
        import lz4.block

        array = picture(dtype, shape)
        data = lz4.block.compress(array.tobytes(), store_size=False)
        frame = decode("pv", packed(array, "lz4", data))
        assert frame.array.dtype == array.dtype
        np.testing.assert_array_equal(frame.array, array)

    def test_bslz4(self, dtype: str, shape: tuple[int, int]) -> None:
        array = picture(dtype, shape)
        frame = decode("pv", packed(array, "bslz4", bitshuffled(array)))
        assert frame.array.dtype == array.dtype
        np.testing.assert_array_equal(frame.array, array)


def bitshuffled(array: Any) -> bytes:
    """What bitshuffle's own library makes of an array, without HDF5's header."""
    import h5py
    import hdf5plugin

    with h5py.File("x.h5", "w", driver="core", backing_store=False) as file:
        file.create_dataset(
            "x",
            data=array.reshape(-1),
            chunks=(array.size,),
            **hdf5plugin.Bitshuffle(nelems=0, cname="lz4"),
        )
        mask, data = file["x"].id.read_direct_chunk((0,))
    assert mask == 0
    # Size of the pixels and of a block, both big-endian.
    return data[12:]


@pytest.mark.parametrize("inner", ["lz4", "lz4hc", "blosclz", "zlib", "zstd"])
@pytest.mark.parametrize("shuffle", [0, 1, 2])
def test_blosc(inner: str, shuffle: int) -> None:
    from numcodecs import Blosc

    array = picture("u2", (61, 70))
    data = Blosc(cname=inner, clevel=5, shuffle=shuffle).encode(array)
    np.testing.assert_array_equal(
        decode("pv", packed(array, "blosc", data)).array, array
    )


def jpeg(array: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def test_jpeg() -> None:
    y, x = np.mgrid[:40, :48]
    array = (2 * x + 3 * y).astype("u1")
    found = decode("pv", packed(array, "jpeg", jpeg(array))).array
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - array).max() < 6


@pytest.mark.parametrize(("mode", "axis"), [(2, 2), (3, 1), (4, 0)])
def test_jpeg_in_colour(mode: int, axis: int) -> None:
    y, x = np.mgrid[:40, :48]
    array = np.stack([2 * x, 3 * y, x + y], axis=-1).astype("u1")
    sent = np.ascontiguousarray(np.moveaxis(array, 2, axis))
    value = packed(sent, "jpeg", jpeg(array))
    value["attribute"] = [{"name": "ColorMode", "value": mode}]
    found = decode("pv", value).array
    assert found.shape == (40, 48, 3)
    assert np.abs(found.astype(int) - array).max() < 12


def test_jpeg_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    value = packed(np.zeros((8, 8), "u1"), "jpeg", jpeg(np.zeros((8, 8), "u1")))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"bluesky-beamtime\[epics\]"):
        decode("pv", value)


def test_type_numbered_as_ndarray_does() -> None:
    from numcodecs import Blosc

    # Number 3 is a 32-bit integer in pvData and uint16 in NDArray: the size tells.
    array = picture("u2", (10, 12))
    value = packed(array, "blosc", Blosc().encode(array), parameter=3)
    np.testing.assert_array_equal(decode("pv", value).array, array)


@pytest.mark.parametrize("codec", ["lz4", "bslz4", "blosc", "jpeg"])
def test_damaged_bytes(codec: str) -> None:
    array = picture("u1", (64, 64))
    for data in (b"\xff" * 40, b"\1", b"\0" * 11):
        with pytest.raises(SourceError, match=f"is no '{codec}' of 4096 pixels"):
            decode("pv", packed(array, codec, data))


def test_an_unknown_codec() -> None:
    value = packed(np.zeros((2, 2), "u1"), "zfp", b"1234")
    with pytest.raises(SourceError, match=r"compressed with 'zfp'.*lz4, blosc"):
        decode("pv", value)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5), (2, 3, 4, 5), (1,) * 10])
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype="i4").reshape(shape)
    value = wrap(array)
    value["dimension"] = [{"size": size} for size in reversed(shape)]
    value["attribute"] = []  # p4p takes three dimensions for a colour picture
    np.testing.assert_array_equal(decode("pv", value).array, array)


@pytest.mark.parametrize("mode", [1, 5, 6, 7])
def test_samples_that_are_no_colours_stay_as_they_are(mode: int) -> None:
    array = picture("u1", (4, 6, 3))
    value = wrap(array)
    value["attribute"] = [{"name": "ColorMode", "value": mode}]
    value["dimension"] = [{"size": size} for size in (3, 6, 4)]
    assert colour_mode(value) == COLOUR_MODES[mode]
    np.testing.assert_array_equal(decode("pv", value).array, array)


def test_attributes() -> None:
    value = wrap(np.zeros((2, 2)))
    value["attribute"] = [
        {"name": "ColorMode", "value": 0, "sourceType": 0},
        {"name": "Owner", "value": "B. Eam", "sourceType": 1},
        {"name": "Temperature", "value": -20.5, "sourceType": 3, "source": "T:1"},
        {"name": "Gain", "value": 3, "sourceType": 2},
        {"name": "Curve", "value": np.ones(2), "sourceType": 2},
        {"name": "Nothing"},
    ]
    assert attributes(value) == {
        "ColorMode": PvaAttribute(0, False),
        "Owner": PvaAttribute("B. Eam", False),
        "Temperature": PvaAttribute(-20.5, True, "T:1"),
        "Gain": PvaAttribute(3, True),
    }
    asked = frozenset({"Gain", "Owner", "Curve", "Absent"})
    assert numbers(value, asked) == {"Gain": 3.0}
