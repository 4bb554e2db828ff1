"""A beamtime copied to a byte store, with proof that it has arrived."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from bluesky_beamtime.database.snapshot import blaming
from bluesky_beamtime.exports.archive_copy import ArchiveCopy, Progress
from bluesky_beamtime.exports.archive_files import Bringer
from bluesky_beamtime.exports.archive_place import check_place, open_place
from bluesky_beamtime.exports.archive_report import ArchiveReport
from bluesky_beamtime.exports.archive_session import ArchiveSession
from bluesky_beamtime.exports.archive_state import ArchiveState, Entry, Identity
from bluesky_beamtime.exports.belongings import Belongings, gather
from bluesky_beamtime.exports.far_end import FarEnd, unreachable
from bluesky_beamtime.storage.backends import LocalBackend, StorageBackend
from bluesky_beamtime.storage.remote_array import Retry


def archive(
    path: str | os.PathLike[str],
    url: str | os.PathLike[str] | StorageBackend,
    *,
    dry_run: bool = False,
    thorough: bool = False,
    assets: bool = True,
    leave_unreadable: bool = False,
    threads: int = 4,
    retry: Retry | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ArchiveReport:
    """Copy a beamtime to a byte store and compare what has arrived.

    Each file is hashed (SHA-256) while it is read and sent, then read back from the
    store and hashed again. What differs is sent again, and is an error if it still
    does. ``MANIFEST.sha256``, which ``sha256sum -c`` accepts, is written last: a place
    without it, or whose ``ARCHIVE.json`` it does not fit, is not finished.

    May be interrupted at any moment and done again: what is there and equal is not sent
    again. Known to be there is what ``ARCHIVE.json`` lists, which is written every half
    a minute; what it does not list yet, but has the right size, is read back and
    compared. The beamtime may be recorded into meanwhile: the archive has all that was
    committed when this began, with its frames, and the next one completes it. At every
    moment the database at the far end is one whose frames are there: it is sent last.

    Nothing is ever removed from an archive but a journal that was recovered. Frames
    that are no longer here stay there.

    Parameters
    ----------
    path
        The database file; not changed.
    url
        The place of the archive, for this beamtime alone: a folder, ``s3://…`` or
        whatever :func:`~bluesky_beamtime.storage.backends.open_backend` opens; or an
        open backend, which stays open.
    dry_run
        Write nothing; say what would be sent.
    thorough
        Read also what has not changed, here and there, and compare the hashes.
    assets
        Take files outside of the beamtime's folder along that documents refer to.
    leave_unreadable
        Go on without files that cannot be read, as on a disk with damage. They are
        named in the report and in the archive; without this they are an error, and the
        database is not sent.
    threads
        How many files travel at once. Each holds some 25 MB of memory, with object
        stores some 50 MB.
    retry
        How often a call to the store is tried, with growing pauses.
    progress
        Told how it gets on, from this thread.
    **options
        For the backend, when its URL is given.

    Returns
    -------
    ArchiveReport
        What was sent, what was there, and what could not be had.

    Raises
    ------
    ArchiveError
        ``error.names`` lists what differs or could not be copied; or the place belongs
        to another beamtime, or is not empty; or the store failed, which ``__cause__``
        tells. What has arrived stays, and the next call goes on from there.
    BeamtimeFileError, NewerVersionError
        It is not a beamtime that can be read.
    UnsupportedFormatError, PathError, MissingExtraError
        That is no place that can be written to.
    """
    began = time.monotonic()
    with open_place(url, options) as backend:
        far = FarEnd(backend, retry)
        with unreachable(far.url):
            state = far.read_state()
        entries = dict(state.entries) if state else {}
        held = _with_folders(entries)
        with gather(path, held=held, assets=assets) as belongings:
            check_place(backend, belongings)
            identity = _identify(belongings, state, far.url)
            absent = tuple(str(absent) for absent in belongings.absent)
            session = ArchiveSession(far, identity, entries, absent)
            copy = ArchiveCopy(
                far,
                belongings,
                session,
                progress,
                leave_unreadable=leave_unreadable,
            )
            with unreachable(far.url):
                if isinstance(backend, LocalBackend) and state and not dry_run:
                    backend.sweep()
                there = copy.list_there() if state else copy.refuse_others()
            bringer = Bringer(far, session, there, dry_run=dry_run, thorough=thorough)
            report = copy.run(bringer, threads, dry_run=dry_run)
        report.seconds = time.monotonic() - began
        return report


def _with_folders(names: Mapping[str, Entry]) -> set[str]:
    """Return names and the folders that they are in."""
    found: set[str] = set()
    for name in names:
        while name and name not in found:
            found.add(name)
            name = os.path.dirname(name)
    return found


def _identify(belongings: Belongings, state: ArchiveState | None, url: str) -> Identity:
    """Return whose archive it is going to be, if it may be."""
    database, snapshot = belongings.database, belongings.snapshot
    with blaming(database, snapshot), closing(sqlite3.connect(snapshot)) as connection:
        identity = Identity.of(database.name, connection)
        if state is not None:
            identity.check_continues(state.identity, connection, url)
    return identity
