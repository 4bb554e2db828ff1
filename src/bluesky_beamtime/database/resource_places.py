"""Where the files of legacy Resources are, also after the beamtime's folder moved.

A Resource names a ``root`` and a ``resource_path``, joined as paths are: one that is
absolute overrules the root. What lies in the folder of the database is stored relative
to it; everything else as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bluesky_beamtime.database.uris import relative_to

Place = tuple[str | None, str | None]
"""``root`` and ``resource_path``; None where the document has no text."""


def place_of(document: Any) -> Place:
    """Return the place that a Resource names."""
    root, path = (document.get(key) for key in ("root", "resource_path"))
    return (
        root if isinstance(root, str) else None,
        path if isinstance(path, str) else None,
    )


def to_stored(place: Place, folder: Path) -> Place:
    """Return what to store for a place: relative to ``folder`` if it lies inside.

    Parameters
    ----------
    place
        As it was emitted.
    folder
        Folder of the database, absolute and without links.
    """
    root, path = place
    base = _inside(root or "", folder)
    if path is not None and (base is None or os.path.isabs(path)):
        full = _inside(os.path.join(root or "", path), folder)
        if full not in (None, "."):
            return ".", f"{full}/" if path.endswith("/") else full
    return root if base is None else base, path


def _inside(text: str, folder: Path) -> str | None:
    if not os.path.isabs(text):
        return None
    path = Path(text)
    inside = Path() if path == folder else relative_to(path, folder)
    return None if inside is None else str(inside)


def follow(document: dict[str, Any], stored: Place, folder: Path) -> None:
    """Let a Resource name the place where its files are now.

    It stays as it was emitted while the folder has not moved. Against which folder a
    relative place was meant, nobody knows: it is the beamtime's if the files are there.

    Parameters
    ----------
    document
        The Resource as it was emitted; changed.
    stored
        What its row says.
    folder
        Folder of the database now.
    """
    emitted = root, path = place_of(document)
    before, now = _joined("", emitted), _joined(folder, stored)
    if not all(_is_text(text) for text in emitted if text):
        # No column holds it as it is.
        return
    if stored == emitted:
        if os.path.isabs(before) or not _is_there(Path(folder, before), folder):
            return
    elif stored[1] == path:
        if root and _is_same(root, _joined(folder, (stored[0], None))):
            return
    elif _is_same(before, now):
        return
    document["root"] = str(Path(folder, stored[0] or ""))
    if stored[1] != path:
        document["resource_path"] = stored[1]


def _joined(folder: str | Path, place: Place) -> str:
    return os.path.join(folder, *(text for text in place if text))


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in path


def _is_same(emitted: str, now: str) -> bool:
    try:
        same = os.path.realpath(emitted) == os.path.realpath(now)
    except (OSError, ValueError):
        return False
    return same and os.path.isabs(emitted)


def _is_there(path: Path, folder: Path) -> bool:
    if not folder.is_absolute() or relative_to(path, folder) is None:
        return False
    return path.exists() or any(True for _ in alike(path))


def alike(path: Path) -> Iterator[Path]:
    """Yield the files whose names begin like this one.

    Some old Resources name the beginning that several files have in common.
    """
    try:
        with os.scandir(path.parent) as entries:
            for entry in entries:
                if path.name and entry.name.startswith(path.name) and entry.is_file():
                    yield Path(entry.path)
    except OSError:
        return
