"""Where a scan's file goes, and numbers that no two processes get."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bluesky_beamtime.errors import PathError
from bluesky_beamtime.storage.files import write_error
from bluesky_beamtime.storage.paths import check_name

SUFFIXES = {"zarr": ".zarr", "npz": ".npz", "hdf5": ".h5"}
RESERVED = ".partial"
_TAKEN = "|".join(re.escape(suffix) for suffix in (*SUFFIXES.values(), RESERVED))


@dataclass(frozen=True)
class ScanPlace:
    """One reserved place for one scan.

    Attributes
    ----------
    target : Path
        The file, or for Zarr the folder, that the scan becomes when it is saved.
    workshop : Path
        The folder that holds the buffer until then; creating it is the reservation.
    number : int or None
        Number of the scan, None without numbering.
    """

    target: Path
    workshop: Path
    number: int | None


def scan_folder(base: str | os.PathLike[str], folder: str) -> Path:
    """Return ``base/folder``, absolute; ``folder`` may have parts, but no ``..``.

    Raises
    ------
    PathError
        The folder would lead out of the base, no file system takes its name, or the
        base is in the home of nobody or below a current folder that is gone.
    """
    try:
        place = Path(base).expanduser().absolute()
    except RuntimeError as error:
        raise PathError(
            f"the base {os.fspath(base)!r} names somebody without a home folder; "
            "write the folder in full"
        ) from error
    except FileNotFoundError as error:
        raise PathError(
            f"the base {os.fspath(base)!r} is below the current folder, which is gone; "
            "write the folder in full, or change to one that is there"
        ) from error
    if "\0" in os.fspath(base):
        raise PathError(f"the base {os.fspath(base)!r} has a NUL, which no path may")
    if os.path.isabs(folder):
        raise PathError(
            f"the folder {folder!r} is absolute; make it the base, and the folder ''"
        )
    for part in folder.split("/"):
        if part:
            place /= check_name(part, "the folder")
    return place


def check_folder(base: str | os.PathLike[str], folder: str) -> None:
    """Check that scans may go to ``base/folder``, be it there already or not.

    Raises
    ------
    PathError
        :func:`scan_folder` refuses it, or a part of it is a file.
    """
    place = scan_folder(base, folder)
    for part in (place, *place.parents):
        if os.path.isdir(part):
            return
        # Not a link to nowhere: its disk may not be there yet.
        if os.path.exists(part):
            raise PathError(
                f"scans cannot go to {str(place)!r}: {str(part)!r} is no folder; "
                "choose another one, or move what is there away"
            )


def next_number(folder: Path, name: str) -> int:
    """Return the highest number that ``name`` has in ``folder`` plus one, 0 for none.

    Scans in every format count, and those that are reserved or were cut off.
    """
    pattern = re.compile(re.escape(name) + r"_([0-9]{1,9})(?:" + _TAKEN + ")")
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise write_error("a scan", folder, error) from error
    found = (pattern.fullmatch(entry) for entry in names)
    return max((int(match[1]) for match in found if match), default=-1) + 1


def reserve_place(folder: Path, name: str, kind: str, *, numbered: bool) -> ScanPlace:
    """Create the workshop of the next scan, which reserves its name on disk.

    Raises
    ------
    PathError
        Without numbering: a scan of that name is there or being taken.
    StoreWriteError
        The folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = next_number(folder, name) if numbered else None
        while True:
            stem = name if number is None else f"{name}_{number}"
            place = ScanPlace(
                folder / (stem + SUFFIXES[kind]), folder / (stem + RESERVED), number
            )
            if _create(place, folder, stem):
                return place
            if number is None:
                raise PathError(
                    f"{str(place.target)!r} exists or is being taken, and numbering "
                    "is off; choose another name, switch numbering on, or move what "
                    "is there away"
                )
            number += 1
    except OSError as error:
        raise write_error("a scan", folder, error) from error


def _create(place: ScanPlace, folder: Path, stem: str) -> bool:
    try:
        place.workshop.mkdir()
    except FileExistsError:
        return False
    # Another process may have saved its scan since we looked for the number.
    if any((folder / (stem + suffix)).exists() for suffix in SUFFIXES.values()):
        with suppress(FileNotFoundError):
            place.workshop.rmdir()
        return False
    return True
