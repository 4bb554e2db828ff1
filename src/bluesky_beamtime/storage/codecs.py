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
from bluesky_beamtime.storage.blosc import (
    BLOCK_BYTES,
    LEVEL,
    MOST_BYTES,
    OVERHEAD,
    SIZE_FIELD,
    compress,
    decompress,
)
from bluesky_beamtime.storage.scratch import SCRATCH

Compression = Literal["none", "lz4", "zstd"]
COMPRESSIONS: tuple[Compression, ...] = ("none", "lz4", "zstd")

_CRC = struct.Struct("<I")
CHECKSUM_BYTES = _CRC.size


class CompressionError(StorageError, ValueError):
    """A compression that is not known; the message lists those that are."""


class Encoded:
    """The chunks of one frame, as they go to the disk."""

    __slots__ = ("_scratch", "buffers", "size", "sizes")

    def __init__(
        self,
        buffers: list[Any],
        sizes: list[int],
        scratch: NDArray[np.uint8] | None = None,
    ) -> None:
        self.buffers = buffers
        """One behind the other: every chunk, each with its checksum."""
        self.sizes = sizes
        """Bytes of each chunk."""
        self.size = sum(sizes)
        """Bytes of all."""
        self._scratch = scratch

    def release(self) -> None:
        """Give the memory back once the buffers are written; they are of no use then.

        Whoever leaves it out wastes time, not memory.
        """
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            self.buffers = []
            SCRATCH.give(scratch)


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

    def encode(self, tiles: list[NDArray[Any]]) -> Encoded:
        """Return the chunks of a frame, in the order of its tiles.

        The tiles must be C-contiguous and of the codec's dtype. Uncompressed ones are
        not copied. May be called from several threads at once; compression releases
        the GIL.
        """
        buffers: list[Any] = []
        sizes: list[int] = []
        scratch = None
        # Of a frame without values no reader ever asks for the chunk.
        if self.compression != "none" and tiles[0].size:
            bound = tiles[0].nbytes + OVERHEAD
            scratch = SCRATCH.take(bound * len(tiles))
        end = 0
        for tile in tiles:
            data: Any = tile
            size = tile.nbytes
            if scratch is not None:
                room = scratch[end : end + size + OVERHEAD]
                size = compress(tile, room, self.compression, self.dtype.itemsize)
                data = scratch[end : end + size]
                end += size
            buffers.append(data)
            if self.checksum:
                buffers.append(_CRC.pack(_crc32c()(data)))
                size += CHECKSUM_BYTES
            sizes.append(size)
        return Encoded(buffers, sizes, scratch)

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
            size = int.from_bytes(data[SIZE_FIELD], "little")
            if size != out.nbytes:
                raise FrameReadError(
                    f"{where}: {size} bytes are stored, a frame has {out.nbytes}"
                )
            try:
                decompress(data, out)
            except (RuntimeError, ValueError) as error:
                raise FrameReadError(f"{where}: cannot be decompressed") from error
            return
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
                        "clevel": LEVEL,
                        "shuffle": "bitshuffle",
                        "typesize": self.dtype.itemsize,
                        "blocksize": BLOCK_BYTES,
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


# Has no types; imported late because not every user writes frames.


@cache
def _crc32c() -> Callable[[Any], int]:
    return import_module("google_crc32c").value


def checksum(data: Any) -> int:
    """Return the crc32c of anything with a buffer."""
    # The C extension takes arrays and bytes, but no writable memoryview.
    return _crc32c()(np.frombuffer(data, np.uint8))


def check_chunk_bytes(source: str, size: int, compression: Compression) -> None:
    """Refuse chunks that blosc cannot compress.

    Raises
    ------
    CompressionError
        They are too large.
    """
    if compression != "none" and size > MOST_BYTES:
        raise CompressionError(
            f"source {source!r}: a chunk of {size} bytes cannot be compressed, at most "
            f"{MOST_BYTES} can; cut the frames with chunks=1024, or choose "
            "compression='none'"
        )


def checksum_error(where: str) -> FrameReadError:
    """Return the error for a frame whose bytes are not those that were written."""
    return FrameReadError(
        f"{where}: the checksum does not match, the frame was damaged on disk; "
        "verify_store() tells the extent"
    )
