"""The asynchronous twin of a backend: the same calls, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

from bluesky_beamtime.errors import BackendClosedError

if TYPE_CHECKING:
    from bluesky_beamtime.storage.backends.protocol import BytesLike, StorageBackend

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Keys fetched by one trip to a thread; a trip costs about as much as listing this many.
_LISTED_AT_ONCE = 256


class AsyncBackend:
    """A backend for use in an event loop, which it never blocks.

    Every call runs in a thread of the twin's own pool, so a store that hangs cannot
    starve what else the program runs in threads. Works from any loop, and from several.
    A call whose task is cancelled goes on in its thread to its end.

    Parameters
    ----------
    backend
        The backend; both sides may be used at the same time, and closing the twin
        closes both.
    threads
        Calls that may run at once; others wait for their turn.
    """

    def __init__(self, backend: StorageBackend, *, threads: int = 16) -> None:
        self._backend = backend
        self._closed = False
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="beamtime-store")

    @property
    def backend(self) -> StorageBackend:
        """The backend whose twin this is."""
        return self._backend

    @property
    def url(self) -> str:
        """Canonical URL of the root."""
        return self._backend.url

    async def run(
        self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run any blocking call in one of the twin's threads."""
        if self._closed:
            raise BackendClosedError(f"{self.url} is closed; open_backend() it again")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*args, **kwargs))

    async def put_bytes(self, key: str, data: BytesLike) -> None:
        """Write a value or replace it; ``data`` may not change until this returns."""
        await self.run(self._backend.put_bytes, key, data)

    async def get_bytes(self, key: str) -> bytes:
        """Return a value."""
        return await self.run(self._backend.get_bytes, key)

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start`` on, fewer at the end."""
        return await self.run(self._backend.get_range, key, start, length)

    async def exists(self, key: str) -> bool:
        """Say whether there is a value; False for containers and for ``""``."""
        return await self.run(self._backend.exists, key)

    async def delete(self, key: str) -> None:
        """Remove one value; nothing happens if there is none."""
        await self.run(self._backend.delete, key)

    async def delete_prefix(self, prefix: str, *, everything: bool = False) -> None:
        """Remove what ``list_prefix(prefix, recursive=True)`` yields."""
        await self.run(self._backend.delete_prefix, prefix, everything=everything)

    async def list_prefix(
        self, prefix: str, recursive: bool = False
    ) -> AsyncIterator[str]:
        """Yield full keys below a prefix in sorted order, some at a time."""
        keys = await self.run(self._backend.list_prefix, prefix, recursive)
        while batch := await self.run(_take, keys):
            for key in batch:
                yield key

    async def ensure_prefix(self, prefix: str) -> None:
        """Make a container where containers exist by themselves; else do nothing."""
        await self.run(self._backend.ensure_prefix, prefix)

    async def close(self) -> None:
        """Close both sides; may be called again."""
        self._closed = True
        self._backend.close()
        # Not waiting: a thread that hangs in a dead connection ends by itself.
        self._threads.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncBackend {self.url}>"


def _take(keys: Iterator[str]) -> list[str]:
    return list(islice(keys, _LISTED_AT_ONCE))
