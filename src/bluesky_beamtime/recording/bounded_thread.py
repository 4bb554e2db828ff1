"""A thread that is fed through a queue of limited length, and may end at any moment."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from bluesky_beamtime.errors import StoreStateError

_LOOK_AGAIN = 0.5
"""Seconds between two looks at whether the thread is still there."""


class BoundedThread:
    """A thread and the queue that feeds it.

    Who waits for it is let go when it ends, with whatever is left in its queue.

    Parameters
    ----------
    work
        What it does, with the queue; ``None`` in it says that it shall end, and each
        :class:`threading.Event` is to be set when what stands before it is done.
    size
        Items that may wait.
    name
        Of the thread.
    """

    def __init__(
        self, work: Callable[[queue.Queue[Any]], None], size: int, name: str
    ) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(size)
        self._thread = threading.Thread(
            target=work, args=(self._queue,), name=name, daemon=True
        )
        self._thread.start()

    def put(self, item: Any) -> bool:
        """Hand an item on, once there is room; return False if the thread has ended."""
        while self._thread.is_alive():
            try:
                self._queue.put(item, timeout=_LOOK_AGAIN)
            except queue.Full:
                continue
            return True
        return False

    def wait(self, timeout: float | None) -> bool:
        """Wait until all that was put is done, or the thread has ended.

        Parameters
        ----------
        timeout
            Seconds; None for no limit.

        Returns
        -------
        bool
            Whether it is.

        Raises
        ------
        StoreStateError
            The thread waits for itself.
        """
        self._check_waiter()
        deadline = None if timeout is None else time.monotonic() + timeout
        done = threading.Event()
        if not self.put(done):
            return True
        while self._thread.is_alive():
            left = _LOOK_AGAIN
            if deadline is not None:
                left = min(left, max(0.0, deadline - time.monotonic()))
            if done.wait(left):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def end(self) -> None:
        """Let it do what was put, and wait until it has ended.

        Raises
        ------
        StoreStateError
            The thread waits for itself.
        """
        self._check_waiter()
        self.put(None)
        self._thread.join()

    def _check_waiter(self) -> None:
        if threading.current_thread() is self._thread:
            raise StoreStateError(
                f"the thread {self._thread.name!r} cannot wait for itself: a listener "
                "that is called in it must neither wait nor close; do so where the run "
                "was started, when it has ended"
            )
