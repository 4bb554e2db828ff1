"""Space kept back so that the last length can still be published on a full disk."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from bluesky_beamtime.storage.files import replace_file
from bluesky_beamtime.storage.layout import METADATA_FILE

RESERVE_FILE = ".reserve"
"""Name of the file that holds the space, in the folder of each array."""

_BYTES = 1 << 14


def replace_metadata(folder: Path, data: bytes, *, sync: bool, first: bool) -> None:
    """Replace the metadata of an array, at the price of the reserve on a full disk.

    Parameters
    ----------
    folder
        Folder of the array.
    data
        What the file shall hold.
    sync
        Also fsync it.
    first
        Keep the reserve back, once the file is there.

    Raises
    ------
    OSError
        The disk refused; the file is as it was.
    """
    path = folder / METADATA_FILE
    reserve = folder / RESERVE_FILE
    try:
        replace_file(path, data, sync=sync)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        try:
            os.unlink(reserve)
        except OSError:
            raise error from None
        replace_file(path, data, sync=sync)
        # Before a frame takes what is free again.
        _make_reserve(reserve)
        return
    if first:
        _make_reserve(reserve)


def drop_reserve(folder: Path) -> None:
    """Give back the space of an array that is closed."""
    with suppress(OSError):
        os.unlink(folder / RESERVE_FILE)


def _make_reserve(path: Path) -> None:
    """Keep some space back; a disk that cannot give even that is left alone."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.posix_fallocate(fd, 0, _BYTES)
        finally:
            os.close(fd)
    except OSError:
        with suppress(OSError):
            os.unlink(path)
