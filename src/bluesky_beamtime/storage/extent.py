"""How many frames an array really holds, read from its shards' own indexes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import FrameReadError, StoreReadError
from bluesky_beamtime.storage.layout import ArrayLayout, read_metadata
from bluesky_beamtime.storage.shards import present, read_index


def shard_numbers(folder: Path, layout: ArrayLayout) -> list[int]:
    """Return the numbers of the shard files in an array's folder, ascending."""
    pattern = re.compile(r"c\.(\d+)" + r"\.0" * len(layout.shape))
    names = os.listdir(folder)
    found = (pattern.fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def shard_presence(folder: Path, layout: ArrayLayout, number: int) -> NDArray[Any]:
    """Return for each slot of a shard whether every chunk of its frame is there."""
    path = folder / layout.shard_name(number)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return np.zeros(layout.frames_per_shard, bool)
    try:
        index = read_index(fd, layout.entries_per_shard)
        there = present(index, os.fstat(fd).st_size)
        return np.all(there.reshape(layout.frames_per_shard, -1), axis=1)
    finally:
        os.close(fd)


def written_frames(folder: Path, layout: ArrayLayout) -> int:
    """Return the number of frames up to and with the last one that is whole.

    Frames are appended in order, so after the death of a process none is missing in
    between. A power cut may take bytes of the latest frames although their index
    entries were kept; such frames at the end do not count.
    """
    for number in reversed(shard_numbers(folder, layout)):
        there = np.flatnonzero(shard_presence(folder, layout, number))
        for slot in reversed(there):
            if _is_whole(folder, layout, number, int(slot)):
                return number * layout.frames_per_shard + int(slot) + 1
    return 0


def _is_whole(folder: Path, layout: ArrayLayout, number: int, slot: int) -> bool:
    """Say whether the bytes of a frame are those that were written."""
    count = layout.chunks_per_frame
    shape = layout.chunk_shape if layout.chunks else (1, *layout.shape)
    chunk = np.empty(shape, layout.dtype)
    fd = os.open(folder / layout.shard_name(number), os.O_RDONLY | os.O_CLOEXEC)
    try:
        for offset, length in read_index(fd, count, slot * count).tolist():
            layout.codec.decode(os.pread(fd, length, offset), chunk, "")
    except FrameReadError:
        return False
    finally:
        os.close(fd)
    return True


def holds_frames(folder: Path) -> bool:
    """Say whether a folder holds frames, or something that is not ours."""
    if not folder.exists():
        return False
    try:
        metadata = read_metadata(folder)
        layout = ArrayLayout.from_json(metadata, str(folder))
    except StoreReadError:
        return any(not name.startswith(".") for name in os.listdir(folder))
    return metadata["shape"][0] > 0 or written_frames(folder, layout) > 0
