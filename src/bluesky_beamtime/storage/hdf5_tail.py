"""What the log of an HDF5 file of frames holds behind its index."""

from __future__ import annotations

import os
from dataclasses import dataclass

from bluesky_beamtime.storage.codecs import checksum
from bluesky_beamtime.storage.hdf5_layout import FileLayout
from bluesky_beamtime.storage.hdf5_log import BLOCKS, FRAME, HEADER_BYTES, walk

_READ_BYTES = 1 << 24


@dataclass
class Tail:
    """What the log holds behind the index."""

    frames: dict[int, tuple[int, int]]
    blocks: dict[tuple[str, int], int]
    damaged: list[int]


def read_tail(fd: int, layout: FileLayout, start: int) -> Tail:
    """Read the log from a position on, and check every frame in it."""
    tail = Tail({}, {}, [])
    kinds = {number: name for name, number in BLOCKS.items()}
    for position, record in walk(fd, layout.nonce, start, os.fstat(fd).st_size):
        address = position + HEADER_BYTES
        if record.kind in kinds:
            tail.blocks[kinds[record.kind], record.number] = address
        elif record.is_frame:
            if record.kind == FRAME and _crc(fd, address, record.length) != (
                record.checksum
            ):
                tail.damaged.append(record.number)
                continue
            tail.frames[record.number] = address, record.length
    tail.damaged = sorted(set(tail.damaged) - set(tail.frames))
    return tail


def _crc(fd: int, start: int, length: int) -> int:
    """Return the crc32c of a part of a file; frames are read whole to be summed."""
    parts: list[bytes] = []
    while length:
        data = os.pread(fd, min(length, _READ_BYTES), start)
        if not data:
            break
        parts.append(data)
        start += len(data)
        length -= len(data)
    return checksum(b"".join(parts)) if parts else 0
