"""A base class that spares those who write a backend some repetition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

from bluesky_beamtime.errors import BackendClosedError, PathError
from bluesky_beamtime.storage.backends.asynchronous import AsyncBackend
from bluesky_beamtime.storage.backends.keys import check_key, check_prefix
from bluesky_beamtime.storage.backends.protocol import BytesLike
from bluesky_beamtime.storage.backends.values import check_range


class Backend(ABC):
    """What most backends have in common; to inherit from or to leave.

    A subclass gives ``url``, ``put_bytes``, ``get_bytes``, ``exists``, ``delete`` and
    ``list_prefix``, each beginning with :meth:`_key` or :meth:`_prefix`, and may
    replace the rest where it can do better.
    """

    _closed = False

    @property
    @abstractmethod
    def url(self) -> str:
        """Canonical URL of the root; also after ``close``."""

    @abstractmethod
    def put_bytes(self, key: str, data: BytesLike) -> None:
        """Write a value or replace it; readers see the old or the new, never a part."""

    @abstractmethod
    def get_bytes(self, key: str) -> bytes:
        """Return a value."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Say whether there is a value; False for containers and for ``""``."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove one value; nothing happens if there is none."""

    @abstractmethod
    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        """Yield full keys below a prefix in sorted order, lazily."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start`` on, fewer at the end."""
        check_range(start, length)
        return self.get_bytes(key)[start : start + length]

    def delete_prefix(self, prefix: str, *, everything: bool = False) -> None:
        """Remove what ``list_prefix(prefix, recursive=True)`` yields."""
        prefix = self._prefix_to_delete(prefix, everything)
        for key in self.list_prefix(prefix, recursive=True):
            self.delete(key)

    def ensure_prefix(self, prefix: str) -> None:
        """Do nothing but check: here containers are only what lies in them."""
        self._prefix(prefix)

    def close(self) -> None:
        """Let go of what is held; may be called again."""
        self._closed = True

    def as_async(self) -> AsyncBackend:
        """Return the asynchronous twin, which shares everything with this one."""
        self._check_open()
        return AsyncBackend(self)

    # ------------------------------------------------------------- for subclasses

    def _check_open(self) -> None:
        if self._closed:
            raise BackendClosedError(f"{self.url} is closed; open_backend() it again")

    def _key(self, key: str) -> str:
        """Check that the backend is open and that the key is one; return it."""
        self._check_open()
        return check_key(key)

    def _prefix(self, prefix: str) -> str:
        """Check that the backend is open; return the prefix without its last slash."""
        self._check_open()
        return check_prefix(prefix)

    def _prefix_to_delete(self, prefix: str, everything: bool) -> str:
        prefix = self._prefix(prefix)
        if not prefix and not everything:
            raise PathError(
                f"delete_prefix('') would remove everything in {self.url}; "
                "say everything=True if that is meant"
            )
        return prefix

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<{type(self).__name__} {self.url}{state}>"
