"""One process at a time follows a file; when it ends, however it ends, another may."""

from __future__ import annotations

import fcntl
import os
import weakref
from contextlib import suppress
from pathlib import Path

_locks: weakref.WeakSet[FollowerLock] = weakref.WeakSet()


class FollowerLock:
    """A lock on a hidden file beside a database.

    Parameters
    ----------
    path
        The lock file, which is made and left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        _locks.add(self)

    def acquire(self) -> bool:
        """Take the lock if nobody has it; say whether it is ours.

        Where the file system has no locks it is ours: what is copied twice is stored
        once all the same.
        """
        if self._fd is not None:
            return True
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:
            pass
        self._fd = fd
        return True

    def release(self) -> None:
        """Give the lock up; may be called again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _after_fork_in_child() -> None:
    # The lock belongs to the parent for as long as one descriptor of it is open.
    for lock in tuple(_locks):
        with suppress(OSError):
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
