"""Is an archive what it says? Every file read back and hashed; nothing is changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from bluesky_beamtime.errors import ArchiveError, BackendError, KeyNotFoundError
from bluesky_beamtime.exports.archive_listing import list_archive
from bluesky_beamtime.exports.archive_place import open_place
from bluesky_beamtime.exports.far_end import FarEnd, FarReading, is_of_one_file
from bluesky_beamtime.exports.turns import Turns
from bluesky_beamtime.storage.backends import StorageBackend
from bluesky_beamtime.storage.remote_array import Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What :func:`prove` found."""

    url: str
    """The archive."""
    beamtime: str
    """Name of the beamtime's file."""
    runs: int
    """How many runs it had when it was archived."""
    time: float
    """When that was, in seconds since 1970."""
    finished: bool
    """False if the last archive was interrupted: archive again."""
    files: int
    """Files that were read back and have the right hash."""
    size: int
    """Their bytes."""
    differs: tuple[str, ...]
    """Names of files whose content is not what the archive says."""
    missing: tuple[str, ...]
    """Names of files that are not there."""
    unreadable: tuple[str, ...]
    """Names of files that are there and cannot be read, as from a damaged disk."""
    absent: tuple[str, ...]
    """What documents refer to and was never part of the archive."""

    @property
    def ok(self) -> bool:
        """Whether everything is there and right."""
        wrong = (*self.differs, *self.missing, *self.unreadable)
        return self.finished and not wrong

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"ok": self.ok, **asdict(self)}


def prove(
    url: str | os.PathLike[str] | StorageBackend,
    *,
    threads: int = 4,
    retry: Retry | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Proof:
    """Read every file of an archive back, and compare its hash with the manifest.

    The beamtime itself is not needed, nothing is changed.

    Parameters
    ----------
    url
        The archive.
    threads, retry, progress, **options
        As for :func:`~bluesky_beamtime.exports.archive`.

    Returns
    -------
    Proof
        ``proof.ok``, and the names of what differs or is missing.

    Raises
    ------
    ArchiveError
        There is no archive, or it cannot be read to the end.
    """
    with open_place(url, options) as backend:
        far = FarEnd(backend, retry)
        listing = list_archive(far)
        counter = Counter()
        good: list[int] = []
        differs: list[str] = []
        missing: list[str] = []
        unreadable: list[str] = []

        def look_at(name: str) -> tuple[str, int, list[str] | None]:
            """Return a name, its size, and the list of what is wrong it belongs to."""
            reading = FarReading(far, name, counter.add)
            try:
                for _ in reading:
                    pass
            except KeyNotFoundError:
                return name, 0, missing
            except BackendError as error:
                if not is_of_one_file(error):
                    raise
                return name, 0, unreadable
            digest = reading.digest
            equal = digest.sha256 == listing.hashes[name]
            return name, digest.size, None if equal else differs

        def take(found: tuple[str, int, list[str] | None]) -> None:
            name, size, wrong = found
            if wrong is None:
                good.append(size)
            else:
                wrong.append(name)

        def look() -> None:
            if progress is not None:
                progress("prove", min(counter.done, listing.size), listing.size)

        try:
            with Turns(threads, take, look, far.stop.set) as turns:
                for name in sorted(listing.hashes):
                    turns.do(partial(look_at, name))
                turns.finish()
        except BackendError as error:
            raise ArchiveError(
                f"{far.url} cannot be read to the end: {error}",
                errno=error.errno,
                filename=far.url,
            ) from error
    state = listing.state
    return Proof(
        url=far.url,
        beamtime=state.identity.beamtime,
        runs=state.identity.runs,
        time=state.time,
        finished=listing.finished,
        files=len(good),
        size=sum(good),
        differs=tuple(sorted(differs)),
        missing=tuple(sorted(missing)),
        unreadable=tuple(sorted(unreadable)),
        absent=state.absent,
    )


class Counter:
    """Bytes that went by, counted by several threads."""

    def __init__(self) -> None:
        self.done = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count some more."""
        with self._lock:
            self.done += size
