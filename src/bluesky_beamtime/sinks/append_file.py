"""A file that only grows: each write is whole, or it is taken back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bluesky_beamtime.errors import SinkWriteError

logger = logging.getLogger("bluesky_beamtime.sinks")
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


def refuse_existing(path: Path, what: str, *, append: bool, overwrite: bool) -> None:
    """Refuse a path where something is already that nobody spoke of.

    Raises
    ------
    SinkWriteError
        A file with something in it is there.
    """
    if path.is_dir():
        raise SinkWriteError(
            f"{path} is a folder; give {what} the name of a file in it",
            errno=errno.EISDIR,
            filename=str(path),
        )
    if append or overwrite:
        return
    if path.exists() and (not path.is_file() or path.stat().st_size):
        raise SinkWriteError(
            f"{path} exists; {what} does not write over it. append=True goes on after "
            "what is in it, overwrite=True begins anew",
            errno=errno.EEXIST,
            filename=str(path),
        )


def check_choice(append: bool, overwrite: bool) -> None:
    """Refuse both ways at once."""
    if append and overwrite:
        raise ValueError(
            "append=True keeps what is in the file, overwrite=True does "
            "not: choose one of them"
        )


def open_alone(path: Path, target: Path | None = None) -> BinaryIO:
    """Open a file to read and write, unbuffered, and let no other sink open it.

    The lock is the process's: it ends with the file, or with the process.

    Parameters
    ----------
    path
        The file; it is made if it is not there, and left as it is else.
    target
        What the lock is for, for messages; by default the file.

    Raises
    ------
    SinkWriteError
        Another sink has it open, of this process or another.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            _lock(descriptor, path if target is None else target)
            # Between the two calls its writer may have put another in its place.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(descriptor: int, target: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise SinkWriteError(
                f"another sink is writing to {target}, here or in another process; "
                "close it first, or write to a file of your own",
                errno=error.errno,
                filename=str(target),
            ) from error
        # A file system without locks can still be written to.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the device."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AppendFile:
    """A file at whose end bytes are put, unbuffered.

    What :meth:`append` returned from is with the operating system: it survives the end
    of the process, ``kill -9`` included. :meth:`sync` brings it to the device. Nobody
    else can have it open as an `AppendFile`.

    Parameters
    ----------
    path
        The file; its folder is made.
    keep
        Go on after what is in it, else begin anew.
    whole
        Returns how many bytes of what is in the file are whole records; the rest is
        what a killed process left, and is cut off.

    Raises
    ------
    SinkWriteError
        Another sink has it open.
    """

    def __init__(
        self, path: Path, *, keep: bool, whole: Callable[[BinaryIO], int]
    ) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_alone(path)
        self._named = False
        try:
            self.size = self._cut(whole if keep else lambda file: 0, loud=keep)
        except BaseException:
            self._file.close()
            raise

    def _cut(self, whole: Callable[[BinaryIO], int], *, loud: bool) -> int:
        with self.path.open("rb") as file:
            good = whole(file)
            there = file.seek(0, os.SEEK_END)
        if good < there:
            if loud:
                logger.warning(
                    "sinks.torn_tail_cut",
                    extra={"path": str(self.path), "bytes_cut": there - good},
                )
            self._file.truncate(good)
        self._file.seek(good)
        return good

    def append(self, *parts: bytes | bytearray | memoryview) -> None:
        """Write one part after the other at the end, or leave the file as it was.

        Raises
        ------
        OSError
            The disk refused; what was written of it is cut off again.
        """
        left, done = [part for part in parts if len(part)], 0
        try:
            while left:
                # A call may take less than it was given.
                taken = os.writev(self._file.fileno(), left)
                done += taken
                while left and taken >= len(left[0]):
                    taken -= len(left.pop(0))
                if taken:
                    left[0] = memoryview(left[0])[taken:]
        except BaseException:
            self._file.truncate(self.size)
            self._file.seek(self.size)
            raise
        self.size += done

    def sync(self) -> None:
        """Bring the file to the device."""
        os.fsync(self._file.fileno())
        if not self._named:
            sync_folder(self.path.parent)
            self._named = True

    def take_place_of(self, other: AppendFile) -> None:
        """Become the file of another, which is closed, at once or not at all."""
        there = os.fstat(other._file.fileno())
        os.fchmod(self._file.fileno(), there.st_mode & 0o7777)
        os.fsync(self._file.fileno())
        self.path.replace(other.path)
        self.path = other.path
        other._file.close()
        # It is in its place: what fails from here on must not take it away again.
        with contextlib.suppress(OSError):
            sync_folder(self.path.parent)
            self._named = True

    def discard(self) -> None:
        """Close the file and take it away."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._file.close()

    def close(self) -> None:
        """Bring the file to the device and close it."""
        try:
            self.sync()
        finally:
            self._file.close()
