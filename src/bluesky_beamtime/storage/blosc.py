"""The blosc compressor, called so that it writes into memory that is used again.

``numcodecs`` makes fresh memory for every chunk: for a frame of 8 MiB the page faults
cost a fifth of the compression. The function that it wraps is called here itself,
through :mod:`ctypes`, which also lets other threads run meanwhile. Where the extra
``fast`` has brought the package ``blosc``, its library is taken: it shuffles bits with
AVX2, which the one inside ``numcodecs`` does not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import StorageError

# What a container has at most beside the data.
OVERHEAD = 16
# Where a container says how many bytes it becomes.
SIZE_FIELD = slice(4, 8)
MOST_BYTES = (1 << 31) - 1 - OVERHEAD
"""The largest chunk that blosc takes."""

# Detector counts are small numbers in wide words: shuffling their bits gathers the
# zeros, so the fastest level already gives a third of the size.
LEVEL = 1
BITSHUFFLE = 2
# Two such blocks stay in the cache of a core; with the smaller ones that this level
# chooses by itself lz4 sets its table up more often than it need.
BLOCK_BYTES = 1 << 17

Compress = Callable[[NDArray[Any], NDArray[np.uint8], str, int], int]


def compress(
    data: NDArray[Any], out: NDArray[np.uint8], name: str, itemsize: int
) -> int:
    """Compress into ``out`` and return the number of bytes.

    May be called from several threads at once; the GIL is released.

    Parameters
    ----------
    data
        C-contiguous.
    out
        At least :data:`OVERHEAD` bytes longer than the data.
    name
        ``"lz4"`` or ``"zstd"``.
    itemsize
        Bytes of one value.

    Raises
    ------
    StorageError
        More than :data:`MOST_BYTES`.
    """
    if data.nbytes > MOST_BYTES:
        raise StorageError(
            f"blosc cannot compress {data.nbytes} bytes at once, {MOST_BYTES} at most; "
            "cut the frames into chunks, or do not compress them"
        )
    return _compressor()(data, out, name, itemsize)


def decompress(data: memoryview, out: NDArray[Any]) -> int:
    """Decompress into ``out``, which must have the size that the container says.

    Raises
    ------
    RuntimeError, ValueError
        Damaged bytes.
    """
    return len(memoryview(_numcodecs().decompress(data, out.reshape(-1))).cast("B"))


@cache
def _numcodecs() -> Any:
    # No types; imported late because not every user writes frames.
    return import_module("numcodecs.blosc")


@cache
def _compressor() -> Compress:
    for path in (*_fast_libraries(), _numcodecs().__file__):
        try:
            return _through_ctypes(path)
        except (OSError, AttributeError, TypeError):
            continue
    return _through_numcodecs


def _fast_libraries() -> list[str]:
    """Return the library of the package ``blosc``, where it is installed."""
    try:
        files = metadata.files("blosc") or []
    except metadata.PackageNotFoundError:
        return []
    names = ("libblosc.so.1", "libblosc.1.dylib", "blosc.dll")
    found = [Path(str(file.locate())) for file in files if file.name in names]
    return [str(path) for path in found if path.exists()]


def _through_ctypes(path: str) -> Compress:
    function = ctypes.CDLL(path).blosc_compress_ctx
    number, size, pointer = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
    function.restype = number
    function.argtypes = [
        *(number, number, size, size, pointer, pointer),
        *(size, ctypes.c_char_p, size, number),
    ]

    def call(data: NDArray[Any], out: NDArray[np.uint8], name: str, width: int) -> int:
        source = data.__array_interface__["data"][0]
        target = out.__array_interface__["data"][0]
        written = function(
            *(LEVEL, BITSHUFFLE, width, data.nbytes, source, target),
            *(out.nbytes, name.encode(), BLOCK_BYTES, 1),
        )
        if written <= 0:
            raise StorageError(f"blosc could not compress with {name}: code {written}")
        return int(written)

    return call


def _through_numcodecs(
    data: NDArray[Any], out: NDArray[np.uint8], name: str, width: int
) -> int:
    flat = data.reshape(-1)
    chunk = _numcodecs().compress(
        flat, name.encode(), LEVEL, BITSHUFFLE, BLOCK_BYTES, width
    )
    out[: len(chunk)] = np.frombuffer(chunk, np.uint8)
    return len(chunk)
