"""The log inside an HDF5 file: every frame behind a header that says what it is.

HDF5 does not mind space that nothing points to. So each chunk stands behind 32 bytes
that tell its number, length and checksum, and goes to the end of the file with one
system call. From these records alone the index of the dataset can be made again, which
is what a frame's survival rests on; the index itself may follow later.

=======  ====  ==================================================================
offset   size  field
=======  ====  ==================================================================
0        4     ``BTFR``
4        4     kind: 1 frame, 2 frame without a checksum, 3 data block of the
               index, 4 super block, 5 attributes
8        8     number of the frame, or first element of the block
16       8     length of what follows
24       4     crc32c of what follows; 0 for kinds other than 1
28       4     crc32c of the file's nonce and the 28 bytes above
32             the chunk or block, then zeros up to the next multiple of 8
=======  ====  ==================================================================

All numbers are little-endian. The nonce, drawn for every file, keeps frames that happen
to show such a file from being taken for records.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module

_RECORD = struct.Struct("<4sIQQI")
_CRC = struct.Struct("<I")
MAGIC = b"BTFR"
HEADER_BYTES = _RECORD.size + _CRC.size

FRAME, BARE_FRAME, DATA_BLOCK, SUPER_BLOCK, ATTRIBUTES = 1, 2, 3, 4, 5
BLOCKS = {"data": DATA_BLOCK, "super": SUPER_BLOCK}
"""Kinds of the blocks of the index."""

# How much is searched at once for the next record behind one that is damaged.
_SEARCH_BYTES = 1 << 20


@cache
def _crc32c() -> Callable[[bytes], int]:
    return import_module("google_crc32c").value


def aligned(position: int) -> int:
    """Return the next multiple of 8, where records start."""
    return position + -position % 8


def header(nonce: bytes, kind: int, number: int, length: int, crc: int) -> bytes:
    """Return the header of a record."""
    head = _RECORD.pack(MAGIC, kind, number, length, crc)
    return head + _CRC.pack(_crc32c()(nonce + head))


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log."""

    kind: int
    """What it is."""
    number: int
    """Number of the frame, or first element of the block."""
    length: int
    """Bytes behind its header."""
    checksum: int = 0
    """crc32c of them, for a frame of the kind 1."""

    def to_bytes(self, nonce: bytes) -> bytes:
        """Return its header."""
        return header(nonce, self.kind, self.number, self.length, self.checksum)

    @classmethod
    def from_bytes(cls, data: bytes, nonce: bytes) -> Record | None:
        """Read a header; None if it is none of this file."""
        if len(data) < HEADER_BYTES or data[:4] != MAGIC:
            return None
        head = data[: _RECORD.size]
        if _CRC.pack(_crc32c()(nonce + head)) != data[_RECORD.size : HEADER_BYTES]:
            return None
        return cls(*_RECORD.unpack(head)[1:])

    @property
    def is_frame(self) -> bool:
        """Whether a frame follows."""
        return self.kind in (FRAME, BARE_FRAME)


def walk(fd: int, nonce: bytes, start: int, stop: int) -> Iterator[tuple[int, Record]]:
    """Yield the addresses and headers of the whole records between two positions.

    Where a header is damaged the next good one is searched for; a record that reaches
    beyond ``stop`` was never finished and is passed over.
    """
    position = start
    while position + HEADER_BYTES <= stop:
        record = Record.from_bytes(os.pread(fd, HEADER_BYTES, position), nonce)
        end = position + HEADER_BYTES + (record.length if record else 0)
        if record is None or end > stop:
            position = _search(fd, nonce, position + 8, stop)
            continue
        yield position, record
        position = aligned(end)


def _search(fd: int, nonce: bytes, start: int, stop: int) -> int:
    """Return where the next record starts, ``stop`` if there is none."""
    position = start
    while position < stop:
        data = os.pread(fd, _SEARCH_BYTES + HEADER_BYTES, position)
        at = data.find(MAGIC)
        while 0 <= at < _SEARCH_BYTES:
            place = position + at
            if place % 8 == 0 and Record.from_bytes(data[at : at + 32], nonce):
                return place
            at = data.find(MAGIC, at + 1)
        position += _SEARCH_BYTES
    return stop
