"""Frames cut into inner chunks, so that a part of a huge one can be read alone."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Slices = tuple[slice, ...]
Box = tuple[tuple[int, int], ...]
"""Where a region begins and ends along each axis of a frame."""

# An index entry each: more would make the index of a shard slow to read.
MOST_CHUNKS = 1 << 14


def frame_chunks(name: str, shape: tuple[int, ...], chunks: Any) -> tuple[int, ...]:
    """Return the shape of a frame's inner chunks, the whole frame by default.

    Parameters
    ----------
    name
        Of the source, for messages.
    shape
        Of a frame.
    chunks
        None, one size for every axis, or a size for each. An axis that is shorter is
        taken whole.

    Raises
    ------
    ValueError
        Not as many sizes as the frame has axes, a size below 1, or so small ones that
        a frame would become more than 16384 chunks.
    """
    stored = stored_shape(shape)
    if chunks is None or 0 in shape:
        return stored
    sizes = check_chunks(chunks)
    if isinstance(sizes, int):
        sizes = (sizes,) * len(shape)
    if len(sizes) != len(shape):
        raise ValueError(
            f"source {name!r}: chunks {sizes} has {len(sizes)} sizes, a frame "
            f"{len(shape)} axes {shape}; give one size for each, or a single number"
        )
    cut = tuple(min(size, whole) for size, whole in zip(sizes, stored, strict=True))
    count = Tiling(stored, cut).count
    if count > MOST_CHUNKS:
        raise ValueError(
            f"source {name!r}: chunks {sizes} cut a frame of {shape} into {count} "
            f"pieces, at most {MOST_CHUNKS} are taken; choose larger chunks, "
            "such as 1024 along each axis"
        )
    return cut


def check_chunks(chunks: Any) -> int | tuple[int, ...]:
    """Return an option ``chunks`` as plain integers.

    Raises
    ------
    ValueError
        Not one size or several, each 1 or more.
    """
    try:
        if isinstance(chunks, (tuple, list)):
            sizes = tuple(map(operator.index, cast("tuple[int, ...]", chunks)))
            if all(size >= 1 for size in sizes):
                return sizes
        elif operator.index(chunks) >= 1:
            return operator.index(chunks)
    except TypeError:
        pass
    raise ValueError(
        f"chunks is a size of 1 or more, or one for each axis of a frame such as "
        f"(1024, 1024), not {chunks!r}"
    )


def stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a frame's chunk: no axis of a chunk may have the length 0."""
    return tuple(max(1, size) for size in shape)


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a frame is cut: tiles of one size, numbered in C order."""

    shape: tuple[int, ...]
    """Of a frame."""
    chunks: tuple[int, ...]
    """Of a tile; those at the far edges are filled up with zeros."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of tiles along each axis."""
        return tuple(
            -(-size // chunk)
            for size, chunk in zip(self.shape, self.chunks, strict=True)
        )

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(self.grid)

    @property
    def padded(self) -> tuple[int, ...]:
        """Shape that the tiles cover."""
        return tuple(
            count * chunk for count, chunk in zip(self.grid, self.chunks, strict=True)
        )

    def split(self, frame: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the tiles of a frame, each C-contiguous and of the full size."""
        tiles: list[NDArray[Any]] = []
        for corner in np.ndindex(self.grid):
            part = frame[
                tuple(
                    slice(place * chunk, (place + 1) * chunk)
                    for place, chunk in zip(corner, self.chunks, strict=True)
                )
            ]
            if part.shape != self.chunks:
                tile = np.zeros(self.chunks, frame.dtype)
                tile[tuple(slice(size) for size in part.shape)] = part
                part = tile
            tiles.append(np.ascontiguousarray(part))
        return tiles

    def within(self, box: Box) -> Iterator[tuple[int, Slices, Slices]]:
        """Yield the tiles that a region touches.

        Yields
        ------
        tuple
            The tile's number, the part of it that lies in the region, and where that
            part lies in the region.
        """
        along: list[list[tuple[int, slice, slice]]] = []
        for (start, stop), chunk in zip(box, self.chunks, strict=True):
            axis: list[tuple[int, slice, slice]] = []
            for place in range(start // chunk, -(-stop // chunk)):
                first = max(start, place * chunk)
                last = min(stop, (place + 1) * chunk)
                inside = slice(first - place * chunk, last - place * chunk)
                axis.append((place, inside, slice(first - start, last - start)))
            along.append(axis)
        grid = self.grid
        for parts in itertools.product(*along):
            number = 0
            for (place, _, _), count in zip(parts, grid, strict=True):
                number = number * count + place
            yield (
                number,
                tuple(inside for _, inside, _ in parts),
                tuple(target for _, _, target in parts),
            )
