"""Keeping SQLite's locks while a database file is also read byte by byte.

POSIX locks belong to a process: when it closes any descriptor of a file, it loses all
locks that it has on that file, those of SQLite included. Another program that then
closes the file believes that it is the last one and removes the write-ahead log under
the recorder: what is recorded from then on is lost. So a descriptor of a file that
SQLite has open is kept until SQLite closes it
(https://sqlite.org/howtocorrupt.html, "POSIX advisory locks canceled").
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections import Counter, deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_Inode = tuple[int, int]

_guard = threading.Lock()
_open: Counter[_Inode] = Counter()
_kept: dict[_Inode, list[int]] = {}
# Of connections that have ended, and were not counted down yet.
_ended: deque[_Inode] = deque()


class LockingConnection(sqlite3.Connection):
    """A connection whose locks are kept, from :meth:`keep_locks` to its end."""

    _let_go: weakref.finalize[[_Inode], LockingConnection] | None = None

    def keep_locks(self, path: Path) -> None:
        """Say which file it opened, before any statement: locks come with those."""
        inode = _inode(os.stat(path))
        with _guarded():
            _open[inode] += 1
        self._let_go = weakref.finalize(self, _forget, inode)
        self._let_go.atexit = False

    def close(self) -> None:
        """Close the connection."""
        super().close()
        if self._let_go is not None:
            self._let_go()


def first_bytes(path: Path, count: int) -> bytes:
    """Return the beginning of a file that SQLite may have open in this process.

    Parameters
    ----------
    path
        The file.
    count
        Number of bytes; fewer come from a shorter file.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with _guarded():
        kept = _kept.get(_inode(os.stat(path)))
        if kept:
            return os.pread(kept[0], count, 0)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, count, 0)
    finally:
        inode = _inode(os.fstat(fd))
        with _guarded():
            if _open[inode]:
                _kept.setdefault(inode, []).append(fd)
            else:
                os.close(fd)


@contextmanager
def _guarded() -> Generator[None]:
    try:
        with _guard:
            yield
    finally:
        _count_down()


def _forget(inode: _Inode) -> None:
    # Of a connection that nobody closed, garbage collection says so, between any two
    # lines and in a thread that has the guard perhaps: it must not wait for it.
    _ended.append(inode)
    _count_down()


def _count_down() -> None:
    """Count connections that have ended, unless somebody is there who will."""
    while _ended and _guard.acquire(blocking=False):
        try:
            while _ended:
                inode = _ended.popleft()
                _open[inode] -= 1
                if not _open[inode]:
                    del _open[inode]
                    for fd in _kept.pop(inode, []):
                        os.close(fd)
        finally:
            _guard.release()


def _inode(status: os.stat_result) -> _Inode:
    return status.st_dev, status.st_ino


def _forked() -> None:
    # The thread that held it is not here.
    global _guard
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_forked)
