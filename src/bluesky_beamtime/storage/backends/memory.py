"""Values in the memory of this process: ``memory://name``."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import NoReturn
from urllib.parse import quote, unquote
from weakref import WeakValueDictionary

from bluesky_beamtime.errors import KeyNotFoundError, PathError
from bluesky_beamtime.storage.backends.base import Backend
from bluesky_beamtime.storage.backends.keys import (
    check_prefix,
    join_key,
    listing,
    names_container,
)
from bluesky_beamtime.storage.backends.protocol import BytesLike
from bluesky_beamtime.storage.backends.registry import register_backend
from bluesky_beamtime.storage.backends.values import as_buffer, check_range


class _Space:
    """The values of one name."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: dict[str, bytes] = {}


_lock = threading.Lock()
_named: dict[str, _Space] = {}
_unnamed: WeakValueDictionary[str, _Space] = WeakValueDictionary()
_numbers = itertools.count(1)


def _space(name: str) -> tuple[str, _Space]:
    """Return the space of a name; an empty name gets one of its own."""
    with _lock:
        if not name:
            name = f"~{next(_numbers)}"
            space = _unnamed[name] = _Space()
        elif name.startswith("~"):
            found = _unnamed.get(name)
            if found is None:
                raise PathError(
                    f"memory://{name} is gone: an unnamed store ends with the last "
                    "backend that uses it. Open memory:// for a new one"
                )
            space = found
        else:
            space = _named.setdefault(name, _Space())
        return name, space


@register_backend("memory")
class MemoryBackend(Backend):
    """Values in memory, for tests and for what need not last.

    ``memory://name`` is shared by all who open that name in this process and lasts
    until the process ends; empty it with ``delete_prefix("", everything=True)``.
    ``memory://`` is a new store that nobody else has; its ``url`` leads back to it for
    as long as some backend uses it. ``memory://name/prefix`` shows what lies below a
    prefix.

    Parameters
    ----------
    url
        ``memory://``, with a name and a prefix or without.
    """

    def __init__(self, url: str = "memory://") -> None:
        scheme, colon, rest = url.partition(":")
        if scheme.lower() != "memory" or not colon or rest[:2] not in ("", "//"):
            raise PathError(f"{url!r} is no URL of this kind; write memory://name")
        name, _, prefix = unquote(rest[2:]).rstrip("/").partition("/")
        self._prefix_in_space = check_prefix(prefix)
        self._name, self._space = _space(name)

    @property
    def url(self) -> str:
        """URL of the store, also of an unnamed one."""
        return f"memory://{quote(join_key(self._name, self._prefix_in_space))}"

    def put_bytes(self, key: str, data: BytesLike) -> None:
        """Store a copy of ``data``."""
        key = self._full(key)
        value = bytes(as_buffer(data))
        with self._space.lock:
            self._space.values[key] = value

    def get_bytes(self, key: str) -> bytes:
        """Return a value."""
        full = self._full(key)
        try:
            return self._space.values[full]
        except KeyError:
            raise KeyNotFoundError(key, self.url) from None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start`` on, fewer at the end."""
        check_range(start, length)
        return self.get_bytes(key)[start : start + length]

    def get_size(self, key: str) -> int:
        """Return the size of a value in bytes."""
        return len(self.get_bytes(key))

    def exists(self, key: str) -> bool:
        """Say whether there is a value; False for containers and for ``""``."""
        self._check_open()
        return not names_container(key) and self._full(key) in self._space.values

    def delete(self, key: str) -> None:
        """Remove one value; nothing happens if there is none."""
        full = self._full(key)
        with self._space.lock:
            self._space.values.pop(full, None)

    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        """Yield full keys below a prefix in sorted order, as they are at the start."""
        return self._list(self._prefix(prefix), recursive)

    def _list(self, prefix: str, recursive: bool) -> Iterator[str]:
        self._check_open()
        with self._space.lock:
            keys = sorted(self._space.values)
        above = f"{self._prefix_in_space}/" if self._prefix_in_space else ""
        for key in listing(keys, join_key(above[:-1], prefix), recursive):
            self._check_open()
            yield key[len(above) :]

    def _full(self, key: str) -> str:
        return join_key(self._prefix_in_space, self._key(key))

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot go to another process: its values stay here")
