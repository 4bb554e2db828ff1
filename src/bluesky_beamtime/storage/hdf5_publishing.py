"""What fresh readers see of an HDF5 file: its length and its attributes."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bluesky_beamtime.storage import hdf5_log
from bluesky_beamtime.storage.codecs import checksum
from bluesky_beamtime.storage.files import pwrite_all, write_error
from bluesky_beamtime.storage.hdf5_appending import AppendedFile
from bluesky_beamtime.storage.hdf5_index import ChunkIndex
from bluesky_beamtime.storage.hdf5_layout import (
    HEADER_ADDRESS,
    STATE_ADDRESS,
    FileLayout,
    State,
)
from bluesky_beamtime.storage.hdf5_log import aligned
from bluesky_beamtime.storage.layout import plain_json

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class PublishedFile(AppendedFile):
    """The length and the attributes of a file of frames; see :class:`HDF5File`."""

    def __init__(
        self,
        path: Path,
        fd: int,
        layout: FileLayout,
        state: State,
        *,
        index: ChunkIndex | None,
        attributes: Mapping[str, Any] | None,
        power: bool,
        recovered: bool,
    ) -> None:
        super().__init__(path, fd, layout, state.position, index=index, power=power)
        self._state = state
        self._attributes = dict(attributes or {})
        self._attributes_changed = False
        self._published = -1 if recovered else 0
        self._publish_lock = threading.Lock()

    @property
    def published(self) -> int:
        """Frames that a fresh reader sees."""
        return max(0, self._published)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Update attributes; they are written with the next :meth:`publish`.

        Raises
        ------
        MetadataError
            They cannot be written as JSON.
        """
        checked = plain_json(dict(attributes))
        with self._lock:
            self._attributes.update(checked)
            self._attributes_changed = True

    def publish(self, *, sync: bool = False) -> int:
        """Let fresh readers see every frame that is written; return how many.

        Parameters
        ----------
        sync
            Also fsync, so that the length survives a power cut.

        Raises
        ------
        StoreWriteError
            The disk refused; readers still see what was published before.
        """
        with self._publish_lock:
            with self._lock:
                done = self.length == self._published and not self._attributes_changed
                if self._closed or done:
                    return self.published
            try:
                self._publish(sync or self._power)
            except OSError as error:
                what = f"the length of {self.length} frames"
                raise write_error(what, self.path, error) from error
            return self._published

    def _publish(self, sync: bool) -> None:
        if os.fstat(self._fd).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        failure: OSError | None = None
        if self._attributes_changed:
            try:
                self._write_attributes()
            except OSError as error:
                # A full disk keeps new attributes from growing, but not the length.
                if error.errno not in _NO_ROOM:
                    raise
                failure = error
        with self._lock:
            staged = self._index.stage()
            position = aligned(self._position)
        for address, data in staged.blocks:
            pwrite_all(self._fd, [data], len(data), address)
        if sync:
            os.fdatasync(self._fd)
        state = replace(self._state, count=staged.count, position=position)
        header = self.layout.dataset_header(staged.count, state)
        head = state.to_bytes() + staged.head
        self._state = state
        pwrite_all(self._fd, [head], len(head), STATE_ADDRESS)
        # The length comes last: who sees it finds the index that belongs to it.
        pwrite_all(self._fd, [header], len(header), HEADER_ADDRESS)
        with self._lock:
            self._index.commit()
            self._unsynced = True
        self._published = staged.count
        if sync:
            os.fdatasync(self._fd)
        if failure is not None:
            raise failure

    def _write_attributes(self) -> None:
        """Write the attributes to the slot that is not in use."""
        with self._lock:
            attributes = dict(self._attributes)
            self._attributes_changed = False
        try:
            state = replace(self._state, slot=1 - self._state.slot)
            data = self.layout.attribute_slot(
                attributes, state.block_bytes, state.text_bytes
            )
            if data is None:
                block_bytes, text_bytes = self.layout.slot_sizes(attributes)
                size = 2 * (block_bytes + text_bytes)
                with self._lock:
                    try:
                        address = self._reserve(hdf5_log.ATTRIBUTES, 0, size)
                    except OSError:
                        self._drop_tail()
                        raise
                data = self.layout.attribute_slot(attributes, block_bytes, text_bytes)
                assert data is not None
                state = replace(
                    state,
                    attributes=address,
                    slot=0,
                    block_bytes=block_bytes,
                    text_bytes=text_bytes,
                )
            pwrite_all(self._fd, [data], len(data), state.slot_address)
            text = data[state.block_bytes :].rstrip(b"\0")
            self._state = replace(
                state, text_length=len(text), text_checksum=checksum(text)
            )
        except OSError:
            self._attributes_changed = True
            raise
