"""The hashes of the files of a folder, for ``sha256sum -c``."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bluesky_beamtime.exports.manifest import MANIFEST_FILE, encode_manifest

_BLOCK = 8 << 20


class Manifest:
    """The hashes of the files of one folder.

    Parameters
    ----------
    folder
        The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hashes: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, name: str, digest: str) -> None:
        """Note the hash of a file, as hexadecimal digits."""
        self._hashes[name] = digest

    def read(self, name: str) -> None:
        """Note the hash of what is in a file now."""
        digest = hashlib.sha256()
        with (self._folder / name).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        self.add(name, digest.hexdigest())

    def write(self) -> None:
        """Write the manifest into the folder; names are relative to it."""
        with (self._folder / MANIFEST_FILE).open("xb") as file:
            file.write(encode_manifest(self._hashes))
