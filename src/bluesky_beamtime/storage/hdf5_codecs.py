"""Frames to HDF5 chunks and back, and the filters that stock readers undo them with."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import FrameReadError
from bluesky_beamtime.storage.codecs import CompressionError, FrameCodec, checksum
from bluesky_beamtime.storage.hdf5_format import Filter

HDF5Compression = Literal["none", "lz4", "zstd", "gzip"]
HDF5_COMPRESSIONS: tuple[HDF5Compression, ...] = get_args(HDF5Compression)

# Registered filter numbers: https://github.com/HDFGroup/hdf5_plugins
_DEFLATE, _SHUFFLE, _BLOSC = 1, 2, 32001
_BLOSC_CODES = {"lz4": 1, "zstd": 5}
# The quickest level; counts of a detector are small numbers, whose high bytes and bits
# the shuffle has gathered already.
_LEVEL = 1
_BITSHUFFLE = 2


class EncodedFrame(NamedTuple):
    """A frame as it will stand in the file."""

    data: Any
    """Anything with a buffer."""
    size: int
    """Its bytes."""
    checksum: int | None
    """Its crc32c; None where checksums are off."""


@dataclass(frozen=True, slots=True)
class ChunkCodec:
    """How the frames of one dataset become chunks.

    Parameters
    ----------
    dtype
        Dtype of the frames, in the byte order that is stored.
    compression
        ``"none"``; ``"gzip"`` with byte shuffle, which every HDF5 library reads; or
        ``"lz4"`` or ``"zstd"`` inside a blosc container with bit shuffle, for which
        stock readers need the filters of the package ``hdf5plugin``.
    checksum
        Keep a crc32c of every stored chunk.

    Raises
    ------
    CompressionError
        A compression that is not known.
    """

    dtype: np.dtype[Any]
    compression: HDF5Compression = "none"
    checksum: bool = True

    def __post_init__(self) -> None:
        if self.compression not in HDF5_COMPRESSIONS:
            raise CompressionError(
                f"compression {self.compression!r} is not known; "
                f"choose one of {', '.join(map(repr, HDF5_COMPRESSIONS))}"
            )

    def filters(self, chunk_bytes: int) -> list[Filter]:
        """Return the filter pipeline of the dataset."""
        itemsize = self.dtype.itemsize
        if self.compression == "none":
            return []
        if self.compression == "gzip":
            shuffle = [Filter(_SHUFFLE, "shuffle", (itemsize,))] if itemsize > 1 else []
            return [*shuffle, Filter(_DEFLATE, "deflate", (_LEVEL,))]
        # Versions of the filter and of the container, then what blosc was told.
        code = _BLOSC_CODES[self.compression]
        values = (2, 2, itemsize, chunk_bytes, _LEVEL, _BITSHUFFLE, code)
        return [Filter(_BLOSC, "blosc", values)]

    def size_bytes(self, chunk_bytes: int) -> int:
        """Return the width of chunk sizes in the index; 0 without filters."""
        if self.compression == "none":
            return 0
        # As HDF5 computes it: a byte more than the uncompressed size needs.
        return min(8, 1 + (max(1, chunk_bytes).bit_length() - 1 + 8) // 8)

    def encode(self, frame: NDArray[Any]) -> EncodedFrame:
        """Return a frame's chunk; needs no lock, and compression releases the GIL.

        An uncompressed frame is not copied.
        """
        frame = np.ascontiguousarray(frame)
        if self.compression == "none":
            data: Any = frame
        elif self.compression == "gzip":
            data = zlib.compress(self._shuffle().encode(frame.reshape(-1)), _LEVEL)
        else:
            codec = FrameCodec(self.dtype, self.compression, checksum=False)
            data = codec.encode([frame]).buffers[0]
        size = frame.nbytes if data is frame else len(data)
        return EncodedFrame(data, size, checksum(data) if self.checksum else None)

    def decode(self, chunk: bytes | memoryview, out: NDArray[Any], where: str) -> None:
        """Decode a chunk into ``out``, a C-contiguous frame of the codec's dtype.

        Raises
        ------
        FrameReadError
            The bytes do not amount to one frame.
        """
        if self.compression == "gzip":
            try:
                raw = self._shuffle().decode(zlib.decompress(chunk))
            except zlib.error as error:
                raise FrameReadError(f"{where}: cannot be decompressed") from error
            chunk = memoryview(raw).cast("B")
            codec = FrameCodec(self.dtype, "none", checksum=False)
        else:
            codec = FrameCodec(self.dtype, self.compression, checksum=False)
        codec.decode(chunk, out, where)

    def _shuffle(self) -> Any:
        return import_module("numcodecs").Shuffle(self.dtype.itemsize)
