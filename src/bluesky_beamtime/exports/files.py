"""The files of one export: all of them appear when they are finished, or none."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from bluesky_beamtime.errors import ExportError

Progress = Callable[[str, int, int], None]


def safe_name(name: str) -> str:
    """Return a name that every file system takes."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".") or "_"


class ExportFiles:
    """Makes the files of one export under temporary names beside their places.

    When the ``with`` block ends well all of them get their names; when it does not,
    nothing is left. A process that is killed leaves a hidden ``.….part`` file.

    Parameters
    ----------
    path
        Where the file goes if it is a single one.
    overwrite
        Replace what is there.
    progress
        Called with what is being written, how much of it is done, and how much it is.

    Attributes
    ----------
    left_out : list of str
        What the format has no place for.
    """

    def __init__(
        self, path: Path, *, overwrite: bool, progress: Progress | None
    ) -> None:
        self._path = path
        self._overwrite = overwrite
        self._progress = progress
        self._waiting: list[tuple[Path, Path]] = []
        self.left_out: list[str] = []

    def single(self) -> Path:
        """Return the temporary path of the only file."""
        return self._add(self._path)

    def several(self, names: Iterable[str]) -> list[Path]:
        """Return temporary paths of files ``<stem>-<name>.<ext>``.

        A single one has no name behind its stem.
        """
        wanted = list(names)
        if len(wanted) == 1:
            return [self.single()]
        taken: set[str] = set()
        paths: list[Path] = []
        for name in wanted:
            safe, number = safe_name(name), 2
            while safe.casefold() in taken:
                safe, number = f"{safe_name(name)}_{number}", number + 1
            taken.add(safe.casefold())
            stem, dot, end = self._path.name.partition(".")
            paths.append(self._add(self._path.with_name(f"{stem}-{safe}{dot}{end}")))
        return paths

    def _add(self, final: Path) -> Path:
        self._refuse(final)
        hidden = final.with_name(f".{final.stem}.{secrets.token_hex(4)}.part")
        temporary = hidden.with_name(hidden.name + final.suffix)
        self._waiting.append((temporary, final))
        return temporary

    def _refuse(self, final: Path) -> None:
        if self._overwrite or not os.path.lexists(final):
            return
        raise ExportError(
            f"{str(final)!r} is there already and is left as it is; choose another "
            "name, or say overwrite",
            errno=errno.EEXIST,
            filename=str(final),
        )

    def tell(self, what: str, done: int, total: int) -> None:
        """Tell how far it has got."""
        if self._progress is not None:
            self._progress(what, done, total)

    def __enter__(self) -> ExportFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            for temporary, _ in self._waiting:
                _remove(temporary)

    def _finish(self) -> None:
        for temporary, _ in self._waiting:
            _flush(temporary)
        for _, final in self._waiting:
            self._refuse(final)
        for temporary, final in self._waiting:
            if self._overwrite and (final.is_dir() or temporary.is_dir()):
                _remove(final)
            os.replace(temporary, final)

    @property
    def written(self) -> list[Path]:
        """The files, under the names that they get."""
        return [final for _, final in self._waiting]


def _flush(path: Path) -> None:
    """Let what was written reach the disk before it gets its name."""
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
