"""What files take on the disk."""

from __future__ import annotations

import os
import time
from pathlib import Path


def folder_size(folder: Path, deadline: float) -> tuple[int, bool]:
    """Return the bytes below a folder, and whether all of it was seen in time."""
    total, folders = 0, [os.fspath(folder)]
    while folders:
        if time.monotonic() > deadline:
            return total, False
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            # Removed meanwhile, or not ours to look into.
            continue
    return total, True


def human_size(size: float) -> str:
    """Return a number of bytes as people write it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return (
                f"{size:.0f} {unit}"
                if unit == "B" or size >= 10
                else f"{size:.1f} {unit}"
            )
        size /= 1000
    return f"{size:.1f} TB"
