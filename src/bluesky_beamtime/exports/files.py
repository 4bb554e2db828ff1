"""The files of one export: all of them appear when they are finished, or none."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports.names import safe_name, unique_names
from bluesky_beamtime.exports.own_places import OwnPlaces
from bluesky_beamtime.exports.placing import Placing
from bluesky_beamtime.exports.staging import Staging, clear_dead

Progress = Callable[[str, int, int], None]
_SYNCS = 16


class ExportFiles:
    """Makes the files of one export in a hidden folder beside their places.

    When the ``with`` block ends well all of them get their names; when it does not,
    nothing is left. A process that is killed leaves a hidden folder, which the next
    export to the same place removes; of several files that were getting their names in
    that very moment some may have them, each whole.

    Parameters
    ----------
    path
        Where the file goes if it is a single one.
    overwrite
        Replace a file that is there.
    progress
        Called with what is being written, how much of it is done, and how much it is.
    extension
        What files of the format end with, without a dot.
    own
        Places of the beamtime, which are refused.
    replaces
        Says of a folder that is there whether it may be replaced too; by default none.

    Attributes
    ----------
    left_out : list of str
        What the format has no place for.
    """

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool,
        progress: Progress | None,
        extension: str = "",
        own: OwnPlaces | None = None,
        replaces: Callable[[Path], bool] | None = None,
    ) -> None:
        self._path = path
        self._overwrite = overwrite
        self._progress = progress
        self._extension = f".{extension}"
        self._own = own
        self._replaces = replaces
        self._waiting: list[tuple[Path, Path]] = []
        self._staging: Staging | None = None
        self._checks: list[Callable[[], None]] = []
        self.left_out: list[str] = []

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return self._path.parent

    @property
    def hidden(self) -> Path:
        """Folder for what must be gone in the end; only in the ``with`` block."""
        if self._staging is None:
            raise RuntimeError("ExportFiles makes files in its with block only")
        return self._staging.path

    def single(self) -> Path:
        """Return the temporary path of the only file."""
        return self._add(self._path)

    def several(self, names: Iterable[str]) -> list[Path]:
        """Return temporary paths of files ``<stem>-<name>.<ext>``.

        The extension is the one of the format, else what follows the last dot.

        A single one has no name behind its stem.
        """
        wanted = list(names)
        if len(wanted) == 1:
            return [self.single()]
        # A name may have dots of its own, and an extension too.
        stem = self._path.name.removesuffix(self._extension)
        if stem in ("", self._path.name):
            stem = self._path.stem
        end = self._path.name[len(stem) :]
        return [
            self._add(self._path.with_name(f"{stem}-{safe}{end}"))
            for safe in unique_names(wanted, safe_name).values()
        ]

    def _add(self, final: Path) -> Path:
        self._refuse(final)
        temporary = self.hidden / final.name
        self._waiting.append((temporary, final))
        return temporary

    def _refuse(self, final: Path) -> None:
        if self._own is not None:
            self._own.check(final)
        if not os.path.lexists(final):
            return
        if not self._overwrite:
            raise self._there_already(final)
        folder = final.is_dir() and not final.is_symlink()
        if folder and not (self._replaces and self._replaces(final)):
            raise ExportError(
                f"the folder {str(final)!r} is not what an export of this format has "
                "written, or has something else in it, and is left as it is; choose "
                "another name",
                errno=errno.EEXIST,
                filename=str(final),
            )

    def _there_already(self, final: Path) -> ExportError:
        return ExportError(
            f"{str(final)!r} is there already and is left as it is; choose another "
            "name, or say overwrite",
            errno=errno.EEXIST,
            filename=str(final),
        )

    def tell(self, what: str, done: int, total: int) -> None:
        """Tell how far it has got.

        Raises
        ------
        OSError
            The disk has refused something meanwhile.
        """
        for check in self._checks:
            check()
        if self._progress is not None:
            self._progress(what, done, total)

    def check_with(self, check: Callable[[], None]) -> None:
        """Call something at each :meth:`tell` that raises when going on is no use.

        A library that does not survive a disk that refuses writes to nowhere instead,
        and this is how the export hears of it.
        """
        self._checks.append(check)

    def __enter__(self) -> ExportFiles:
        clear_dead(self.folder)
        self._staging = Staging(self.folder)
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
            if self._staging is not None:
                self._staging.remove()

    def _finish(self) -> None:
        assert self._staging is not None
        staging = self._staging
        for temporary, _ in self._waiting:
            _flush(temporary)
        placing = Placing(lambda: staging.kept)
        try:
            for temporary, final in self._waiting:
                self._place(placing, temporary, final)
        except BaseException:
            placing.undo()
            raise

    def _place(self, placing: Placing, temporary: Path, final: Path) -> None:
        # Again: it may have come while the export was written.
        self._refuse(final)
        if self._overwrite:
            placing.replace(temporary, final)
            return
        try:
            placing.add(temporary, final)
        except FileExistsError as error:
            raise self._there_already(final) from error

    @property
    def written(self) -> list[Path]:
        """The files, under the names that they get."""
        return [final for _, final in self._waiting]


def _flush(path: Path) -> None:
    """Let what was written reach the disk before it gets its name."""
    if path.is_file():
        _sync(path)
        return
    # Together: a disk takes many at a time about as fast as one.
    with ThreadPoolExecutor(_SYNCS) as pool:
        list(pool.map(_sync, (file for file in path.rglob("*") if file.is_file())))


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
