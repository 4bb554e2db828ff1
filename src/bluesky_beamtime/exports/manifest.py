"""Lists of SHA-256 hashes in the form that ``sha256sum -c`` checks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from bluesky_beamtime.errors import ArchiveError

MANIFEST_FILE = "MANIFEST.sha256"
"""Name of the list, which stands beside what it lists and is written last."""

_LINE = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](.+)", re.DOTALL)
_ESCAPED = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_MEANT = {escaped: plain for plain, escaped in _ESCAPED.items()}


def encode_manifest(hashes: Mapping[str, str]) -> bytes:
    """Return the list of the hashes of files, sorted by name.

    Parameters
    ----------
    hashes
        SHA-256 in hexadecimal digits, by relative path with forward slashes.
    """
    return b"".join(_line(name, hashes[name]) for name in sorted(hashes))


def _line(name: str, digest: str) -> bytes:
    raw = os.fsencode(name)
    plain = re.sub(rb"[\\\n\r]", lambda found: _ESCAPED[found[0]], raw)
    # A name that had to be written otherwise is announced by a backslash in front.
    return (b"\\" if plain != raw else b"") + digest.encode() + b"  " + plain + b"\n"


def decode_manifest(data: bytes) -> dict[str, str]:
    """Return the hashes in a list, by name.

    Names are given as they stand there: who writes files by them checks them first.

    Raises
    ------
    ArchiveError
        A line is no hash and name, or a name stands there twice.
    """
    hashes: dict[str, str] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line:
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ArchiveError(
                f"line {number} of the manifest is no hash and name: {line[:80]!r}; "
                "it was damaged or is no manifest"
            )
        mark, digest, raw = found.groups()
        if mark:
            raw = re.sub(rb"\\[\\nr]", lambda escaped: _MEANT[escaped[0]], raw)
        name = os.fsdecode(raw)
        if name in hashes:
            raise ArchiveError(f"the manifest names {name!r} twice; it was damaged")
        hashes[name] = digest.decode()
    return hashes
