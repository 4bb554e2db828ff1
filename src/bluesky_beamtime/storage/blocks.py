"""Many frames at once: compressed ahead by other threads, written in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from itertools import islice
from typing import Any, Protocol

from numpy.typing import NDArray

# What is compressed before it is written, when many frames come at once.
_MOST_ENCODED_BYTES = 1 << 26
# Handing a frame to another thread takes as long as compressing this much.
_LEAST_FOR_WORKERS = 1 << 18
# Few, so that they stay in the caches until they are written.
_FRAMES_AHEAD = 4


class Appendable(Protocol):
    """Where encoded frames are appended."""

    def encode(self, frame: NDArray[Any]) -> Any:
        """Return what is stored of a frame; needs no lock."""
        ...

    def append_many(self, frames: list[Any], /) -> int:
        """Append what :meth:`encode` returned, and return the length."""
        ...


def append_block(
    array: Appendable,
    frames: NDArray[Any],
    workers: Executor | None,
    *,
    as_they_are: bool,
) -> None:
    """Append frames that lie along the leading axis.

    All or a leading part of them is appended when this raises.

    Parameters
    ----------
    array
        Where to.
    frames
        They must have the array's dtype and shape.
    workers
        Threads that compress some frames while others are written.
    as_they_are
        Encoding refers to the frames' own memory: all can be written with one call.
    """
    # With the ellipsis a frame without dimensions keeps its byte order.
    parts = (frames[n, ...] for n in range(len(frames)))
    frame_bytes = frames.nbytes // max(1, len(frames))
    if as_they_are:
        array.append_many([array.encode(part) for part in parts])
    elif workers is None or frame_bytes < _LEAST_FOR_WORKERS:
        most = max(1, _MOST_ENCODED_BYTES // max(1, frame_bytes))
        while some := [array.encode(part) for part in islice(parts, most)]:
            array.append_many(some)
    else:
        _append_ahead(array, parts, workers)


def _append_ahead(
    array: Appendable, frames: Iterator[NDArray[Any]], workers: Executor
) -> None:
    """Append frames, in order, that other threads encode ahead."""
    ahead: deque[Future[Any]] = deque()
    try:
        while True:
            for frame in islice(frames, _FRAMES_AHEAD - len(ahead)):
                ahead.append(workers.submit(array.encode, frame))
            if not ahead:
                return
            array.append_many([ahead.popleft().result()])
    finally:
        # The caller's memory is read until then.
        for future in ahead:
            future.cancel()
        wait(ahead)
