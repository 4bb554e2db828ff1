"""Scans on their way from buffer to file, and what failed, to be tried again."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, cast

from bluesky_beamtime.storage.scan_buffer import ScanBuffer
from bluesky_beamtime.storage.scan_files import save_scan
from bluesky_beamtime.storage.scan_values import Axes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SavingJob:
    """One scan to be saved, when those who write it have left.

    Axes are None for those that its buffer has by then.
    """

    buffer: ScanBuffer
    axes: Axes | None
    kind: str


class SavingQueue:
    """Saves scans one after another: they wait on disk, not in memory.

    Python does not end before what was put is saved.

    Parameters
    ----------
    changed
        Called when a job has ended, on the thread that saves.
    failed
        Called before that with the error and the file, if it could not be saved.

    Notes
    -----
    Thread-safe, without waiting for a job.
    """

    def __init__(
        self, changed: Callable[[], None], failed: Callable[[Exception, str], None]
    ) -> None:
        self._changed, self._tell_failed = changed, failed
        # Reentrant: a job that has ended already calls back at once.
        self._lock = threading.RLock()
        self._pool: ThreadPoolExecutor | None = None
        self._writing: list[SavingJob] = []
        # A job has ended when its listeners were told, which wait() waits for.
        self._futures: set[Future[None]] = set()
        self._failed: dict[SavingJob, Exception] = {}

    @property
    def writing(self) -> int:
        """Number of jobs that are worked at or wait."""
        return len(self._writing)

    @property
    def failed(self) -> dict[SavingJob, Exception]:
        """The jobs that failed, in their order, and why."""
        with self._lock:
            return dict(self._failed)

    def put(self, *jobs: SavingJob) -> None:
        """Save scans, in the background."""
        with self._lock:
            for job in jobs:
                if self._pool is None:
                    self._pool = self._make_pool()
                self._writing.append(job)
                future = self._pool.submit(self._save, job)
                self._futures.add(future)
                future.add_done_callback(self._done)

    def retry(self) -> None:
        """Save once more what failed."""
        with self._lock:
            jobs, self._failed = self._failed, {}
        self.put(*jobs)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every job has ended, well or not; return whether it has.

        Parameters
        ----------
        timeout
            Seconds; None for no limit.
        """
        with self._lock:
            futures = list(self._futures)
        return not wait(futures, timeout).not_done

    def _make_pool(self) -> ThreadPoolExecutor:
        # Zarr reads with threads, which cannot be started any more when Python waits
        # for this one: what was registered last is waited for first.
        me: weakref.ref[SavingQueue] = weakref.ref(self)
        cast("Any", threading)._register_atexit(lambda: _finish(me))
        return ThreadPoolExecutor(1, "save-scan")

    def _save(self, job: SavingJob) -> None:
        try:
            job.buffer.writers.wait()
            if job.buffer.covered:
                axes = job.buffer.axes if job.axes is None else job.axes
                save_scan(job.buffer, axes, job.kind)
            else:
                # The only point came to nothing.
                job.buffer.release()
        except Exception as error:
            place = job.buffer.place
            # Whoever listens to nothing reads this.
            logger.error(
                "%s was not saved: %s; its buffer is %s, and retry() of the "
                "ScanStorage saves it once more",
                place.target,
                error,
                place.workshop,
                exc_info=error,
            )
            with self._lock:
                self._failed[job] = error
            self._tell_failed(error, str(place.target))
        finally:
            with self._lock:
                self._writing.remove(job)
            self._changed()

    def _done(self, future: Future[None]) -> None:
        with self._lock:
            self._futures.discard(future)
        error = future.exception()
        if error is not None:
            logger.error("storage.scan.listener", exc_info=error)


def _finish(queue: weakref.ref[SavingQueue]) -> None:
    alive = queue()
    if alive is not None:
        alive.wait()
