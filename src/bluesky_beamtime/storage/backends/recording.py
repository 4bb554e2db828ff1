"""A backend for tests: it notes every call, and fails where it is told to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from bluesky_beamtime.storage.backends.base import Backend
from bluesky_beamtime.storage.backends.protocol import BytesLike, StorageBackend
from bluesky_beamtime.storage.backends.values import (
    as_buffer,
    get_size,
    put_file,
    put_pieces,
)

Call: TypeAlias = tuple[Any, ...]
"""Name of the method, then its arguments; of ``put_bytes`` the size, not the data."""


class RecordingBackend(Backend):
    """Passes every call on to another backend and notes it in ``calls``.

    Parameters
    ----------
    inner
        The backend that does the work.
    before
        Called with each call before it is passed on; what it raises, the caller gets.

    Attributes
    ----------
    calls : list of tuple
        ``("put_bytes", key, size)``, ``("get_range", key, start, length)`` and so on,
        in order. ``list_prefix`` is noted when it is called.
    """

    def __init__(
        self, inner: StorageBackend, before: Callable[[Call], None] | None = None
    ) -> None:
        self.inner = inner
        self.before = before
        self.calls: list[Call] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """URL of the inner backend."""
        return self.inner.url

    def called(self, name: str) -> list[Call]:
        """Return the calls of one method."""
        with self._lock:
            return [call for call in self.calls if call[0] == name]

    def put_bytes(self, key: str, data: BytesLike) -> None:
        """Note and pass on."""
        view = as_buffer(data)
        self._note("put_bytes", key, view.nbytes)
        self.inner.put_bytes(key, view)

    def put_file(self, key: str, path: str | os.PathLike[str], size: int) -> None:
        """Note as ``("put_file", key, size)`` and pass on."""
        self._note("put_file", key, size)
        put_file(self.inner, key, path, size)

    def put_pieces(self, key: str, pieces: Iterable[bytes], size: int) -> None:
        """Note as ``("put_pieces", key, size)`` and pass on."""
        self._note("put_pieces", key, size)
        put_pieces(self.inner, key, pieces, size)

    def get_bytes(self, key: str) -> bytes:
        """Note and pass on."""
        self._note("get_bytes", key)
        return self.inner.get_bytes(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Note and pass on."""
        self._note("get_range", key, start, length)
        return self.inner.get_range(key, start, length)

    def get_size(self, key: str) -> int:
        """Note and pass on."""
        self._note("get_size", key)
        return get_size(self.inner, key)

    def exists(self, key: str) -> bool:
        """Note and pass on."""
        self._note("exists", key)
        return self.inner.exists(key)

    def delete(self, key: str) -> None:
        """Note and pass on."""
        self._note("delete", key)
        self.inner.delete(key)

    def delete_prefix(self, prefix: str, *, everything: bool = False) -> None:
        """Note and pass on."""
        self._note("delete_prefix", prefix)
        self.inner.delete_prefix(prefix, everything=everything)

    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        """Note and pass on."""
        self._note("list_prefix", prefix, recursive)
        return self.inner.list_prefix(prefix, recursive)

    def ensure_prefix(self, prefix: str) -> None:
        """Note and pass on."""
        self._note("ensure_prefix", prefix)
        self.inner.ensure_prefix(prefix)

    def close(self) -> None:
        """Close both."""
        super().close()
        self.inner.close()

    def _note(self, *call: Any) -> None:
        with self._lock:
            self.calls.append(call)
        if self.before is not None:
            self.before(call)
