"""Threads that write the buffer of a scan: one at a time, and all before its save."""

from __future__ import annotations

import threading


class Writers:
    """Who writes a buffer, or waits for it.

    The lock of a storage is held for :meth:`enter` alone, so that nobody who looks at
    the storage waits for the disk. What has entered before a save is in what is saved.

    Attributes
    ----------
    turn : lock
        Held by the one that writes.
    """

    def __init__(self) -> None:
        # Reentrant: a value may be an object that has a mind of its own.
        self.turn = threading.RLock()
        self._changed = threading.Condition()
        self._inside: set[object] = set()

    @property
    def busy(self) -> bool:
        """Whether anybody has entered and not yet left."""
        return bool(self._inside)

    def enter(self, who: object) -> None:
        """Announce somebody who will take a turn."""
        with self._changed:
            self._inside.add(who)

    def leave(self, who: object) -> None:
        """Let go of somebody, who need not have come so far as to enter."""
        with self._changed:
            self._inside.discard(who)
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until all have left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._inside)
