"""Scans that a process left behind when it was killed: found, and made files of."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from bluesky_beamtime.errors import StoreStateError
from bluesky_beamtime.storage.files import FolderLock, write_error
from bluesky_beamtime.storage.scan_buffer import STORE, ScanBuffer, remove_folder
from bluesky_beamtime.storage.scan_names import RESERVED, SUFFIXES, ScanPlace


def find_leftovers(folder: Path) -> list[Path]:
    """Return the workshops in a folder that hold a scan and no live process, sorted.

    Raises
    ------
    StoreWriteError
        The folder cannot be read.
    """
    try:
        found = [entry for entry in folder.iterdir() if entry.suffix == RESERVED]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise write_error("a scan", folder, error) from error
    return sorted(
        workshop
        for workshop in found
        if (workshop / STORE / "zarr.json").exists()
        and not FolderLock.is_held(workshop)
    )


def take_over(workshop: Path, kind: str) -> ScanBuffer | None:
    """Return the buffer of a scan that was left behind; None if nothing is to be saved.

    That is so if nothing had been measured, or if it was saved and only the workshop
    was left: it is removed then.

    Parameters
    ----------
    workshop
        From :func:`find_leftovers`.
    kind
        Format of the file that it shall become.

    Raises
    ------
    StoreReadError
        It cannot be read, and was left alone.
    """
    target = workshop.with_suffix(SUFFIXES[kind])
    try:
        buffer = ScanBuffer.reopen(ScanPlace(target, workshop, None))
    except StoreStateError:
        # Another process was quicker.
        return None
    if buffer.covered and not _was_saved(workshop):
        return buffer
    buffer.release()
    return None


def clear_emptied(folder: Path) -> None:
    """Remove workshops whose scan has become a file, but for the last step."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for workshop in folder.iterdir():
            if (
                workshop.suffix == RESERVED
                and workshop.with_suffix(SUFFIXES["zarr"]).exists()
                and not (workshop / STORE).exists()
                and not FolderLock.is_held(workshop)
            ):
                remove_folder(workshop)


def _was_saved(workshop: Path) -> bool:
    """Say whether the file in the workshop has its own name already."""
    for suffix in SUFFIXES.values():
        made, target = workshop / f"scan{suffix}", workshop.with_suffix(suffix)
        with suppress(OSError):
            if made.is_file() and made.samefile(target):
                return True
    return False
