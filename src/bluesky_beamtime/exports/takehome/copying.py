"""Files on their way into a folder: hashed as they pass, never held whole."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bluesky_beamtime.database.sizes import human_size
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports.belongings import Belonging
from bluesky_beamtime.exports.takehome.manifest import Manifest

Progress = Callable[[str, int, int], None]

_BLOCK = 8 << 20
# What a page and its pictures take for each run, roughly, and what is left for others.
_FOR_PAGES = 200_000
_SPARE = 8 << 20
_HINTS = {
    errno.EFBIG: "; the disk takes no files of that size: format it as exFAT",
    errno.EINVAL: "; the disk does not take such a name: choose another one",
}


def check_space(folder: Path, size: int, runs: int) -> None:
    """Raise unless a folder has space for so many bytes and for the pages of runs.

    Raises
    ------
    ExportError
        It has not.
    """
    needed = size + runs * _FOR_PAGES + _SPARE
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ExportError(
            f"taking this home needs {human_size(needed)}, and {str(folder)!r} has "
            f"{human_size(free)} free; nothing was written. Choose another disk, or "
            "name the runs to take",
            errno=errno.ENOSPC,
            filename=str(folder),
        )


class FolderCopy:
    """Copies files into a folder, with their hashes.

    Parameters
    ----------
    folder
        The folder, which nobody else writes.
    manifest
        Told of every file.
    progress
        Called with what is copied, how many bytes are, and how many there are.
    total
        Bytes of all files, as they were listed.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, progress: Progress, total: int
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._progress = progress
        self._done, self._total = 0, total
        self.absent: list[str] = []
        """Files that could not be read, each with the reason."""

    def add(self, file: Belonging) -> None:
        """Copy a file; one that cannot be read is noted in ``absent``.

        Raises
        ------
        OSError
            The copy cannot be written.
        """
        target = self._folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._miss(file, error)
            return
        try:
            # What is there already has a name that this disk takes for the same.
            with target.open("xb", buffering=0) as copy:
                digest = self._pass(file, source, copy.fileno())
        except _SourceError as error:
            target.unlink()
            self._miss(file, error.reason)
            return
        finally:
            os.close(source)
        if file.modified:
            # Disks that belong to somebody else take files, but not their times.
            with suppress(OSError):
                os.utime(target, ns=(file.modified, file.modified))
        self._manifest.add(file.name, digest)

    def _pass(self, file: Belonging, source: int, copy: int) -> str:
        """Copy what is in the file now, and no more, however fast it grows."""
        digest = hashlib.sha256()
        left: int | None = None
        while left is None or left > 0:
            block = _read(source, _BLOCK if left is None else min(_BLOCK, left))
            if left is None:
                # After the first block: what an index at the front of the file names
                # is within the size of now.
                left = max(os.fstat(source).st_size, len(block))
            if not block:
                break
            left -= len(block)
            digest.update(block)
            view = memoryview(block)
            while view:
                view = view[os.write(copy, view) :]
            self._done = min(self._done + len(block), self._total)
            self._progress(f"copying {file.kind}", self._done, self._total)
        return digest.hexdigest()

    def _miss(self, file: Belonging, error: OSError) -> None:
        why = os.strerror(error.errno or 0)
        self.absent.append(f"{file.name} was not copied: {file.path}: {why}")


def flush(folder: Path) -> None:
    """Bring all that was written to the disk of a folder to that disk.

    Once for all files: for each of thousands it takes longer than the copy.

    Raises
    ------
    OSError
        The disk refused some of it.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        os.sync()
        return
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if library.syncfs(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(fd)


class _SourceError(Exception):
    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _read(source: int, size: int) -> bytes:
    try:
        return os.read(source, size)
    except OSError as error:
        raise _SourceError(error) from error


def refused(error: OSError, target: Path) -> ExportError:
    """Return the error that says that a folder could not be made."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    where = f" (at {error.filename!r})" if error.filename else ""
    hint = _HINTS.get(
        error.errno or 0, "; choose a disk that can be written and has space"
    )
    return ExportError(
        f"{str(target)!r} was not made: {reason}{where}{hint}. Nothing is left of it",
        errno=error.errno,
        filename=str(target),
    )
