"""One array of a local store and its copy in a backend."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bluesky_beamtime.errors import (
    BackendError,
    KeyNotFoundError,
    StoreReadError,
    StoreStateError,
)
from bluesky_beamtime.storage.backends import StorageBackend, get_size, put_file
from bluesky_beamtime.storage.layout import METADATA_FILE, ArrayLayout, encode_json
from bluesky_beamtime.storage.shards import index_bytes

_T = TypeVar("_T")

# How much of a shard is compared to tell one store from another of the same layout.
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a call to a backend is tried before its failure counts."""

    attempts: int = 3
    """Calls in all."""
    pause: float = 0.5
    """Seconds before the second; doubled before each further one."""
    longest: float = 8.0
    """Seconds that a pause grows to."""


class Remote:
    """A place in a backend, whose calls are tried more than once.

    Parameters
    ----------
    backend, prefix
        The place.
    retry
        How often.
    hurry
        While it is set nothing is tried again.
    """

    def __init__(
        self,
        backend: StorageBackend,
        prefix: str,
        retry: Retry,
        hurry: threading.Event,
    ) -> None:
        self.backend = backend
        self.prefix = prefix
        self.retry = retry
        self.hurry = hurry
        self.shards = 0
        self.size = 0

    def put(self, key: str, data: bytes) -> None:
        """Write a value and check that it arrived in full length."""
        self._put(key, len(data), lambda: self.backend.put_bytes(key, data))

    def put_file(self, key: str, path: Path) -> None:
        """Write a file, as long as it is now, and check that it arrived in length."""
        size = path.stat().st_size
        self._put(key, size, lambda: put_file(self.backend, key, path, size))

    def _put(self, key: str, size: int, put: Callable[[], object]) -> None:
        def put_and_check() -> None:
            put()
            found = self._size(key)
            if found != size:
                raise BackendError(
                    f"{key!r} did not arrive whole in {self.backend.url}: "
                    f"{found} bytes, {size} were sent",
                    filename=key,
                )

        self.call(put_and_check)
        self.size += size

    def _size(self, key: str) -> int | None:
        try:
            return get_size(self.backend, key)
        except KeyNotFoundError:
            return None

    def get_size(self, key: str) -> int | None:
        """Return the size of a value, None if it is not there."""
        return self.call(lambda: self._size(key))

    def get(self, key: str) -> bytes | None:
        """Return a value, None if it is not there."""

        def get() -> bytes | None:
            try:
                return self.backend.get_bytes(key)
            except KeyNotFoundError:
                return None

        return self.call(get)

    def call(self, use: Callable[[], _T]) -> _T:
        """Call, and call again when the backend fails, a few times."""
        pause = self.retry.pause
        for _ in range(self.retry.attempts - 1):
            try:
                return use()
            except BackendError:
                if self.hurry.wait(pause):
                    raise
                pause = min(2 * pause, self.retry.longest)
        return use()


