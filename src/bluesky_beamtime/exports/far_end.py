"""The place of an archive in a byte store, and the way there and back.

Hashes are computed here, from the bytes that were read and from those that the store
gives back. What a store says of its own checksums is not relied on: an ETag is no hash
of the content once it was sent in parts.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bluesky_beamtime.errors import (
    ArchiveError,
    BackendError,
    KeyNotFoundError,
    StorageError,
    StoreReadError,
)
from bluesky_beamtime.exports.archive_state import STATE_FILE, ArchiveState
from bluesky_beamtime.exports.manifest import MANIFEST_FILE, decode_manifest
from bluesky_beamtime.storage.backends import StorageBackend, put_pieces
from bluesky_beamtime.storage.remote_array import Remote, Retry

PIECE = 8 << 20
"""Bytes that are held in memory at once, for each thread."""


class Interrupted(StorageError):
    """Somebody asked for an end; what was under way is left where it was."""


@dataclass(frozen=True, slots=True)
class Digest:
    """Hash and size of a value."""

    sha256: str
    size: int


# What a disk or a folder says of one file, when the others may well be read.
_OF_ONE_FILE = frozenset(
    (errno.EACCES, errno.EBADMSG, errno.EIO, errno.EISDIR, errno.ELOOP, errno.EPERM)
)


def is_of_one_file(error: BackendError) -> bool:
    """Say whether a store has refused one value, and may give the others."""
    return error.errno in _OF_ONE_FILE


@contextmanager
def unreachable(url: str) -> Generator[None]:
    """Call what a store cannot do an :class:`ArchiveError`."""
    try:
        yield
    except BackendError as error:
        raise ArchiveError(
            f"cannot look into {url}: {error}", errno=error.errno, filename=url
        ) from error


class Reading:
    """A file on its way: its bytes in pieces, hashed as they go by.

    A file that grows is read as far as it goes once its first piece was read: what that
    piece refers to, the index of a shard, is then part of it.

    Parameters
    ----------
    path
        The file.
    stop
        Ends the reading when it is set.
    tell
        Called with the bytes of each piece.
    """

    def __init__(
        self, path: Path, stop: threading.Event, tell: Callable[[int], None]
    ) -> None:
        self._path = path
        self._stop = stop
        self._tell = tell
        self.digest = Digest("", 0)
        self.changed = False
        self.modified = 0

    def __iter__(self) -> Iterator[bytes]:
        total = hashlib.sha256()
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                before = os.fstat(fd)
                size, end = 0, max(1, min(PIECE, before.st_size))
                while size < end:
                    if self._stop.is_set():
                        raise Interrupted(f"the copy of {self._path} was given up")
                    piece = os.pread(fd, min(PIECE, end - size), size)
                    if not piece:
                        break
                    if size == 0:
                        end = os.fstat(fd).st_size
                    size += len(piece)
                    total.update(piece)
                    yield piece
                    self._tell(len(piece))
                after = os.fstat(fd)
            finally:
                os.close(fd)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StoreReadError(
                f"cannot read {str(self._path)!r}: {os.strerror(error.errno or 0)}",
                errno=error.errno,
                filename=str(self._path),
            ) from error
        self.digest = Digest(total.hexdigest(), size)
        self.modified = before.st_mtime_ns
        self.changed = (before.st_mtime_ns, before.st_size) != (
            after.st_mtime_ns,
            after.st_size,
        ) or size != after.st_size


class FarReading:
    """A value on its way back: its bytes in pieces, hashed as they go by.

    Parameters
    ----------
    far, name
        The value.
    tell
        Called with the bytes of each piece.
    """

    def __init__(self, far: FarEnd, name: str, tell: Callable[[int], None]) -> None:
        self._far = far
        self._name = name
        self._tell = tell
        self.digest = Digest("", 0)

    def __iter__(self) -> Iterator[bytes]:
        total, size = hashlib.sha256(), 0
        for piece in self._far.pieces(self._name):
            total.update(piece)
            size += len(piece)
            yield piece
            self._tell(len(piece))
        self.digest = Digest(total.hexdigest(), size)


class FarEnd:
    """An archive in a backend; its methods may be called from several threads.

    Parameters
    ----------
    backend
        The backend, whose root is the archive.
    retry
        How often a call is tried before its failure counts.
    """

    def __init__(self, backend: StorageBackend, retry: Retry | None = None) -> None:
        self.backend = backend
        self.stop = threading.Event()
        self._remote = Remote(backend, "", retry or Retry(attempts=4), self.stop)

    @property
    def url(self) -> str:
        """URL of the archive."""
        return self.backend.url

    # -------------------------------------------------------------------- what it is

    def read_state(self) -> ArchiveState | None:
        """Return what the archive says of itself, None if there is none."""
        data = self._remote.get(STATE_FILE)
        return None if data is None else ArchiveState.decode(data, self.url)

    def read_manifest(self) -> dict[str, str] | None:
        """Return the hashes of the manifest by name, None if there is none."""
        data = self._remote.get(MANIFEST_FILE)
        return None if data is None else decode_manifest(data)

    def is_finished(self, manifest: dict[str, str] | None) -> bool:
        """Say whether the manifest is that of the archive as it is now."""
        data = self._remote.get(STATE_FILE)
        if manifest is None or data is None:
            return False
        return manifest.get(STATE_FILE) == hashlib.sha256(data).hexdigest()

    # ------------------------------------------------------------------------ values

    def size(self, name: str) -> int | None:
        """Return the size of a value, None if it is not there."""
        return self._remote.get_size(name)

    def names(self, folder: str) -> list[str]:
        """Return the names of all values below a folder, ``""`` for everything."""
        return self._remote.call(
            lambda: list(self.backend.list_prefix(folder, recursive=True))
        )

    def put(self, name: str, data: bytes) -> Digest:
        """Write a value that is in memory, and compare it."""
        sent = Digest(hashlib.sha256(data).hexdigest(), len(data))
        for _ in range(_TRIES):
            self._remote.call(lambda: self.backend.put_bytes(name, data))
            if self.digest(name) == sent:
                return sent
        raise _changed_on_the_way(name, self.url)

    def send(self, name: str, reading: Reading | FarReading, size: int) -> Digest:
        """Write a value in pieces, read it back and compare.

        Raises
        ------
        ArchiveError
            What arrives is not what was sent, several times in a row.
        BackendError
            The store refused, or cannot be reached.
        StoreReadError
            The file cannot be read.
        """
        for _ in range(_TRIES):
            self._remote.call(lambda: put_pieces(self.backend, name, reading, size))
            if self.digest(name) == reading.digest:
                return reading.digest
        raise _changed_on_the_way(name, self.url)

    def digest(self, name: str) -> Digest | None:
        """Return hash and size of a value, read back; None if it is not there."""
        reading = FarReading(self, name, lambda size: None)
        try:
            for _ in reading:
                pass
        except KeyNotFoundError:
            return None
        return reading.digest

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a value piece by piece.

        Raises
        ------
        KeyNotFoundError
            It is not there.
        """
        get = self.backend.get_range
        start = 0
        while True:
            if self.stop.is_set():
                raise Interrupted(f"reading {name!r} was given up")
            at = start
            piece = self._remote.call(lambda: get(name, at, PIECE))  # noqa: B023
            if piece:
                yield piece
            start += len(piece)
            if len(piece) < PIECE:
                return

    def delete(self, name: str) -> None:
        """Remove a value; one that cannot be removed stays."""
        with suppress(BackendError):
            self._remote.call(lambda: self.backend.delete(name))


_TRIES = 3


def _changed_on_the_way(name: str, url: str) -> ArchiveError:
    return ArchiveError(
        f"it does not arrive in {url} as it is sent: the hash of what is read back "
        f"differed {_TRIES} times in a row. Do not trust that store; check its disks "
        "and its network",
        names=(name,),
        filename=name,
    )
