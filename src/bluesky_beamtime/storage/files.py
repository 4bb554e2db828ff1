"""Bytes to disk: whole writes, atomic replacement, and errors that say where.

Every function here blocks; none takes a lock. ``OSError`` becomes
:class:`~bluesky_beamtime.errors.StoreWriteError` at this edge, so that callers above
see one kind of failure with its file and its next step.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bluesky_beamtime.errors import StoreStateError, StoreWriteError

PARTIAL_SUFFIX = ".partial"
# What one call of pwritev takes.
_MOST_BUFFERS = 1024

_NEXT_STEP = {
    errno.ENOSPC: "free some space and go on: what was acknowledged is safe",
    errno.EDQUOT: "the quota is used up; raise it or free space, then go on",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "check the permissions of the folder",
    errno.EPERM: "check the permissions of the folder",
    errno.ENOENT: "the folder is gone; was it moved, removed or unmounted?",
    errno.EIO: "the disk reports an error; check it before going on",
}


def write_error(what: str, path: str | os.PathLike[str], error: OSError):
    """Make the :class:`StoreWriteError` that an ``OSError`` amounts to."""
    number = error.errno
    reason = os.strerror(number) if number else str(error)
    step = _NEXT_STEP.get(number or 0, "see the cause below")
    return StoreWriteError(
        f"cannot write {what} to {os.fspath(path)!r}: {reason}; {step}",
        errno=number,
        filename=os.fspath(path),
    )


def pwrite_all(fd: int, buffers: list[Any], size: int, offset: int) -> None:
    """Write every byte of ``buffers`` at ``offset``, however short each call falls.

    ``os.pwritev`` may write less than asked without an error, most of all on a disk
    that is nearly full; the next call then raises what is wrong.
    """
    written = os.pwritev(fd, buffers[:_MOST_BUFFERS], offset)
    while written < size:
        rest = _drop(buffers, written)
        count = os.pwritev(fd, rest[:_MOST_BUFFERS], offset + written)
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += count


def _drop(buffers: Iterable[Any], count: int) -> list[memoryview]:
    """Return the buffers without their first ``count`` bytes."""
    rest: list[memoryview] = []
    for buffer in buffers:
        view = memoryview(buffer)
        # A zero-dimensional view cannot be cast; it is never split in practice, and
        # bytes() of it is as small as one number.
        view = memoryview(view.tobytes()) if view.ndim == 0 else view.cast("B")
        if count >= view.nbytes:
            count -= view.nbytes
            continue
        rest.append(view[count:])
        count = 0
    return rest


def replace_file(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Replace a small file so that a reader sees the old or the new, never a part.

    Parameters
    ----------
    path
        The file; its folder must exist.
    data
        The new content.
    sync
        Also fsync the content before the rename and the folder after it, which is
        what survives a power cut.
    """
    # Of its own for each process and thread: two may make the same group at once.
    writer = f"{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f".{path.name}.{writer}{PARTIAL_SUFFIX}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        try:
            pwrite_all(fd, [data], len(data), 0)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Fsync a folder, so that names created or replaced in it survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Fsync a file by its name."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path, *, sync: bool = False) -> None:
    """Create a folder and its parents; ``sync`` guards them against a power cut."""
    made: list[Path] = []
    parent = path
    while not parent.exists():
        made.append(parent)
        parent = parent.parent
    path.mkdir(parents=True, exist_ok=True)
    if sync:
        for folder in made:
            sync_folder(folder.parent)


_HELD = (errno.EWOULDBLOCK, errno.EACCES)
# Looking at a lock takes microseconds; a writer keeps it for as long as it lives.
_TRIES = 20
_PAUSE = 0.001


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


class FolderLock:
    """The sign that a live process is writing a folder: a lock on a file of its own.

    The kernel drops the lock when the process dies, however it dies, so a lock that is
    held means a writer that is alive. Process numbers, which are reused, are never
    looked at.

    A store has one lock for each array, inside the folder of the array: in that of a
    group other Zarr readers would take the file for a member and warn.

    Parameters
    ----------
    folder
        The folder that is written.
    """

    NAME = ".writer.lock"

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.NAME
        self._fd: int | None = None
        while self._fd is None:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._lock(fd, folder)
                # The writer before may have removed the file between the two calls;
                # a lock on a file without a name would keep nobody out.
                if _same_file(fd, self._path):
                    self._fd = fd
            finally:
                if self._fd is None:
                    os.close(fd)

    @staticmethod
    def _lock(fd: int, folder: Path) -> None:
        for patience in reversed(range(_TRIES)):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno in _HELD:
                    if patience:
                        # Perhaps somebody only looks whether it is held.
                        time.sleep(_PAUSE)
                        continue
                    raise StoreStateError(
                        f"another live writer is writing {str(folder)!r}; "
                        "close it first, or write to another folder"
                    ) from error
                # A file system without locks can still be written to.
                if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                    return
                raise

    def in_place(self) -> bool:
        """Say whether the folder is still there, and the one that was locked."""
        return self._fd is not None and _same_file(self._fd, self._path)

    def release(self) -> None:
        """Give the lock up and remove its file; may be called again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                # Where the folder was moved, another may have its name by now.
                if _same_file(fd, self._path):
                    os.unlink(self._path)
            os.close(fd)

    @classmethod
    def is_held(cls, folder: Path) -> bool:
        """Say whether a live process is writing the folder, or one right below it."""
        try:
            with os.scandir(folder) as entries:
                below = [entry.path for entry in entries if entry.is_dir()]
        except OSError:
            return False
        return any(cls._is_held_here(Path(path)) for path in (folder, *below))

    @classmethod
    def _is_held_here(cls, folder: Path) -> bool:
        try:
            fd = os.open(folder / cls.NAME, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _HELD
        finally:
            os.close(fd)
        return False
