"""Who records a run, and whether that process is still alive.

Whoever records holds a lock on a file of its own beside the database, and each run says
which. The kernel drops the lock when the process ends, however it ends. Process numbers
are never looked at: they are reused, and mean nothing on another machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class WriterLock:
    """Held while a process records into a database.

    Parameters
    ----------
    database
        The database file.

    Attributes
    ----------
    name : str or None
        Name of the lock file; None where the file system has no locks.

    Raises
    ------
    OSError
        The file cannot be made.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f".{database.name}.{uuid4().hex[:12]}.lock")
        self.name: str | None = self._path.name
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd: int | None = os.open(self._path, flags, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            if error.errno not in _NO_LOCKS:
                raise
            self.name = None
        _locks.add(self)

    def release(self) -> None:
        """Give the lock up and remove its file; may be called again."""
        if self._fd is not None:
            with suppress(OSError):
                os.unlink(self._path)
            os.close(self._fd)
            self._fd = None

    def let_go_in_child(self) -> None:
        """Close the descriptor that a forked child inherited."""
        # The lock belongs to the parent for as long as one descriptor of it is open.
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def is_alive(folder: Path, name: str | None) -> bool:
    """Say whether the process that holds the lock file ``name`` is alive.

    True as well when nobody can know: a run that is still recorded must never be taken
    for one that was cut off.
    """
    if name is None:
        return True
    if Path(name).name != name:
        return False
    try:
        fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def live_writers(database: Path) -> list[str]:
    """Return the names of the lock files that live processes hold beside a database."""
    return [
        path.name
        for path in database.parent.glob(f".{_escaped(database.name)}.*.lock")
        if is_alive(path.parent, path.name)
    ]


def remove_stale(database: Path) -> None:
    """Remove the lock files that killed processes left beside a database."""
    for path in database.parent.glob(f".{_escaped(database.name)}.*.lock"):
        if not is_alive(path.parent, path.name):
            with suppress(OSError):
                path.unlink()


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _after_fork_in_child() -> None:
    for lock in tuple(_locks):
        lock.let_go_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
