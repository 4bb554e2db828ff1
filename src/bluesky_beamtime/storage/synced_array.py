"""The shards of an array: opened as it grows, brought to the disk itself, closed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bluesky_beamtime.errors import SinkClosedError
from bluesky_beamtime.storage.files import sync_file, sync_folder, write_error
from bluesky_beamtime.storage.layout import (
    LAYOUT_FILE,
    METADATA_FILE,
    ArrayLayout,
    sync_hierarchy,
)
from bluesky_beamtime.storage.published_array import PublishedArray
from bluesky_beamtime.storage.reserve import drop_reserve
from bluesky_beamtime.storage.shards import ShardFile

# Full shards that may wait for their sync with their files open.
_MOST_RETIRED = 32


class SyncedArray(PublishedArray):
    """The files of an array that grows; see :class:`ShardedArray`."""

    def __init__(
        self,
        path: Path,
        layout: ArrayLayout,
        attributes: Mapping[str, Any],
        *,
        length: int,
        published: int,
        power: bool,
    ) -> None:
        super().__init__(
            path, layout, attributes, length=length, published=published, power=power
        )
        self._closed = False
        self._sync_lock = threading.Lock()
        self._shard: ShardFile | None = None
        self._shard_number = -1
        self._retired: list[ShardFile] = []
        self._unsynced = False
        self._new_names = False
        self._created = False

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def unsynced(self) -> bool:
        """Whether a power cut would lose something that was acknowledged."""
        return self._unsynced

    def _shard_of(self, index: int) -> ShardFile:
        """Return the open shard of a frame; the lock is held."""
        number = index // self.layout.frames_per_shard
        if self._closed:
            raise SinkClosedError(
                f"the array {str(self.path)!r} is closed after {index} frames"
            )
        shard = self._shard
        if shard is None or number != self._shard_number:
            path = self.path / self.layout.shard_name(number)
            try:
                self._retire_some()
                fresh = ShardFile(
                    path, self.layout.frames_per_shard, self.layout.chunks_per_frame
                )
            except OSError as error:
                raise write_error(f"frame {index}", path, error) from error
            if shard is not None:
                self._retired.append(shard)
            self._shard, self._shard_number, shard = fresh, number, fresh
            self._new_names = True
        return shard

    def _retire_some(self) -> None:
        """Keep few files open, also when shards fill faster than they are synced."""
        while len(self._retired) >= _MOST_RETIRED:
            self._retired[0].sync()
            self._retired.pop(0).close()

    def _sync_shard(self, shard: ShardFile) -> None:
        """Make a frame survive a power cut before it is acknowledged; lock held."""
        shard.sync()
        if self._new_names:
            sync_folder(self.path)
            self._new_names = False

    def sync(self) -> None:
        """Bring every frame written so far to the disk itself, against power cuts.

        Raises
        ------
        StoreWriteError
            The disk refused.
        """
        with self._sync_lock:
            with self._lock:
                if not self._unsynced and not self._retired:
                    return
                self._unsynced = False
                retired, self._retired = self._retired, []
                current = self._shard
                new_names, self._new_names = self._new_names, False
                created, self._created = self._created, False
            try:
                if created:
                    sync_file(self.path / LAYOUT_FILE)
                    sync_file(self.path / METADATA_FILE)
                for shard in retired:
                    shard.sync()
                    shard.close()
                if current is not None:
                    current.sync()
                if new_names or created:
                    sync_folder(self.path)
                if created:
                    sync_hierarchy(self.path)
            except OSError as error:
                with self._lock:
                    self._unsynced = True
                    self._retired[:0] = [shard for shard in retired if shard.is_open]
                    self._new_names |= new_names
                    self._created |= created
                raise write_error("frames", self.path, error) from error

    def close(self) -> None:
        """Publish the exact length, bring everything to the disk, close the files.

        May be called again. When the disk refuses, the files are closed all the same
        and the error is raised; the next call publishes what this one could not.
        """
        with self._lock:
            done = self._length == self._published and not self._attributes_changed
            if self._closed and done:
                return
            self._closed = True
        try:
            self.sync()
            self.publish(sync=True)
        finally:
            with self._sync_lock, self._lock:
                for shard in (*self._retired, self._shard):
                    if shard is not None:
                        shard.close()
                self._retired, self._shard = [], None
            drop_reserve(self.path)
