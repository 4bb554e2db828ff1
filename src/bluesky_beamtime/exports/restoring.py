"""A beamtime brought back from an archive, every byte of it compared."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bluesky_beamtime.database import Database
from bluesky_beamtime.errors import (
    ArchiveError,
    BackendError,
    KeyNotFoundError,
    StoreStateError,
)
from bluesky_beamtime.exports.archive_listing import ArchiveListing, list_archive
from bluesky_beamtime.exports.archive_place import open_place
from bluesky_beamtime.exports.archive_report import list_reasons
from bluesky_beamtime.exports.far_end import FarEnd, FarReading, is_of_one_file
from bluesky_beamtime.exports.proving import Counter
from bluesky_beamtime.exports.turns import Turns
from bluesky_beamtime.storage import FolderLock
from bluesky_beamtime.storage.backends import LocalBackend, StorageBackend
from bluesky_beamtime.storage.remote_array import Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What :func:`restore` did."""

    path: Path
    """The database file, ready to be opened."""
    files: int
    """Files that are there now, each with the hash that the archive says."""
    size: int
    """Their bytes."""
    resumed: int
    """Files among them that an interrupted restore had brought already."""
    absent: tuple[str, ...]
    """What documents refer to and the archive does not have."""


def restore(
    url: str | os.PathLike[str] | StorageBackend,
    folder: str | os.PathLike[str],
    *,
    unfinished: bool = False,
    threads: int = 4,
    retry: Retry | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> RestoreReport:
    """Bring a beamtime back from an archive into a folder of its own.

    Files are gathered in a hidden folder beside it, compared with the hashes of the
    manifest, and get their place all at once: the folder is there with everything, or
    not at all. Done again after an interruption, it goes on where it stopped. Nothing
    is ever written outside of that folder, whatever the archive says.

    Parameters
    ----------
    url
        The archive.
    folder
        Where to; it must not exist, or be empty.
    unfinished
        Also from an archive that was interrupted: what had been compared by then.
    threads, retry, progress, **options
        As for :func:`~bluesky_beamtime.exports.archive`.

    Returns
    -------
    RestoreReport
        Where the database is, and what came with it.

    Raises
    ------
    ArchiveError
        There is no archive, it is not finished, a file differs or is missing
        (``error.names``), the folder is in use, or the disk refused. The folder was not
        made.
    """
    place = Path(folder).expanduser().absolute()
    with open_place(url, options) as backend:
        far = FarEnd(backend, retry)
        listing = list_archive(far)
        if not listing.finished and not unfinished:
            raise ArchiveError(
                f"the archive in {far.url} is not finished: archive the beamtime "
                "again, or, if it is lost, restore what had arrived with --unfinished",
                filename=far.url,
            )
        _check_free(place)
        return _Restore(far, listing, place, progress).run(threads)


def _check_free(place: Path) -> None:
    try:
        taken = bool(os.listdir(place))
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(place, error) from error
    if taken:
        raise ArchiveError(
            f"{str(place)!r} is not empty; nothing was changed. Choose a new folder",
            errno=errno.EEXIST,
            filename=str(place),
        )


def _refused(place: Path, error: OSError) -> ArchiveError:
    return ArchiveError(
        f"cannot restore to {str(place)!r}: {os.strerror(error.errno or 0)}; choose "
        "another folder, or check its permissions and space",
        errno=error.errno,
        filename=str(place),
    )


class _Restore:
    """One call of :func:`restore`."""

    def __init__(
        self,
        far: FarEnd,
        listing: ArchiveListing,
        place: Path,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._far = far
        self._listing = listing
        self._place = place
        self._progress = progress
        self._partial = place.with_name(f".{place.name}.restoring")
        self._folder = LocalBackend(self._partial)
        self._near = FarEnd(self._folder, Retry(attempts=1))
        self._counter = Counter()
        self._wrong: dict[str, str] = {}
        self._size = self._resumed = 0

    def run(self, threads: int) -> RestoreReport:
        """Bring everything, then give it its place."""
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(self._partial)
        except StoreStateError as error:
            raise ArchiveError(
                f"another process is restoring to {str(self._place)!r}; wait for it",
                filename=str(self._place),
            ) from error
        except OSError as error:
            raise _refused(self._place, error) from error
        try:
            self._remove_others()
            self._bring_all(threads)
            path = self._check_database()
            self._sync()
        finally:
            lock.release()
        try:
            os.rename(self._partial, self._place)
        except OSError as error:
            raise _refused(self._place, error) from error
        return RestoreReport(
            path=self._place / path.name,
            files=len(self._listing.hashes),
            size=self._size,
            resumed=self._resumed,
            absent=self._listing.state.absent,
        )

    def _remove_others(self) -> None:
        """Remove what an earlier restore has left that is no part of this one."""
        self._folder.sweep()
        for name in self._near.names(""):
            if name not in self._listing.hashes and name != FolderLock.NAME:
                self._near.delete(name)

    def _bring_all(self, threads: int) -> None:
        try:
            with Turns(threads, self._take, self._look, self._stop) as turns:
                for name in sorted(self._listing.hashes):
                    turns.do(partial(self._bring, name))
                turns.finish()
        except BackendError as error:
            raise ArchiveError(
                f"the restore to {str(self._place)!r} is not finished: {error}. What "
                f"has come is kept in {self._partial.name!r}; restore again to go on "
                "from there",
                errno=error.errno,
                filename=str(self._place),
            ) from error
        if self._wrong:
            count = len(self._wrong)
            what = "one file" if count == 1 else f"{count} files"
            raise ArchiveError(
                f"{what} of the archive in {self._far.url} cannot be restored: "
                f"{list_reasons(self._wrong)}. {str(self._place)!r} was not made; what "
                f"is good is in {self._partial.name!r} beside it",
                names=sorted(self._wrong),
                filename=self._far.url,
            )

    def _stop(self) -> None:
        self._far.stop.set()
        self._near.stop.set()

    def _bring(self, name: str) -> tuple[str, int, str]:
        """Bring one file; return its name, size, and what is wrong with it.

        The size is negative if it was there already.
        """
        wanted = self._listing.hashes[name]
        there = self._near.digest(name)
        if there is not None and there.sha256 == wanted:
            self._counter.add(there.size)
            return name, -1 - there.size, ""
        reading = FarReading(self._far, name, self._counter.add)
        entry = self._listing.state.entries.get(name)
        try:
            digest = self._near.send(name, reading, entry.size if entry else 0)
        except KeyNotFoundError:
            return name, 0, "it is not there"
        except ArchiveError as error:
            return name, 0, str(error)
        except BackendError as error:
            if not is_of_one_file(error):
                raise
            return name, 0, str(error)
        if digest.sha256 != wanted:
            self._near.delete(name)
            return name, 0, "its content is not what the manifest says"
        if entry is not None and entry.modified:
            times = (entry.modified, entry.modified)
            with suppress(OSError):
                os.utime(self._partial / name, ns=times, follow_symlinks=False)
        return name, digest.size, ""

    def _take(self, found: tuple[str, int, str]) -> None:
        name, size, wrong = found
        if wrong:
            self._wrong[name] = wrong
        elif size < 0:
            self._resumed += 1
            self._size += -1 - size
        else:
            self._size += size

    def _look(self) -> None:
        if self._progress is not None:
            total = self._listing.size
            self._progress("restore", min(self._counter.done, total), total)

    def _check_database(self) -> Path:
        """Open the database as it will be opened."""
        name = self._listing.state.identity.beamtime
        if name not in self._listing.hashes or "/" in name:
            raise ArchiveError(
                f"the archive in {self._far.url} has no database {name!r}; nothing "
                "was restored",
                names=(name,),
                filename=self._far.url,
            )
        path = self._partial / name
        with closing(Database(path, mode="r")):
            return path

    def _sync(self) -> None:
        """Bring everything to the disk before it gets its name."""
        for folder, _, names in os.walk(self._partial):
            for path in (*(Path(folder, name) for name in names), Path(folder)):
                with suppress(OSError):
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                    try:
                        os.fsync(fd)
                    finally:
                        os.close(fd)
