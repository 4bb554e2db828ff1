"""Places for archives: opened by their URL, and not inside what is archived."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bluesky_beamtime.errors import ArchiveError
from bluesky_beamtime.exports.belongings import Belongings
from bluesky_beamtime.storage.backends import (
    LocalBackend,
    StorageBackend,
    open_backend,
)
from bluesky_beamtime.storage.backends.registry import scheme_of


@contextmanager
def open_place(
    url: str | os.PathLike[str] | StorageBackend, options: Mapping[str, Any]
) -> Generator[StorageBackend]:
    """Lend the backend of a URL; one that is given stays open afterwards.

    Raises
    ------
    UnsupportedFormatError, PathError, MissingExtraError
        It cannot be opened.
    """
    if not isinstance(url, (str, os.PathLike)):
        yield url
        return
    # A copy for keeps is on the disk itself before it is called one.
    usual = {"durability": "power"} if scheme_of(os.fspath(url)) == "file" else {}
    with open_backend(url, **{**usual, **options}) as backend:
        yield backend


def check_place(backend: StorageBackend, belongings: Belongings) -> None:
    """Raise if an archive would be a part of itself.

    Raises
    ------
    ArchiveError
        It would.
    """
    if not isinstance(backend, LocalBackend):
        return
    root = Path(backend.root)
    own = [
        belongings.database.with_name(f"{belongings.stem}{end}")
        for end in (".zarr", "_files")
    ]
    for folder in (*own, *(asset.path for asset in belongings.assets)):
        if root.is_relative_to(folder.resolve()):
            raise ArchiveError(
                f"{backend.url} lies inside of {str(folder)!r}, which is to be "
                "archived; choose a place outside, best on another disk",
                filename=backend.url,
            )
