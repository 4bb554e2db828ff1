"""Frames handed over to worker threads: a bounded queue, in order, nothing hidden."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.storage.scratch import SCRATCH, as_array

# Frames in flight are what a killed process loses: few, and never many bytes, which
# would push one another out of the caches.
DEFAULT_QUEUE_BYTES = 1 << 25
MOST_FRAMES = 1024
LEAST_FRAMES = 4
# Frames that one thread commits before it tells of them.
_MOST_AT_ONCE = 16


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
    generation: int
    frame: NDArray[Any]
    scratch: NDArray[np.uint8] | None
    number: int = -1
    index: int = -1
    future: Future[int] = field(default_factory=Future[int])
    chunk: Any = None
    error: BaseException | None = None


class SubmissionQueue:
    """The queue of one source: encoded by several threads, committed in order.

    Whoever must wait for the queue, for room or for its end, does work of its own
    meanwhile: so a callback of a future may submit, write or close, even when the
    thread that it runs on is the only worker.

    Parameters
    ----------
    encode
        Turns a frame into what is written; called by several threads at once.
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
        schedule: Callable[[Callable[[], object]], Any],
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
        self._pending = 0
        self._submitted = 0
        # Encoded frames by number, the number that is committed next, and whether a
        # thread is at it.
        self._encoded: dict[int, _Task] = {}
        self._turn = 0
        self._committing = False
        # A frame that cannot be written takes with it those that were behind it in the
        # queue: they are of the generation that failed.
        self._generation = 0
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def submit(self, frame: NDArray[Any]) -> Future[int]:
        """Copy a frame into the queue; while it is full, encode it here and now.

        Returns
        -------
        concurrent.futures.Future
            Resolves with the frame's index when it would survive ``kill -9``, or fails
            with what the disk said.
        """
        with self._changed:
            copied = self._pending < self.limit
            self._pending += 1
        try:
            task = self._copy(frame) if copied else self._encode_here(frame)
        except BaseException:
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()
            raise
        with self._changed:
            task.number = self._submitted
            task.future.set_running_or_notify_cancel()
            self._submitted += 1
            self.stats.submitted += 1
            self.stats.most_queued = max(self.stats.most_queued, self._pending)
            if copied:
                self._tasks.append(task)
            else:
                self._encoded[task.number] = task
            self._changed.notify_all()
        if copied:
            self._schedule(self.help)
        else:
            self._commit_ready()
        return task.future

    def _copy(self, frame: NDArray[Any]) -> _Task:
        """Copy a frame, without a lock: nobody who takes a task waits for it."""
        scratch = SCRATCH.take(frame.nbytes)
        copy = as_array(scratch, frame.dtype, frame.shape)
        np.copyto(copy, frame)
        return _Task(self._generation, copy, scratch)

    def _encode_here(self, frame: NDArray[Any]) -> _Task:
        """Encode a frame in the thread that would wait for room otherwise.

        There is room when this returns.
        """
        start = time.monotonic()
        with self._changed:
            self.stats.waits += 1
        task = _Task(self._generation, frame, None)
        try:
            task.chunk = self._encode(frame)
        finally:
            self._work_until(lambda: self._submitted - self._turn < self.limit)
            with self._changed:
                self.stats.waited += time.monotonic() - start
        return task

    @property
    def pending(self) -> int:
        """Frames that are handed over and not yet written."""
        return self._pending

    def drain(self) -> None:
        """Return when every submitted frame is written or has failed."""
        self._work_until(lambda: not self._pending)

    def _work_until(self, done: Callable[[], bool]) -> None:
        """Encode and commit, or wait for others who do."""

        def busy_or_done() -> bool:
            return done() or bool(self._tasks) or self._is_ready()

        while not done():
            self.help()
            with self._changed:
                self._changed.wait_for(busy_or_done)

    def help(self) -> None:
        """Encode the next frame, if there is one, and commit what is ready."""
        with self._changed:
            task = self._tasks.popleft() if self._tasks else None
        if task is not None:
            self._encode_task(task)
        self._commit_ready()

    def _encode_task(self, task: _Task) -> None:
        try:
            if task.generation == self._generation:
                task.chunk = self._encode(task.frame)
        except BaseException as failure:
            task.error = failure
        with self._changed:
            self._encoded[task.number] = task

    def _is_ready(self) -> bool:
        """Say whether the frame whose turn it is is encoded and nobody is at it."""
        return not self._committing and self._turn in self._encoded

    def _commit_ready(self) -> None:
        """Commit what is encoded, in order, unless another thread is at it."""
        while True:
            done: list[_Task] = []
            # Others leave to us what becomes ready meanwhile. So the callbacks, which
            # may do anything and take long, come after a few frames.
            while len(done) < _MOST_AT_ONCE and (task := self._commit_next()):
                done.append(task)
            for task in done:
                if task.error is None:
                    task.future.set_result(task.index)
                else:
                    task.future.set_exception(task.error)
            if len(done) < _MOST_AT_ONCE:
                return

    def _commit_next(self) -> _Task | None:
        """Commit the frame whose turn it is, and return it."""
        with self._changed:
            if not self._is_ready():
                return None
            task = self._encoded.pop(self._turn)
            self._committing = True
        error = task.error
        if error is None and task.generation != self._generation:
            error = self._failure
        if error is not None:
            self._lose()
        else:
            try:
                task.index = self._commit(task.chunk)
            except BaseException as failure:
                error = failure
        with self._changed:
            if error is not None and task.generation == self._generation:
                self._generation += 1
                self._failure = error
            self._turn += 1
            self._pending -= 1
            self._committing = False
            self._changed.notify_all()
        if task.scratch is not None:
            SCRATCH.give(task.scratch)
        task.error = error
        return task
