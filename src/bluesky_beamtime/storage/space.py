"""Will it fit? Frames against what is free on the disk."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_beamtime.storage.codecs import CHECKSUM_BYTES
from bluesky_beamtime.storage.layout import default_frames_per_shard
from bluesky_beamtime.storage.paths import from_uri
from bluesky_beamtime.storage.shards import index_bytes


def frames_size(count: int, dtype: Any, shape: tuple[int, ...]) -> int:
    """Return the bytes that ``count`` frames take on disk, uncompressed.

    Their checksums and the indexes of their shards are included.
    """
    frame = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
    per_shard = default_frames_per_shard(frame)
    shards = -(-count // per_shard)
    return count * (frame + CHECKSUM_BYTES) + shards * index_bytes(per_shard)


def free_space(where: str | os.PathLike[str]) -> int:
    """Return the bytes that are free for this user at a path or ``file:`` URI.

    The path need not exist yet: the nearest folder above it that does is asked.
    """
    path = Path(from_uri(os.fspath(where))).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


@dataclass(frozen=True, slots=True)
class SpaceReport:
    """What an acquisition needs and what the disk has."""

    path: str
    """Where it would go."""
    needed: int
    """Bytes that it takes."""
    free: int
    """Bytes that are free."""

    @property
    def ok(self) -> bool:
        """Whether it fits."""
        return self.needed <= self.free

    def __str__(self) -> str:
        state = "fits" if self.ok else "does not fit"
        return (
            f"{human_size(self.needed)} {state} into the {human_size(self.free)} "
            f"that are free at {self.path!r}"
        )


def check_space(where: str | os.PathLike[str], needed: int) -> SpaceReport:
    """Compare what an acquisition needs with what is free.

    Parameters
    ----------
    where
        Path or ``file:`` URI.
    needed
        Bytes, for instance from :func:`frames_size`.
    """
    return SpaceReport(from_uri(os.fspath(where)), needed, free_space(where))


def human_size(count: float) -> str:
    """Return bytes as people read them, in decimal units: ``"3.2 GB"``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} PB"
