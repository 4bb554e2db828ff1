"""Files below one folder, reached without ever following a link."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress

from bluesky_beamtime.errors import PathError
from bluesky_beamtime.storage.backends.keys import TEMPORARY_PREFIX, segment_problem
from bluesky_beamtime.storage.backends.values import file_pieces

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: a pipe that lies among the values must not hold a reader up for ever.
OPEN_VALUE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE_VALUE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COPIED_AT_ONCE = 1 << 20


def link_error(key: str) -> PathError:
    """Return the error for a key that meets a link."""
    return PathError(
        f"{key!r} meets a symbolic link; links below a root are not followed. Open the "
        "folder that it leads to instead"
    )


def refuse_link(name: str, folder: int) -> None:
    """Raise ``PathError`` if a name in a folder is a link."""
    # With O_DIRECTORY the system calls a link "not a directory".
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        raise link_error(name)


def children(folder: int) -> list[str]:
    """Return the names in a folder that are part of keys; folders with a slash."""
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if segment_problem(entry.name) is not None:
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(f"{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                names.append(entry.name)
    # Sorted with their slashes, the names of a tree give its keys in sorted order.
    return sorted(names)


def empty(folder: int) -> None:
    """Remove everything in a folder; links go, what they lead to stays."""
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(
                os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            ):
                below = os.open(name, OPEN_FOLDER, dir_fd=folder)
                try:
                    empty(below)
                finally:
                    os.close(below)
                with left_as_it_is():
                    os.rmdir(name, dir_fd=folder)
            elif not (name.startswith(TEMPORARY_PREFIX) and _is_held(name, folder)):
                os.unlink(name, dir_fd=folder)


def sweep(folder: int) -> None:
    """Remove below a folder what processes left that were killed while they wrote."""
    for name in os.listdir(folder):
        with suppress(FileNotFoundError, NotADirectoryError):
            if name.startswith(TEMPORARY_PREFIX):
                if not _is_held(name, folder):
                    os.unlink(name, dir_fd=folder)
            elif stat.S_ISDIR(
                os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            ):
                below = os.open(name, OPEN_FOLDER, dir_fd=folder)
                try:
                    sweep(below)
                finally:
                    os.close(below)


def hold(fd: int) -> None:
    """Show that a value is being written, for as long as its file is open."""
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX)


def _is_held(name: str, folder: int) -> bool:
    """Say whether a live process is writing a value; others were left by crashes."""
    fd = os.open(name, OPEN_VALUE, dir_fd=folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(fd)
    return False


@contextmanager
def left_as_it_is() -> Generator[None]:
    """Let a folder stand that another thread has just written into, or removed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def write_all(fd: int, view: memoryview) -> None:
    """Write every byte, however short each call falls."""
    while view.nbytes:
        view = view[os.write(fd, view) :]


def copy_to(source: int, fd: int, size: int) -> None:
    """Write the first ``size`` bytes of one file to another, a MiB at a time."""
    for piece in file_pieces(source, size, _COPIED_AT_ONCE):
        write_all(fd, memoryview(piece))


def read_range(fd: int, start: int, length: int) -> bytes:
    """Read a range that lies inside a file; one call of ``pread`` ends at 2 GiB."""
    parts: list[bytes] = []
    while length:
        part = os.pread(fd, length, start)
        if not part:
            break
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return b"".join(parts) if len(parts) != 1 else parts[0]
