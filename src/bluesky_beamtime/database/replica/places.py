"""Where the frames of a file are for those who read it from a server."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.resource_places import place_of
from bluesky_beamtime.database.uris import from_stored, is_relative

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Places:
    """The folder of a file, and the object store that its frames are copied to."""

    path: Path
    """The file."""
    store: Path
    """Its Zarr store."""
    source: str
    """What the file is called at the far end."""
    frames: str | None = None
    """URL of the object store, None for readers who see the same disk."""

    @property
    def far_store(self) -> str:
        """URL of the Zarr store for readers elsewhere.

        Each file has one of its own, as frames of two machines may have the same name.
        """
        if self.frames is None:
            return self.store.as_uri()
        # As a URL is written; what does not belong into one stays, to be refused.
        return f"{quote(self.frames.rstrip('/'), safe='/%?#:@')}/{self.name}"

    @property
    def name(self) -> str:
        """Name of the Zarr store in the object store."""
        return f"{quote(self.store.stem)}-{self.source[:8]}.zarr"

    def describe(self) -> dict[str, str]:
        """Return what a reader of the server learns about the file."""
        return {
            "name": self.path.name,
            "host": socket.gethostname(),
            "store": self.far_store,
        }

    def stream_resource(self, row: Row) -> Row:
        """Return the row of a StreamResource with a URI for readers elsewhere."""
        uri: str = row["uri"]
        original = decode(row["document"])["uri"]
        if not is_relative(uri) or original[:5].lower() != "file:":
            return row
        inside = f"{quote(self.store.name)}/"
        if self.frames is not None and uri.startswith(inside):
            return {**row, "uri": f"{self.far_store}/{uri.removeprefix(inside)}"}
        return {**row, "uri": from_stored(uri, original, self.path.parent)}

    def resource(self, row: Row) -> Row:
        """Return the row of a legacy Resource with a root for readers elsewhere."""
        root = row["root"]
        if not root or Path(root).is_absolute():
            return row
        if place_of(decode(row["document"])) == (root, row["resource_path"]):
            return row
        return {**row, "root": str(self.path.parent / root)}
