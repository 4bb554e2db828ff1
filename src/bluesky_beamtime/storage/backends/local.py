"""A folder as a backend: ``file:///data/beamtime``.

Every part of a key is opened below the folder that holds it, links refused, so no key
leads out of the root, whatever is renamed meanwhile.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar

from bluesky_beamtime.errors import (
    BackendError,
    KeyNotFoundError,
    PathError,
    StorageError,
)
from bluesky_beamtime.storage.backends.base import Backend
from bluesky_beamtime.storage.backends.keys import (
    TEMPORARY_PREFIX,
    join_key,
    names_container,
)
from bluesky_beamtime.storage.backends.local_files import (
    CREATE_VALUE,
    OPEN_FOLDER,
    OPEN_VALUE,
    children,
    copy_to,
    empty,
    hold,
    left_as_it_is,
    link_error,
    read_range,
    refuse_link,
    sweep,
    write_all,
)
from bluesky_beamtime.storage.backends.protocol import BytesLike
from bluesky_beamtime.storage.backends.registry import register_backend
from bluesky_beamtime.storage.backends.values import as_buffer, check_range
from bluesky_beamtime.storage.paths import from_uri, to_uri

_T = TypeVar("_T")

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
# A value whose folder is removed while it is written is written again, for so long.
_PATIENCE = 10.0


@register_backend("file")
class LocalBackend(Backend):
    """Values as files below a folder of the local disk.

    A value is written beside its place and renamed, so readers and crashes see the old
    or the new one whole. Links below the root are never followed: a key that meets one
    is refused with ``PathError``, and listings leave them out, as they do files whose
    names cannot be keys. A value put or deleted under the very name of a link takes the
    link away and leaves what it leads to. Only ``ensure_prefix`` and values make
    folders; ``delete`` leaves them, ``delete_prefix`` removes them.

    A key cannot be a value and a container here at once, as it can in object stores:
    writing ``"a/b"`` when ``"a"`` is a value raises ``BackendError``.

    Parameters
    ----------
    root
        The folder, as a path or ``file:`` URI; made when something is first written.
    durability
        ``"kill"``: a value survives the death of the process. ``"power"``: it is also
        brought to the disk before ``put_bytes`` returns.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        durability: Literal["kill", "power"] = "kill",
    ) -> None:
        path = from_uri(os.fspath(root))
        if "\0" in path or not path:
            raise PathError(f"{root!r} is no folder; give a path or a file: URI")
        if durability not in ("kill", "power"):
            raise ValueError(f"durability is 'kill' or 'power', not {durability!r}")
        # The root itself may be reached through links; what lies below may not.
        self.root = os.path.realpath(os.path.expanduser(path))
        self.durability: Literal["kill", "power"] = durability
        self._power = durability == "power"

    @property
    def url(self) -> str:
        """URL of the folder, ``file:///…``, links resolved."""
        return to_uri(self.root, host="").rstrip("/") or "file://"

    # -------------------------------------------------------------------- values

    def put_bytes(self, key: str, data: BytesLike) -> None:
        """Write a value or replace it, atomically."""
        self._key(key)
        view = as_buffer(data)
        self._put(key, lambda fd: write_all(fd, view))

    def put_file(self, key: str, path: str | os.PathLike[str], size: int) -> None:
        """Write the first ``size`` bytes of a file as a value, atomically."""
        self._key(key)
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._put(key, lambda fd: copy_to(source, fd, size))
        finally:
            os.close(source)

    def put_pieces(self, key: str, pieces: Iterable[bytes], size: int) -> None:
        """Write pieces as a value, atomically."""
        self._key(key)

        def fill(fd: int) -> None:
            for piece in pieces:
                write_all(fd, memoryview(piece))

        self._put(key, fill)

    def _put(self, key: str, fill: Callable[[int], None]) -> None:
        parts = key.split("/")
        deadline = time.monotonic() + _PATIENCE
        with self._errors("write", key):
            while True:
                try:
                    self._put_once(parts, fill)
                    return
                except FileNotFoundError:
                    # Another thread removed the folder between two calls.
                    if time.monotonic() > deadline:
                        raise

    def _put_once(self, parts: list[str], fill: Callable[[int], None]) -> None:
        with self._folder(parts[:-1], make=True) as folder:
            partial = f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
            fd = os.open(partial, CREATE_VALUE, 0o666, dir_fd=folder)
            try:
                hold(fd)
                fill(fd)
                if self._power:
                    os.fsync(fd)
                os.replace(partial, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(partial, dir_fd=folder)
                raise
            finally:
                os.close(fd)
            if self._power:
                os.fsync(folder)
        if self._power:
            self._sync_above(parts[:-1])

    def get_bytes(self, key: str) -> bytes:
        """Return a value."""
        return self._read(key, lambda fd: read_range(fd, 0, os.fstat(fd).st_size))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start`` on, fewer at the end."""
        check_range(start, length)

        def read(fd: int) -> bytes:
            size = os.fstat(fd).st_size
            return read_range(fd, start, max(0, min(length, size - start)))

        return self._read(key, read)

    def get_size(self, key: str) -> int:
        """Return the size of a value in bytes."""
        return self._read(key, lambda fd: os.fstat(fd).st_size)

    def _read(self, key: str, use: Callable[[int], _T]) -> _T:
        parts = self._key(key).split("/")
        with self._errors("read", key), self._folder(parts[:-1]) as folder:
            fd = os.open(parts[-1], OPEN_VALUE, dir_fd=folder)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise KeyNotFoundError(key, self.url)
                return use(fd)
            finally:
                os.close(fd)

    def exists(self, key: str) -> bool:
        """Say whether there is a value; False for folders and for ``""``."""
        self._check_open()
        if names_container(key):
            return False
        try:
            self.get_size(key)
        except KeyNotFoundError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove one file; nothing happens to a folder, or if there is none."""
        parts = self._key(key).split("/")
        with (
            suppress(KeyNotFoundError),
            self._errors("delete", key),
            self._folder(parts[:-1]) as folder,
        ):
            found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(parts[-1], dir_fd=folder)

    # ---------------------------------------------------------------- containers

    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        """Yield full keys below a prefix in sorted order, a folder at a time."""
        return self._list(self._prefix(prefix), recursive)

    def _list(self, prefix: str, recursive: bool) -> Iterator[str]:
        self._check_open()
        try:
            with self._errors("list", prefix), self._folder(_parts(prefix)) as folder:
                names = children(folder)
        except KeyNotFoundError:
            return
        for name in names:
            if recursive and name.endswith("/"):
                yield from self._list(join_key(prefix, name[:-1]), recursive)
            else:
                yield join_key(prefix, name)

    def delete_prefix(self, prefix: str, *, everything: bool = False) -> None:
        """Remove what lies below a prefix, and its folder; links are not followed."""
        prefix = self._prefix_to_delete(prefix, everything)
        parts = _parts(prefix)
        with suppress(KeyNotFoundError), self._errors("delete", prefix):
            with self._folder(parts) as folder:
                empty(folder)
            if parts:
                with self._folder(parts[:-1]) as parent, left_as_it_is():
                    os.rmdir(parts[-1], dir_fd=parent)

    def ensure_prefix(self, prefix: str) -> None:
        """Make a folder and those above it."""
        prefix = self._prefix(prefix)
        with self._errors("make", prefix), self._folder(_parts(prefix), make=True):
            pass

    def sweep(self) -> None:
        """Remove what processes left that were killed while they wrote a value.

        It is hidden from listings, and takes space. What live ones are writing stays.
        """
        self._check_open()
        with (
            suppress(KeyNotFoundError),
            self._errors("read", ""),
            self._folder([]) as root,
        ):
            sweep(root)

    # ------------------------------------------------------------------- helpers

    @contextmanager
    def _folder(self, parts: list[str], make: bool = False) -> Generator[int]:
        """Open a folder below the root, one part at a time."""
        fd = self._open_root(make)
        try:
            for part in parts:
                try:
                    below = os.open(part, OPEN_FOLDER, dir_fd=fd)
                except FileNotFoundError:
                    if not make:
                        raise
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=fd)
                    below = os.open(part, OPEN_FOLDER, dir_fd=fd)
                except NotADirectoryError as error:
                    refuse_link(part, fd)
                    if make:
                        raise FileExistsError(
                            errno.EEXIST, f"{part!r} is a value, not a container"
                        ) from error
                    raise
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _sync_above(self, parts: list[str]) -> None:
        """Make the names of folders survive a power cut, which may be new."""
        for count in range(len(parts)):
            # Removed by now, they need not survive.
            with suppress(FileNotFoundError), self._folder(parts[:count]) as folder:
                os.fsync(folder)

    def _open_root(self, make: bool) -> int:
        try:
            return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not make:
                raise
            os.makedirs(self.root, exist_ok=True)
            return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @contextmanager
    def _errors(self, verb: str, key: str) -> Generator[None]:
        """Translate what the operating system says."""
        try:
            yield
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            if error.errno == errno.ELOOP:
                raise link_error(key) from error
            if error.errno in _NOT_THERE and verb in ("read", "delete", "list"):
                raise KeyNotFoundError(key, self.url) from error
            reason = os.strerror(error.errno) if error.errno else str(error)
            if error.errno in (errno.EISDIR, errno.EEXIST):
                reason = "one key cannot be a value and a container on a disk"
            raise BackendError(
                f"cannot {verb} {key!r} in {self.url}: {reason}",
                errno=error.errno,
                filename=key,
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.root, self.durability)


def _reopen(root: str, durability: Literal["kill", "power"]) -> LocalBackend:
    return LocalBackend(root, durability=durability)


def _parts(prefix: str) -> list[str]:
    return prefix.split("/") if prefix else []
