"""Frames to chunk bytes and back: raw, lz4 or zstd, with or without a checksum.

The bytes are those of the Zarr v3 codecs ``bytes``, ``blosc`` and ``crc32c``, so any
Zarr reader decodes them.

References
----------
Zarr v3 core specification, "Codecs"; the ``blosc`` codec
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/blosc/); the ``crc32c`` codec
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/crc32c/), whose checksum is
four little-endian bytes behind the data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import FrameReadError, StorageError, StoreReadError

Compression = Literal["none", "lz4", "zstd"]
COMPRESSIONS: tuple[Compression, ...] = ("none", "lz4", "zstd")

_CRC = struct.Struct("<I")
CHECKSUM_BYTES = _CRC.size
# Detector counts are small numbers in wide words: shuffling their bits gathers the
# zeros, so the fastest level already gives a third of the size.
_LEVEL = 1
_BITSHUFFLE = 2
# Where a blosc container says how many bytes it becomes.
_BLOSC_SIZE = slice(4, 8)


class CompressionError(StorageError, ValueError):
    """A compression that is not known; the message lists those that are."""


@dataclass(frozen=True, slots=True)
class FrameCodec:
    """How the frames of one array become chunk bytes.

    Parameters
    ----------
    dtype
        Dtype of the frames, in the byte order that is stored.
    compression
        ``"none"``, or ``"lz4"`` or ``"zstd"`` inside a blosc container with bit
        shuffle.
    checksum
        Put a crc32c behind every frame, which Zarr readers check at each read.
    """

    dtype: np.dtype[Any]
    compression: Compression = "none"
    checksum: bool = True

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise CompressionError(
                f"compression {self.compression!r} is not known; "
                f"choose one of {', '.join(map(repr, COMPRESSIONS))}"
            )

    def encode(self, frame: NDArray[Any]) -> tuple[list[Any], int]:
        """Return the buffers of a frame's chunk and their size in bytes.

        The frame must be C-contiguous and of the codec's dtype. Uncompressed frames
        are not copied: the first buffer is the frame itself. May be called from several
        threads at once; compression releases the GIL.
        """
        if self.compression == "none" or not frame.size:
            # Of a frame without values no reader ever asks for the chunk.
            data: Any = frame
            size = frame.nbytes
        else:
            data = _blosc().compress(
                frame.reshape(-1),
                self.compression.encode(),
                _LEVEL,
                _BITSHUFFLE,
                0,
                self.dtype.itemsize,
            )
            size = len(data)
        if not self.checksum:
            return [data], size
        return [data, _CRC.pack(_crc32c()(data))], size + CHECKSUM_BYTES

    def decode(self, chunk: bytes | memoryview, out: NDArray[Any], where: str) -> None:
        """Decode a chunk into ``out``, a C-contiguous frame of the codec's dtype.

        Raises
        ------
        FrameReadError
            The checksum is wrong, or the bytes do not amount to one frame.
        """
        data = memoryview(chunk)
        if self.checksum:
            if len(data) < CHECKSUM_BYTES:
                raise FrameReadError(f"{where}: only {len(data)} bytes are stored")
            data, tail = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
            if checksum(data) != _CRC.unpack(tail)[0]:
                raise checksum_error(where)
        if self.compression == "none" or not out.size:
            raw: Any = data
        else:
            # Blosc believes its header, whatever size that asks for.
            size = int.from_bytes(data[_BLOSC_SIZE], "little")
            if size != out.nbytes:
                raise FrameReadError(
                    f"{where}: {size} bytes are stored, a frame has {out.nbytes}"
                )
            try:
                raw = _blosc().decompress(data)
            except (RuntimeError, ValueError) as error:
                raise FrameReadError(f"{where}: cannot be decompressed") from error
        if len(raw) != out.nbytes:
            raise FrameReadError(
                f"{where}: {len(raw)} bytes are stored, a frame has {out.nbytes}"
            )
        # "out" is contiguous, so the reshape is a view of it.
        out.reshape(-1)[:] = np.frombuffer(raw, self.dtype)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the codecs as the Zarr v3 metadata names them."""
        configuration = {}
        if self.dtype.itemsize > 1:
            order = "big" if self.dtype.str.startswith(">") else "little"
            configuration = {"configuration": {"endian": order}}
        codecs: list[dict[str, Any]] = [{"name": "bytes", **configuration}]
        if self.compression != "none":
            codecs.append(
                {
                    "name": "blosc",
                    "configuration": {
                        "cname": self.compression,
                        "clevel": _LEVEL,
                        "shuffle": "bitshuffle",
                        "typesize": self.dtype.itemsize,
                        "blocksize": 0,
                    },
                }
            )
        if self.checksum:
            codecs.append({"name": "crc32c"})
        return codecs

    @classmethod
    def from_json(
        cls, dtype: np.dtype[Any], codecs: list[dict[str, Any]]
    ) -> FrameCodec:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        StoreReadError
            Codecs that this reader does not know.
        """
        names = [codec["name"] for codec in codecs]
        compression: Any = "none"
        checksum = False
        if names[-1:] == ["crc32c"]:
            checksum = True
            names.pop()
        if names[-1:] == ["blosc"]:
            compression = codecs[len(names) - 1]["configuration"]["cname"]
            names.pop()
        if names != ["bytes"] or compression not in COMPRESSIONS:
            raise StoreReadError(f"frames encoded with {codecs} cannot be read here")
        endian = codecs[0].get("configuration", {}).get("endian", "little")
        return cls(
            dtype.newbyteorder(">" if endian == "big" else "<"), compression, checksum
        )


# Neither package has types; both are imported late because not every user writes
# frames.


@cache
def _blosc() -> Any:
    return import_module("numcodecs.blosc")


@cache
def _crc32c() -> Callable[[Any], int]:
    return import_module("google_crc32c").value


def checksum(data: Any) -> int:
    """Return the crc32c of anything with a buffer."""
    # The C extension takes arrays and bytes, but no writable memoryview.
    return _crc32c()(np.frombuffer(data, np.uint8))


def checksum_error(where: str) -> FrameReadError:
    """Return the error for a frame whose bytes are not those that were written."""
    return FrameReadError(
        f"{where}: the checksum does not match, the frame was damaged on disk; "
        "verify_store() tells the extent"
    )
