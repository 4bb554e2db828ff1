"""What a byte store is, and what it promises.

A backend keeps values, which are bytes, under keys (:mod:`.keys`) below one root URL.
It knows nothing of Zarr, frames or runs. Anything with the members of
:class:`StorageBackend` is one; :class:`.Backend` may be inherited from and need not be.

=========================  =====================================================
situation                  what happens, in every backend
=========================  =====================================================
a key that breaks a rule   ``PathError``, which says the rule
no value under the key     ``KeyNotFoundError``, a ``KeyError``
the backend refuses, is    ``BackendError``, an ``OSError``; never a ``KeyError``
unreachable or misses
its bucket
use after ``close``        ``BackendClosedError``, a ``RuntimeError``
=========================  =====================================================
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, runtime_checkable

from numpy.typing import NDArray

if TYPE_CHECKING:
    from bluesky_beamtime.storage.backends.asynchronous import AsyncBackend

BytesLike: TypeAlias = bytes | bytearray | memoryview | NDArray[Any]
"""What can be stored; an array is stored as its bytes in C order."""


@runtime_checkable
class StorageBackend(Protocol):
    """Values under keys below one URL; safe to use from several threads.

    Every method blocks; :meth:`as_async` gives a twin that does not. ``with`` closes.
    """

    @property
    def url(self) -> str:
        """Canonical URL of the root: percent-encoded, no last slash, no credentials."""
        ...

    def put_bytes(self, key: str, data: BytesLike) -> None:
        """Write a value or replace it; readers see the old or the new, never a part."""
        ...

    def get_bytes(self, key: str) -> bytes:
        """Return a value; a container is none: ``KeyNotFoundError``."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start`` on, fewer at the end."""
        ...

    def exists(self, key: str) -> bool:
        """Say whether there is a value; False for containers and for ``""``."""
        ...

    def delete(self, key: str) -> None:
        """Remove one value; nothing happens if there is none, or to a container."""
        ...

    def delete_prefix(self, prefix: str, *, everything: bool = False) -> None:
        """Remove what ``list_prefix(prefix, recursive=True)`` yields.

        ``""`` is refused with ``PathError`` unless ``everything`` is true.
        """
        ...

    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        """Yield full keys below a prefix in sorted order, lazily.

        Without ``recursive`` the immediate children, of which containers end in ``/``;
        with it all values. Nothing for a prefix that is not there or that is itself a
        value. Values may be deleted and written meanwhile: those that were there all
        the time are yielded once.
        """
        ...

    def ensure_prefix(self, prefix: str) -> None:
        """Make a container where containers exist by themselves; else do nothing."""
        ...

    def close(self) -> None:
        """Let go of what is held; may be called again, nothing else may follow."""
        ...

    def as_async(self) -> AsyncBackend:
        """Return the asynchronous twin, which shares everything with this one."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


@runtime_checkable
class SizedBackend(Protocol):
    """A backend that can tell the size of a value without reading it."""

    def get_size(self, key: str) -> int:
        """Return the size of a value in bytes."""
        ...


@runtime_checkable
class FileBackend(Protocol):
    """A backend that can take a file without holding all of it in memory."""

    def put_file(self, key: str, path: str | os.PathLike[str], size: int) -> None:
        """Write the first ``size`` bytes of a file as a value."""
        ...


@runtime_checkable
class PieceBackend(Protocol):
    """A backend that can take a value piece by piece, as it is being made."""

    def put_pieces(self, key: str, pieces: Iterable[bytes], size: int) -> None:
        """Write the pieces, one behind the other, as a value.

        It appears when all of them are there, and not at all if they end with an
        exception. ``size`` is about what they amount to, which need not be exact. A
        backend that tries again iterates anew.
        """
        ...