class RemoteArray:
    """An array that a backend follows, shard by shard.

    The remote metadata is the cursor: its length covers only frames whose shards are
    there, so what was uploaded is known from the backend alone.

    Parameters
    ----------
    folder
        The local array.
    layout
        Its layout.
    remote
        Where the copy goes.
    key
        Key of the array below ``remote.prefix``, joined to it.

    Attributes
    ----------
    covered : int
        Frames that a remote reader sees; -1 while there is no remote array.
    """

    def __init__(
        self, folder: Path, layout: ArrayLayout, remote: Remote, key: str
    ) -> None:
        self.folder = folder
        self.layout = layout
        self.covered = -1
        self._remote = remote
        self._key = key
        # Shards that are there for good, and frames whose shard is there: more, when
        # the last shard was uploaded before it was full.
        self._whole = 0
        self._held = 0
        self._metadata = b""

    def resume(self, length: int) -> None:
        """Find out what the backend has, after another uploader or an earlier one.

        Raises
        ------
        StoreStateError
            What is there belongs to another store.
        """
        found = self._remote.get(f"{self._key}/{METADATA_FILE}")
        if found is None:
            return
        try:
            metadata: Any = json.loads(found)
            layout = ArrayLayout.from_json(metadata, self._key)
            covered = int(metadata["shape"][0])
        except (ValueError, TypeError, KeyError, StoreReadError) as error:
            raise self._foreign("it is no array of frames") from error
        if layout != self.layout:
            raise self._foreign("its dtype, shape or sharding differs")
        if covered > length:
            raise self._foreign(f"it has {covered} frames, the local one {length}")
        self._metadata = found
        self.covered = covered
        per_shard = self.layout.frames_per_shard
        self._whole = covered // per_shard
        self._held = covered
        shards = -(-covered // per_shard)
        for number in range(shards):
            size = self._remote.get_size(self._shard_key(number))
            if size is None:
                # Somebody removed it: upload it, and what follows, once more.
                self._whole = min(self._whole, number)
                self._held = number * per_shard
                return
            if number < self._whole and size != self._shard_path(number).stat().st_size:
                raise self._foreign(f"its shard {number} has another size")
            if number in (0, shards - 1):
                self._compare(number, size)

    def _compare(self, number: int, size: int) -> None:
        """Compare the beginning of a shard's frames with the local ones."""
        start = index_bytes(self.layout.entries_per_shard)
        count = max(0, min(_SAMPLE_BYTES, size - start))
        key = self._shard_key(number)
        backend = self._remote.backend
        there = self._remote.call(lambda: backend.get_range(key, start, count))
        fd = os.open(self._shard_path(number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            here = os.pread(fd, count, start)
        finally:
            os.close(fd)
        if there != here:
            raise self._foreign(f"its shard {number} holds other frames")

    def push(self, raw: bytes, *, final: bool) -> None:
        """Upload what is new: shards first, then a length that covers them.

        Parameters
        ----------
        raw
            The local metadata.
        final
            Upload the last shard too, though it is not full.
        """
        metadata: dict[str, Any] = json.loads(raw)
        length = int(metadata["shape"][0])
        per_shard = self.layout.frames_per_shard
        if length < self.covered:
            raise self._foreign(f"it has {self.covered} frames, the local one {length}")
        if self.covered < 0:
            self._publish(metadata, 0)
        for number in range(self._whole, length // per_shard):
            self._upload(number)
            self._whole = number + 1
            self._held = max(self._held, self._whole * per_shard)
            self._publish(metadata, max(self.covered, self._whole * per_shard))
        if not final:
            return
        if length > self._held:
            # A writer may be appending to it: the frames below the length, which was
            # read before, are whole, and no others will be seen.
            self._upload(length // per_shard)
            self._held = length
        self._put_metadata(raw)
        self.covered = length

    def _upload(self, number: int) -> None:
        path = self._shard_path(number)
        try:
            self._remote.put_file(self._shard_key(number), path)
        except FileNotFoundError as error:
            raise StoreReadError(
                f"{str(path)!r} is gone, though its frames are published; run "
                "verify_store() for the extent",
                errno=error.errno,
                filename=str(path),
            ) from error
        self._remote.shards += 1

    def _publish(self, metadata: dict[str, Any], covered: int) -> None:
        shape = [covered, *metadata["shape"][1:]]
        self._put_metadata(encode_json({**metadata, "shape": shape}))
        self.covered = covered

    def _put_metadata(self, data: bytes) -> None:
        if data != self._metadata:
            self._remote.put(f"{self._key}/{METADATA_FILE}", data)
            self._metadata = data

    def _shard_path(self, number: int) -> Path:
        return self.folder / self.layout.shard_name(number)

    def _shard_key(self, number: int) -> str:
        return f"{self._key}/{self.layout.shard_name(number)}"

    def _foreign(self, why: str) -> StoreStateError:
        return StoreStateError(
            f"the array at {self._key!r} in {self._remote.backend.url} is no copy of "
            f"{str(self.folder)!r}: {why}. Nothing there was changed; choose another "
            "prefix, or delete_prefix() what is there"
        )
