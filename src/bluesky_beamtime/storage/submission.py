"""Frames handed over to worker threads: a bounded queue, in order, nothing hidden."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Frames in flight are what a killed process loses: few, and never many bytes.
DEFAULT_QUEUE_BYTES = 1 << 26
MOST_FRAMES = 1024
LEAST_FRAMES = 4


@dataclass(slots=True)
class SubmissionStats:
    """How often and how long producers waited for room in the queue."""

    submitted: int = 0
    """Frames that were handed over."""
    waits: int = 0
    """Calls that found the queue full."""
    waited: float = 0.0
    """Seconds they waited in all."""
    most_queued: int = 0
    """Most frames that were in the queue at once."""


@dataclass(slots=True, eq=False)
class _Task:
    number: int
    generation: int
    frame: NDArray[Any]
    future: Future[int]


class SubmissionQueue:
    """The queue of one source: encoded by several threads, committed in order.

    Parameters
    ----------
    encode
        Turns a frame into what is written; called by several workers at once.
    commit
        Writes what ``encode`` made and returns the frame's index; called in the order
        of submission, one at a time.
    lose
        Told of each frame that ends without ``commit`` being asked.
    frame_bytes
        Size of a frame, which decides how many may wait.
    schedule
        Hands one call to the workers.
    queue_bytes
        Most bytes that may wait.
    """

    def __init__(
        self,
        encode: Callable[[NDArray[Any]], Any],
        commit: Callable[[Any], int],
        lose: Callable[[], None],
        frame_bytes: int,
        schedule: Callable[[Callable[[], None]], Any],
        queue_bytes: int = DEFAULT_QUEUE_BYTES,
    ) -> None:
        self._encode = encode
        self._commit = commit
        self._lose = lose
        self._schedule = schedule
        self.limit = max(
            LEAST_FRAMES, min(MOST_FRAMES, queue_bytes // max(1, frame_bytes))
        )
        self.stats = SubmissionStats()
        self._tasks: deque[_Task] = deque()
        self._free: list[NDArray[Any]] = []
        self._pending = 0
        self._submitted = 0
        self._turn = 0
        # A frame that cannot be written takes with it those that were behind it in the
        # queue: they are of the generation that failed.
        self._generation = 0
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def submit(self, frame: NDArray[Any]) -> Future[int]:
        """Copy a frame into the queue; blocks while it is full.

        Returns
        -------
        concurrent.futures.Future
            Resolves with the frame's index when it would survive ``kill -9``, or fails
            with what the disk said.
        """
        task = self._enqueue(frame)
        self._schedule(self._work)
        return task.future

    def _enqueue(self, frame: NDArray[Any]) -> _Task:
        with self._changed:
            if self._pending >= self.limit:
                self.stats.waits += 1
                start = time.monotonic()
                self._changed.wait_for(lambda: self._pending < self.limit)
                self.stats.waited += time.monotonic() - start
            # Buffers are used again: fresh memory costs more than the copy.
            buffer = self._free.pop() if self._free else np.empty_like(frame, order="C")
            np.copyto(buffer, frame)
            task = _Task(self._submitted, self._generation, buffer, Future())
            task.future.set_running_or_notify_cancel()
            self._submitted += 1
            self._pending += 1
            self.stats.submitted += 1
            self.stats.most_queued = max(self.stats.most_queued, self._pending)
            self._tasks.append(task)
            return task

    @property
    def pending(self) -> int:
        """Frames that are handed over and not yet written."""
        return self._pending

    def drain(self) -> None:
        """Wait until every submitted frame is written or has failed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending)

    def _work(self) -> None:
        with self._changed:
            # Taken in order, so the task whose turn it is always has a worker.
            task = self._tasks.popleft()
        chunk: Any = None
        error: BaseException | None = None
        try:
            if task.generation == self._generation:
                chunk = self._encode(task.frame)
        except BaseException as failure:
            error = failure
        with self._changed:
            self._changed.wait_for(lambda: self._turn == task.number)
        index = -1
        if error is None and task.generation != self._generation:
            error = self._failure
        if error is not None:
            self._lose()
        else:
            try:
                index = self._commit(chunk)
            except BaseException as failure:
                error = failure
        with self._changed:
            if error is not None and task.generation == self._generation:
                self._generation += 1
                self._failure = error
            self._turn += 1
            self._pending -= 1
            self._free.append(task.frame)
            self._changed.notify_all()
        if error is None:
            task.future.set_result(index)
        else:
            task.future.set_exception(error)
