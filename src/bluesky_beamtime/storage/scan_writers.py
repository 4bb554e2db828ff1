"""Threads that write the buffer of a scan: one at a time, and all before its save."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager


class Writers:
    """Who writes a buffer, or waits for it.

    The lock of a storage is held for :meth:`enter` alone, so that nobody who looks at
    the storage waits for the disk. What has entered before a save is in what is saved.
    """

    def __init__(self) -> None:
        # Reentrant: a value may be an object that has a mind of its own.
        self._turn = threading.RLock()
        self._changed = threading.Condition()
        self._count = 0

    @property
    def busy(self) -> bool:
        """Whether anybody has entered and not yet left."""
        with self._changed:
            return self._count > 0

    def enter(self) -> None:
        """Announce that :meth:`turn` comes next."""
        with self._changed:
            self._count += 1

    @contextmanager
    def turn(self) -> Generator[None]:
        """Write, alone, and leave."""
        try:
            with self._turn:
                yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def wait(self) -> None:
        """Wait until all have left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count)
