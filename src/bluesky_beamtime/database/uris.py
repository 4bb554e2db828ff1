"""URIs of frames that follow the beamtime's folder when it moves.

What lies in the folder of the database is stored relative to it; everything else as it
is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from bluesky_beamtime.errors import PathError
from bluesky_beamtime.storage.paths import from_uri

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_AUTHORITY = re.compile(r"file:(//[^/]*)?", re.IGNORECASE)


def to_stored(uri: str, folder: Path) -> str:
    """Return what to store for ``uri``: relative to ``folder`` if it lies inside.

    Parameters
    ----------
    uri
        A ``file:`` URI; any other comes back unchanged.
    folder
        Folder of the database, absolute and without links.
    """
    if uri[:5].lower() != "file:":
        return uri
    try:
        path = Path(from_uri(uri))
    except (PathError, ValueError):
        return uri
    inside = relative_to(path, folder)
    return uri if inside is None else quote(inside.as_posix())


def relative_to(path: Path, folder: Path) -> Path | None:
    """Return ``path`` relative to ``folder``, None if it does not lie inside."""
    if ".." in path.parts or "\0" in str(path):
        return None
    try:
        real = Path(os.path.realpath(path))
    except ValueError:
        # Half a character, which no disk has.
        return None
    for candidate in (path, real):
        if candidate != folder and candidate.is_relative_to(folder):
            return candidate.relative_to(folder)
    return None


def stored_path(stored: str, folder: Path) -> Path | None:
    """Return the path of a stored URI, None if it is not inside ``folder``."""
    if _SCHEME.match(stored):
        return None
    path = folder / unquote(stored)
    return path if relative_to(path, folder) is not None else None


def is_relative(stored: str) -> bool:
    """Say whether a stored URI is relative to the folder of the database."""
    return _SCHEME.match(stored) is None


def from_stored(stored: str, original: str, folder: Path) -> str:
    """Return the URI that ``stored`` means now.

    Parameters
    ----------
    stored
        What :func:`to_stored` returned.
    original
        The URI as it was emitted; returned as it is while the folder has not moved.
    folder
        Folder of the database now.
    """
    if not is_relative(stored):
        # As it was emitted; or, on a server, where the frames were copied to.
        return stored
    if original[:5].lower() != "file:":
        return original
    path = folder / unquote(stored)
    try:
        before = Path(from_uri(original))
        if before == path or before.resolve() == path:
            return original
    except (PathError, ValueError, OSError):
        pass
    start = _AUTHORITY.match(original)
    return f"{start[0] if start else 'file://'}{quote(path.as_posix())}"
