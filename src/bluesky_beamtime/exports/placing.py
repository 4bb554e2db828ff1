"""Finished files get their names: all of them, or none."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
_TRIES = 100


class Placing:
    """Gives files their names, and takes the names back if one of them is refused.

    Nobody sees a file that is not whole. Where several files are placed and the process
    is killed in that moment, some have their names and others not. A file that is
    replaced is there at every moment, a folder is away for the moment between two
    renames.

    Parameters
    ----------
    kept
        Returns a folder of the same file system for what is replaced.
    """

    def __init__(self, kept: Callable[[], Path]) -> None:
        self._kept = kept
        self._undo: list[Callable[[], object]] = []

    def add(self, temporary: Path, final: Path) -> None:
        """Give a file or a folder a name that is free.

        Raises
        ------
        FileExistsError
            It is not free, perhaps since a moment ago.
        """
        if temporary.is_dir():
            _rename_folder(temporary, final)
        else:
            _link(temporary, final)
        self._undo.append(partial(remove, final))

    def replace(self, temporary: Path, final: Path) -> None:
        """Give a file or a folder its name, which another one may have now.

        A folder takes the name of anything, a file that of a file only.
        """
        for _ in range(_TRIES):
            before = self._keep(temporary, final)
            try:
                os.replace(temporary, final)
            except OSError as error:
                # Somebody else has placed theirs in between.
                if error.errno not in _IN_THE_WAY:
                    if before is not None and not os.path.lexists(final):
                        os.rename(before, final)
                    raise
            else:
                self._undo.append(partial(_bring_back, before, final))
                return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))

    def _keep(self, temporary: Path, final: Path) -> Path | None:
        if not os.path.lexists(final):
            return None
        before = self._kept() / final.name
        remove(before)
        try:
            if temporary.is_dir():
                os.rename(final, before)
            else:
                os.link(final, before, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return None
        return before

    def undo(self) -> None:
        """Take all names back."""
        while self._undo:
            self._undo.pop()()


def _rename_folder(temporary: Path, final: Path) -> None:
    try:
        os.rename(temporary, final)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        there = os.strerror(errno.EEXIST)
        raise FileExistsError(errno.EEXIST, there, str(final)) from error


def _link(temporary: Path, final: Path) -> None:
    try:
        # Other than a rename it refuses a name that somebody took a moment ago.
        os.link(temporary, final)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(final):
            there = os.strerror(errno.EEXIST)
            raise FileExistsError(errno.EEXIST, there, str(final)) from error
        os.rename(temporary, final)


def _bring_back(before: Path | None, final: Path) -> None:
    remove(final)
    if before is not None:
        os.rename(before, final)


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
