"""What every format has in common: names, refusals, errors, one call."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import (
    BeamtimeError,
    BeamtimeWarning,
    ExportError,
    MissingExtraError,
    StorageError,
)
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.files import ExportFiles, Progress
from bluesky_beamtime.exports.names import safe_name
from bluesky_beamtime.exports.options import check_options, parse_options
from bluesky_beamtime.exports.own_places import OwnPlaces


@dataclass(frozen=True)
class ExportFormat:
    """A way to write a run for another program.

    An object like this behind an entry point of the group ``bluesky_beamtime.exports``
    adds a format; its name there is what users say.
    """

    name: str
    """What users call it."""
    extension: str
    """What its files end with, without a dot."""
    write: Callable[..., None]
    """``write(content, files, *, …)`` writes a :class:`RunContent` into
    :class:`ExportFiles`; its keywords are the options of the format, and a ``Literal``
    says what they can be."""
    extra: str = "export"
    """What to install for it."""
    replaces: Callable[[Path], bool] | None = None
    """Of a format that writes folders: says whether a folder is one that it has written
    and has nothing else in it, as only such a one is replaced."""

    def __call__(
        self,
        run: Run,
        path: str | os.PathLike[str] | None = None,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        **options: Any,
    ) -> list[Path]:
        """Write a run, and return the files.

        Parameters
        ----------
        run
            The run, which may still be going on: it is written as far as it is.
        path
            Where to; a folder that is there, one that ends with a slash, or None for
            the current one, gets a file ``<scan_id>_<plan>.<ext>``.
        overwrite
            Replace what is there. What belongs to the beamtime never is, nor a folder
            with anything in it that an export has not written.
        progress
            Called with what is written, how much is done, and how much it is.
        **options
            What the format understands.

        Raises
        ------
        ExportError
            The file is there already, or is the beamtime's own; the disk refused it;
            the run has nothing that this format could hold; or an option is not
            understood. Nothing is left behind.
        StorageError
            Frames cannot be read; nothing is left behind.
        MissingExtraError
            A package is absent.
        """
        check_options(self.name, self.write, options)
        target = self.path_for(run, path)
        own = OwnPlaces.of(run.database)
        # Before a folder is made there, or anything else.
        own.check(target)
        if _named_folder(path):
            _make_folder(target.parent)
        content = RunContent(run)
        try:
            with ExportFiles(
                target,
                overwrite=overwrite,
                progress=progress,
                extension=self.extension,
                own=own,
                replaces=self.replaces,
            ) as files:
                self.write(content, files, **options)
        except ImportError as error:
            if isinstance(error, MissingExtraError):
                raise
            package = error.name or "a package"
            what = f"the format {self.name!r}"
            raise MissingExtraError(what, package, self.extra) from error
        except (OSError, RuntimeError) as error:
            number = refusal(error)
            if number is None or isinstance(error, BeamtimeError):
                raise
            raise ExportError(
                f"{run.label} could not be written to {str(target)!r}: "
                f"{os.strerror(number)}; nothing is left of it. Choose a folder "
                "that can be written and has space",
                errno=number,
                filename=str(target),
            ) from error
        if files.left_out:
            warnings.warn(
                f"{run.label}: {self.name} has no place for "
                f"{', '.join(files.left_out)}; nexus and hdf5 hold everything",
                BeamtimeWarning,
                stacklevel=3,
            )
        return files.written

    def options(self, texts: Iterable[str]) -> dict[str, Any]:
        """Return options that a user has written as ``key=value``.

        Raises
        ------
        ExportError
            The format does not understand one of them.
        """
        return parse_options(self.name, self.write, texts)

    def path_for(self, run: Run, path: str | os.PathLike[str] | None) -> Path:
        """Return where a run goes."""
        target = Path.cwd() if path is None else Path(path)
        if not _named_folder(path):
            # One of a format that writes folders is no place for files.
            whole = self.replaces is not None and target.name.endswith(
                f".{self.extension}"
            )
            if whole or not target.is_dir():
                return target
        number = run.uid[:8] if run.scan_id is None else str(run.scan_id)
        words = [number, *([run.plan_name] if run.plan_name else [])]
        return target / f"{safe_name('_'.join(words))}.{self.extension}"


def _named_folder(path: str | os.PathLike[str] | None) -> bool:
    """Say whether a path is meant for a folder, there or not."""
    return path is not None and os.fspath(path).endswith((os.sep, "/"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"the folder {str(folder)!r} cannot be made: {error.strerror}; choose "
            "another one",
            errno=error.errno,
            filename=str(folder),
        ) from error


def is_unfit(error: BaseException) -> bool:
    """Say whether a run was not exported because the format cannot hold what it has."""
    return isinstance(error, ExportError) and error.errno is None


def is_of_the_run(error: BaseException) -> bool:
    """Say whether a run was not exported because of what it has, and others may be."""
    return is_unfit(error) or isinstance(error, StorageError)


def refusal(error: BaseException) -> int | None:
    """Return the number of what the operating system said no to, None if it did not.

    Some libraries raise an error of their own kind while they handle it, and some say
    the number in the text only.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        said = re.search(r"\berrno = (\d+)", str(cause))
        if said:
            return int(said[1])
        if re.search(r"requested and \d+ written$", str(cause)):
            # NumPy, which does not say why; a full disk takes a part of a write.
            return errno.ENOSPC
        cause = cause.__cause__ or cause.__context__
    return None
