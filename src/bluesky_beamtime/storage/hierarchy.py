"""The groups and arrays below a folder, also where their metadata is gone."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from bluesky_beamtime.errors import StoreReadError
from bluesky_beamtime.storage.layout import (
    LAYOUT_FILE,
    METADATA_FILE,
    read_metadata,
)

_SHARD = re.compile(r"c\.\d+(\.0)*")


def find_arrays(root: Path) -> list[Path]:
    """Return the folders of the arrays of frames below ``root``, itself included."""
    found: list[Path] = []
    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        if _is_array(Path(folder), files):
            subfolders.clear()
            found.append(Path(folder))
    return found


def _is_array(folder: Path, files: list[str]) -> bool:
    # Only arrays have a layout file and shards: they tell without the metadata too.
    if LAYOUT_FILE in files:
        return True
    if METADATA_FILE not in files:
        return any(_SHARD.fullmatch(name) for name in files)
    try:
        return read_metadata(folder).get("node_type") == "array"
    except StoreReadError:
        return False


def broken_groups(root: Path, arrays: list[Path]) -> dict[Path, StoreReadError]:
    """Return the groups whose metadata cannot be read, each with the reason.

    Folders above the topmost group of an array may be plain folders: nobody asks for
    their metadata.
    """
    broken: dict[Path, StoreReadError] = {}
    known: dict[Path, StoreReadError | None] = {}
    for array in arrays:
        above = [folder for folder in array.parents if folder.is_relative_to(root)]
        inside = False
        for folder in reversed(above):
            if folder not in known:
                known[folder] = _fault(folder)
            fault = known[folder]
            if fault is None:
                inside = True
            elif inside or folder == array.parent or fault.errno != errno.ENOENT:
                broken[folder] = fault
    for name, subfolders, files in os.walk(root):
        folder = Path(name)
        if folder in arrays:
            subfolders.clear()
        elif METADATA_FILE in files and folder not in known:
            fault = _fault(folder)
            if fault is not None:
                broken[folder] = fault
    return broken


def _fault(folder: Path) -> StoreReadError | None:
    try:
        read_metadata(folder)
    except StoreReadError as error:
        return error
    return None
