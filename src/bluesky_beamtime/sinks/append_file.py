"""A file that only grows: each write is whole, or it is taken back."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bluesky_beamtime.errors import SinkWriteError

logger = logging.getLogger("bluesky_beamtime.sinks")


def refuse_existing(path: Path, what: str, *, append: bool, overwrite: bool) -> None:
    """Refuse a path where something is already that nobody spoke of.

    Raises
    ------
    SinkWriteError
        A file with something in it is there.
    """
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


class AppendFile:
    """A file at whose end bytes are put, unbuffered.

    What :meth:`append` returned from is with the operating system: it survives the end
    of the process, ``kill -9`` included. :meth:`sync` brings it to the device.

    Parameters
    ----------
    path
        The file; its folder is made.
    keep
        Go on after what is in it, else begin anew.
    whole
        Returns how many bytes of what is in the file are whole records; the rest is
        what a killed process left, and is cut off.
    """

    def __init__(
        self, path: Path, *, keep: bool, whole: Callable[[BinaryIO], int]
    ) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        keep = keep and path.exists()
        self._file = path.open("r+b" if keep else "wb", buffering=0)
        try:
            self.size = self._cut(whole) if keep else 0
        except BaseException:
            self._file.close()
            raise

    def _cut(self, whole: Callable[[BinaryIO], int]) -> int:
        with self.path.open("rb") as file:
            good = whole(file)
            there = file.seek(0, os.SEEK_END)
        if good < there:
            logger.warning(
                "sinks.torn_tail_cut",
                extra={"path": str(self.path), "bytes_cut": there - good},
            )
            self._file.truncate(good)
        self._file.seek(good)
        return good

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Write at the end, or leave the file as it was.

        Raises
        ------
        OSError
            The disk refused; what was written of it is cut off again.
        """
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += self._file.write(view[done:]) or 0
        except BaseException:
            self._file.truncate(self.size)
            self._file.seek(self.size)
            raise
        self.size += done

    def sync(self) -> None:
        """Bring the file to the device."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Bring the file to the device and close it."""
        try:
            self.sync()
        finally:
            self._file.close()
