"""An HDF5 file on a disk that may be full.

The HDF5 library does not survive a write that fails while it closes a file: the process
ends with a segmentation fault, and with it the RunEngine of whoever wanted an export.
So it gets a file that takes everything: what the disk refuses is remembered, and raised
when the library is through.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from bluesky_beamtime.exports.files import ExportFiles


@contextmanager
def create_hdf5(
    path: Path, files: ExportFiles, open_file: Callable[[Any], Any] | None = None
) -> Generator[Any]:
    """Create an HDF5 file, and close it whatever happens.

    Parameters
    ----------
    path
        Where.
    files
        The export that it belongs to; its ``tell`` raises what the disk refused.
    open_file
        Opens a file object for writing; by default h5py does.

    Yields
    ------
    h5py.File
        The file, or what ``open_file`` returned.

    Raises
    ------
    OSError
        The disk refused something.
    """
    with path.open("w+b", buffering=0) as raw:
        patient = _PatientFile(raw.fileno())
        files.check_with(patient.check)
        root: Any = (open_file or _with_h5py)(patient)
        try:
            yield root
        except BaseException:
            patient.give_up()
            raise
        finally:
            _in_thread(root.close)
    patient.check()


def _with_h5py(file: Any) -> Any:
    h5py: Any = import_module("h5py")
    return h5py.File(file, "w", libver="v110")


def _in_thread(work: Any) -> None:
    """Do something where no signal interrupts it: Ctrl-C ends on the main thread."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="export-close", daemon=True)
    thread.start()
    interrupted: BaseException | None = None
    while thread.is_alive():
        try:
            thread.join()
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
    if errors:
        raise errors[0]


class _PatientFile(io.RawIOBase):
    """A file that takes every write; after a refusal it forgets what it is given."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._place = 0
        self._end = 0
        self._given_up = False
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise what the disk refused."""
        if self._error is not None:
            raise self._error

    def give_up(self) -> None:
        """Write nothing any more: the file will be removed."""
        self._given_up = True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._place = offset + (0, self._place, self._end)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def write(self, data: Any, /) -> int:
        size = len(data)
        if not self._given_up:
            try:
                self._write(memoryview(data))
            except OSError as error:
                self._error = error
                self._given_up = True
        self._place += size
        self._end = max(self._end, self._place)
        return size

    def _write(self, data: memoryview) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], self._place + done)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        read = os.preadv(self._fd, [view], self._place)
        # Behind the end of a file that has given up there is nothing.
        view[read:] = bytes(len(view) - read)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        self._end = self._place if size is None else size
        if not self._given_up:
            try:
                os.ftruncate(self._fd, self._end)
            except OSError as error:
                self._error = error
                self._given_up = True
        return self._end

    def flush(self) -> None:
        """Nothing waits."""

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
