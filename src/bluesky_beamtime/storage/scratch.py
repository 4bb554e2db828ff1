"""Memory that is used again: fresh memory costs more than what is copied into it."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What may be held when nobody uses it: some frames of usual size, or few huge ones.
_MOST_BYTES = 1 << 26
_ALWAYS = 4


class ScratchPool:
    """Pieces of memory that are taken and given back; thread-safe.

    What is not given back is lost to the pool and nothing else.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> NDArray[np.uint8]:
        """Return memory of at least ``size`` bytes, not cleared."""
        with self._lock:
            # The latest first: it may still be in the cache of a core.
            for place in reversed(range(len(self._free))):
                if size <= self._free[place].nbytes <= 2 * size:
                    return self._free.pop(place)
        return np.empty(size, np.uint8)

    def give(self, scratch: NDArray[np.uint8]) -> None:
        """Give memory back; its content may change from now on."""
        with self._lock:
            self._free.append(scratch)
            held = sum(piece.nbytes for piece in self._free)
            while len(self._free) > _ALWAYS and held > _MOST_BYTES:
                # Of a size, perhaps, that is not asked for any more.
                held -= self._free.pop(0).nbytes


def as_array(
    scratch: NDArray[np.uint8], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return the beginning of a piece of memory as an array."""
    size = dtype.itemsize * math.prod(shape)
    return scratch[:size].view(dtype).reshape(shape)


SCRATCH = ScratchPool()
"""The pool that frames in queues and what is compressed share."""
