"""Hashes of files, as ``sha256sum -c`` takes them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

MANIFEST = "MANIFEST.sha256"
"""Name of the manifest in a folder that was taken home."""

_BLOCK = 8 << 20
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}


class Manifest:
    """The hashes of the files of one folder.

    Parameters
    ----------
    folder
        The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, name: str, digest: str) -> None:
        """Note the hash of a file, as hexadecimal digits."""
        self._found[name] = digest

    def read(self, name: str) -> None:
        """Note the hash of what is in a file now."""
        digest = hashlib.sha256()
        with (self._folder / name).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        self.add(name, digest.hexdigest())

    def write(self) -> None:
        """Write the manifest into the folder.

        Names are relative to it, and escaped as GNU's sha256sum does.
        """
        lines = [manifest_line(*item) for item in sorted(self._found.items())]
        with (self._folder / MANIFEST).open("xb") as file:
            file.write(b"".join(lines))


def manifest_line(name: str, digest: str) -> bytes:
    """Return the line of a file; one that begins with a backslash has escapes."""
    raw = os.fsencode(name)
    escaped = b"".join(
        _ESCAPES.get(raw[i : i + 1], raw[i : i + 1]) for i in range(len(raw))
    )
    mark = b"\\" if escaped != raw else b""
    return mark + digest.encode() + b"  " + escaped + b"\n"
