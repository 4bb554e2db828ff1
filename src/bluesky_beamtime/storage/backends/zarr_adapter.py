"""The class behind :func:`.as_zarr_store`; imported only by it, because of Zarr."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

from zarr.abc.store import (  # noqa: TID253  # as_zarr_store imports this module late
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import (  # noqa: TID253  # as above
    Buffer,
    BufferPrototype,
    default_buffer_prototype,
)

from bluesky_beamtime.errors import KeyNotFoundError
from bluesky_beamtime.storage.backends.asynchronous import AsyncBackend
from bluesky_beamtime.storage.backends.protocol import StorageBackend
from bluesky_beamtime.storage.backends.values import get_size


class BackendStore(Store):
    """A Zarr store whose values live in a backend; see :func:`.as_zarr_store`."""

    def __init__(self, backend: StorageBackend, *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only)
        self.backend = backend
        self._twin = AsyncBackend(backend)

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return another store over the same backend."""
        return type(self)(self.backend, read_only=read_only)

    # --------------------------------------------------------------------- reading

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return a value or a part of it, None if it is not there; blocks."""
        kind = (prototype or default_buffer_prototype()).buffer
        try:
            return kind.from_bytes(self._read(key, byte_range))
        except KeyNotFoundError:
            return None

    def _read(self, key: str, byte_range: ByteRequest | None) -> bytes:
        backend = self.backend
        match byte_range:
            case None:
                return backend.get_bytes(key)
            case RangeByteRequest(start, end):
                return backend.get_range(key, start, max(0, end - start))
            case OffsetByteRequest(offset):
                length = max(0, get_size(backend, key) - offset)
                return backend.get_range(key, offset, length)
            case SuffixByteRequest(suffix):
                start = max(0, get_size(backend, key) - suffix)
                return backend.get_range(key, start, suffix)
            case _:
                raise ValueError(f"Unexpected byte_range, got {byte_range}.")

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return a value or a part of it, None if it is not there."""
        await self._ensure_open()
        return await self._twin.run(
            self.get_sync, key, prototype=prototype, byte_range=byte_range
        )

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return parts of several values, asked for at once."""
        asked = [self.get(key, prototype, part) for key, part in key_ranges]
        return list(await asyncio.gather(*asked))

    async def exists(self, key: str) -> bool:
        """Say whether there is a value."""
        return await self._twin.exists(key)

    async def getsize(self, key: str) -> int:
        """Return the size of a value without reading it."""
        try:
            return await self._twin.run(get_size, self.backend, key)
        except KeyNotFoundError as error:
            # What zarr-python expects of its stores.
            raise FileNotFoundError(key) from error

    # --------------------------------------------------------------------- writing

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a value; blocks."""
        self._check_writable()
        if not isinstance(value, Buffer):
            raise TypeError(f"a value must be a Buffer, got {type(value).__name__}")
        self.backend.put_bytes(key, value.as_numpy_array())

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value."""
        await self._ensure_open()
        await self._twin.run(self.set_sync, key, value)

    def delete_sync(self, key: str) -> None:
        """Remove a value; blocks."""
        self._check_writable()
        self.backend.delete(key)

    async def delete(self, key: str) -> None:
        """Remove a value."""
        await self._twin.run(self.delete_sync, key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove every value below a prefix."""
        self._check_writable()
        # Zarr's clear() asks for "" and means it.
        await self._twin.delete_prefix(prefix.strip("/"), everything=True)

    # --------------------------------------------------------------------- listing

    def list(self) -> AsyncIterator[str]:
        """Yield all keys."""
        return self._twin.list_prefix("", recursive=True)

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield all keys below a prefix; ``"a"`` is not a prefix of ``"ab/c"``."""
        return self._twin.list_prefix(prefix.strip("/"), recursive=True)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names of a prefix's children."""
        prefix = prefix.strip("/")
        async for key in self._twin.list_prefix(prefix):
            yield key[len(prefix) + 1 if prefix else 0 :].rstrip("/")

    # ----------------------------------------------------------------------- state

    @property
    def supports_writes(self) -> bool:
        """True: what is not read-only can be written."""
        return True

    @property
    def supports_deletes(self) -> bool:
        """True."""
        return True

    @property
    def supports_listing(self) -> bool:
        """True."""
        return True

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BackendStore)
            and other.backend.url == self.backend.url
            and other.read_only == self.read_only
        )

    def __hash__(self) -> int:
        return hash((self.backend.url, self.read_only))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.backend, self.read_only)

    def __str__(self) -> str:
        return self.backend.url

    def __repr__(self) -> str:
        return f"BackendStore({self.backend!r})"


def _reopen(backend: StorageBackend, read_only: bool) -> BackendStore:
    return BackendStore(backend, read_only=read_only)
