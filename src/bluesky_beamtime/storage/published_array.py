"""What fresh readers see of an array: its length and its attributes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from bluesky_beamtime.storage.files import sync_file, sync_folder, write_error
from bluesky_beamtime.storage.layout import METADATA_FILE, ArrayLayout, plain_json
from bluesky_beamtime.storage.reserve import replace_metadata


class PublishedArray:
    """The metadata of an array that grows; see :class:`ShardedArray`."""

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
        self.path = path
        self.layout = layout
        self._attributes = dict(attributes)
        self._metadata = orjson.loads(layout.to_json(length, {}))
        self._power = power
        self._length = length
        self._published = published
        self._attributes_changed = False
        # What was replaced without a sync: a power cut could leave nothing of it.
        self._metadata_unsynced = True
        self._lock = threading.Lock()
        self._publish_lock = threading.Lock()

    @property
    def length(self) -> int:
        """Frames that would survive ``kill -9``."""
        return self._length

    @property
    def published(self) -> int:
        """Frames that a fresh reader sees."""
        return max(0, self._published)

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of the attributes."""
        with self._lock:
            return dict(self._attributes)

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

        The metadata file is replaced as a whole, about 50 µs, and only when something
        changed.

        Parameters
        ----------
        sync
            Also fsync it, so that the length survives a power cut.

        Raises
        ------
        StoreWriteError
            The disk refused; readers still see what was published before.
        """
        with self._publish_lock:
            with self._lock:
                length = self._length
                if length == self._published and not self._attributes_changed:
                    if sync:
                        self._sync_metadata()
                    return length
                self._metadata["shape"][0] = length
                self._metadata["attributes"] = self._attributes
                self._attributes_changed = False
                data = orjson.dumps(self._metadata, option=orjson.OPT_INDENT_2)
            sync = sync or self._power
            try:
                replace_metadata(
                    self.path,
                    data,
                    sync=sync,
                    first=self._published < 0,
                )
            except OSError as error:
                self._attributes_changed = True
                raise write_error(
                    f"the length of {length} frames", self.path / METADATA_FILE, error
                ) from error
            self._published, self._metadata_unsynced = length, not sync
            return length

    def _sync_metadata(self) -> None:
        """Bring to the disk itself what was replaced without that."""
        if not self._metadata_unsynced:
            return
        try:
            sync_file(self.path / METADATA_FILE)
            sync_folder(self.path)
        except FileNotFoundError:
            # Somebody has taken the array away.
            return
        except OSError as error:
            self._attributes_changed = True
            raise write_error(
                f"the length of {self._published} frames",
                self.path / METADATA_FILE,
                error,
            ) from error
        self._metadata_unsynced = False
