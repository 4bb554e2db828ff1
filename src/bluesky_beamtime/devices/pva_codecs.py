"""Pixels out of the codecs of areaDetector's NDPluginCodec.

==========  ================================================================
``lz4``     one LZ4 block, without a header
``bslz4``   bitshuffle's blocks of LZ4, without a header
``blosc``   one Blosc chunk, of any inner compressor and shuffle
``jpeg``    one JPEG image of 8-bit pixels, mono or colour; needs ``pillow``
==========  ================================================================
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import MissingExtraError

Pixels = NDArray[Any]


def decompress(codec: str, packed: Pixels, dtype: np.dtype[Any], count: int) -> Pixels:
    """Return the pixels behind a codec, as a flat array.

    Parameters
    ----------
    codec
        Name of the codec, as the IOC says it.
    packed
        What was sent, as bytes.
    dtype, count
        Dtype and number of the pixels.

    Raises
    ------
    KeyError
        Nobody knows this codec.
    ValueError
        The bytes are not what the codec makes of such pixels.
    MissingExtraError
        The package for it is absent.
    """
    decode = CODECS[codec]
    if not count:
        return np.empty(0, dtype)
    try:
        pixels = decode(np.ascontiguousarray(packed).view(np.uint8), dtype, count)
    except MissingExtraError:
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if pixels.size != count:
        raise ValueError(f"{pixels.size} pixels came out instead of {count}")
    return pixels


def _lz4(packed: Pixels, dtype: np.dtype[Any], count: int) -> Pixels:
    size = count * dtype.itemsize
    # The library wants the size before the block, as areaDetector does not send it.
    framed = struct.pack("<I", size) + packed.tobytes()
    return _numcodecs("lz4").decompress(framed, np.empty(count, dtype))


def _blosc(packed: Pixels, dtype: np.dtype[Any], count: int) -> Pixels:
    chunk = packed.tobytes()
    size, _, length = struct.unpack_from("<III", chunk, 4)
    # Blosc believes its header: these two it must not be given wrong.
    if size != count * dtype.itemsize:
        raise ValueError(f"{size} bytes instead of {count * dtype.itemsize}")
    if length != len(chunk):
        raise ValueError(f"{len(chunk)} packed bytes instead of {length}")
    return _numcodecs("blosc").decompress(chunk, np.empty(count, dtype))


_BLOSC_VERSION, _LZ4_VERSION = 2, 1
# Bits shuffled, blocks not split by byte, LZ4 inside.
_BLOSC_FLAGS = 0x4 | 0x10 | 1 << 5


def _bslz4(packed: Pixels, dtype: np.dtype[Any], count: int) -> Pixels:
    """Rearrange bitshuffle's stream into a Blosc chunk, and let Blosc decode that.

    Both shuffle the bits of a block alike and pack it with LZ4; they differ in what
    stands around the blocks. What is left of eight elements is sent as it is.
    """
    item = dtype.itemsize
    block = max(8192 // item // 8 * 8, 128) * item
    shuffled = count // 8 * 8 * item
    blocks = -(-shuffled // block)
    parts: list[bytes] = []
    starts: list[int] = []
    data = packed.tobytes()
    position, end = 0, 16 + 4 * blocks
    for _ in range(blocks):
        (size,) = struct.unpack_from(">I", data, position)
        starts.append(end)
        parts += [struct.pack("<I", size), data[position + 4 : position + 4 + size]]
        position += 4 + size
        end += 4 + size
    if position > len(data):
        raise ValueError("the last block is cut short")
    out = np.empty(count, dtype)
    as_bytes = out.view(np.uint8)
    if blocks:
        head = struct.pack(
            "<BBBBIII",
            *(_BLOSC_VERSION, _LZ4_VERSION, _BLOSC_FLAGS, item),
            *(shuffled, min(block, shuffled), end),
        )
        chunk = b"".join([head, struct.pack(f"<{blocks}I", *starts), *parts])
        _numcodecs("blosc").decompress(chunk, as_bytes[:shuffled])
    rest = packed[position:]
    if rest.size != as_bytes.size - shuffled:
        raise ValueError(f"{rest.size} bytes follow the last block")
    as_bytes[shuffled:] = rest
    return out


def _jpeg(packed: Pixels, dtype: np.dtype[Any], count: int) -> Pixels:
    if dtype.itemsize != 1:
        raise ValueError(f"its pixels are 8-bit ones, not {dtype}")
    try:
        # Its types leave open what arrays can be made of.
        image: Any = import_module("PIL.Image")
    except ImportError as error:
        raise MissingExtraError(
            "a PVAccess camera whose frames are JPEG images", "pillow", "epics"
        ) from error
    with image.open(io.BytesIO(packed.tobytes()), formats=("JPEG",)) as picture:
        return np.asarray(picture).reshape(-1).view(dtype)


def _numcodecs(name: str) -> Any:
    # It has no types.
    return import_module(f"numcodecs.{name}")


CODECS: dict[str, Callable[[Pixels, np.dtype[Any], int], Pixels]] = {
    "lz4": _lz4,
    "blosc": _blosc,
    "bslz4": _bslz4,
    "jpeg": _jpeg,
}
"""Decoders by the name of the codec."""
