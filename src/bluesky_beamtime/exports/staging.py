"""The hidden folder in which the files of an export wait until they are finished.

It lies beside their places, so that a finished file gets its name at once. A process
that is killed leaves it behind; the next export into the same folder removes it. Who is
alive is told by a lock that the kernel drops when its process ends, however it ends.
Process numbers are never looked at.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_BEGIN, _END = ".beamtime-export-", ".part"
_LOCK = ".lock"
_KEPT = "before"
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_TRIES = 10


class Staging:
    """A hidden folder of this process.

    Parameters
    ----------
    folder
        Where the files go in the end.

    Attributes
    ----------
    path : pathlib.Path
        The hidden folder.

    Raises
    ------
    OSError
        It cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        while True:
            self.path = folder / f"{_BEGIN}{secrets.token_hex(6)}{_END}"
            self.path.mkdir()
            try:
                fd = _open_lock(self.path)
            except FileNotFoundError:
                # Somebody who was clearing up took it for a dead one.
                continue
            except BaseException:
                _remove(self.path)
                raise
            # Ctrl-C may come before a ``finally`` of ours: this is the last resort.
            self._end = weakref.finalize(self, _end, self.path, fd, os.getpid())
            self._end.atexit = False
            if _try_lock(fd) is not False and self.path.exists():
                return
            self._end.detach()
            os.close(fd)

    @property
    def kept(self) -> Path:
        """Where files wait that are being replaced."""
        kept = self.path / _KEPT
        kept.mkdir(exist_ok=True)
        return kept

    def remove(self) -> None:
        """Remove the folder with all that is in it; may be called again."""
        self._end()


def _end(path: Path, fd: int, owner: int) -> None:
    if os.getpid() != owner:
        # A forked child: the folder is its parent's.
        return
    try:
        _clear(path)
    except KeyboardInterrupt:
        _clear(path)
        raise
    finally:
        os.close(fd)


def _clear(path: Path) -> None:
    with suppress(OSError):
        _give_back(path, path.parent)
    _remove(path)


def clear_dead(folder: Path) -> None:
    """Remove what exports that were killed have left in a folder.

    What one of them was replacing gets its name back, if there is nothing else by now.
    Where the file system has no locks nobody can know, and everything stays.
    """
    for path in _found(folder):
        with suppress(OSError):
            fd = _open_lock(path)
            try:
                if _try_lock(fd):
                    _give_back(path, folder)
                    _remove(path)
            finally:
                os.close(fd)


def _found(folder: Path) -> Iterator[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            mine = entry.name.startswith(_BEGIN) and entry.name.endswith(_END)
            if mine and entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _give_back(path: Path, folder: Path) -> None:
    with suppress(FileNotFoundError):
        for kept in (path / _KEPT).iterdir():
            if not os.path.lexists(folder / kept.name):
                os.rename(kept, folder / kept.name)


def _open_lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path / _LOCK, flags, 0o666)


def _try_lock(fd: int) -> bool | None:
    """Return whether the lock is ours now; None where there are no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True


def _remove(path: Path) -> None:
    """Remove a folder, also while a thread that was interrupted still writes there."""
    for _ in range(_TRIES):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
