"""Whether a store is whole, and how it is made whole again."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_beamtime.errors import StorageError, StoreReadError, StoreStateError
from bluesky_beamtime.storage.extent import shard_presence, written_frames
from bluesky_beamtime.storage.files import PARTIAL_SUFFIX, FolderLock, replace_file
from bluesky_beamtime.storage.hierarchy import broken_groups, find_arrays
from bluesky_beamtime.storage.layout import (
    LAYOUT_FILE,
    METADATA_FILE,
    ArrayLayout,
    create_group,
    read_metadata,
)
from bluesky_beamtime.storage.paths import from_uri
from bluesky_beamtime.storage.reader import FrameArray
from bluesky_beamtime.storage.reserve import RESERVE_FILE
from bluesky_beamtime.storage.sharded_array import ShardedArray

# No small file takes that long to replace.
_SECONDS_TO_FINISH = 60


@dataclass
class ArrayReport:
    """What was found in one array."""

    path: str
    """Folder of the array."""
    published: int = 0
    """Length that readers see."""
    written: int = 0
    """Frames up to and with the last one that is there."""
    missing: list[int] = field(default_factory=list[int])
    """Frames below that count that are not there."""
    damaged: list[int] = field(default_factory=list[int])
    """Frames whose bytes are not those that were written."""


@dataclass
class StoreReport:
    """What :func:`verify_store` or :func:`repair_store` found."""

    uri: str
    """The store."""
    arrays: dict[str, ArrayReport] = field(default_factory=dict[str, ArrayReport])
    """By path below the store."""
    problems: list[str] = field(default_factory=list[str])
    """One sentence each."""
    repaired: list[str] = field(default_factory=list[str])
    """What was changed, one sentence each."""
    skipped: list[str] = field(default_factory=list[str])
    """What :func:`repair_store` left to the live process that writes it."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_store(uri: str | os.PathLike[str], *, checksums: bool = True) -> StoreReport:
    """Check every array of frames below a store; changes nothing.

    Parameters
    ----------
    uri
        URI or path of a store, an array, or a folder above several.
    checksums
        Read every frame and check it, which takes as long as reading the data.

    Returns
    -------
    StoreReport
        ``report.ok`` and ``report.problems``.
    """
    from bluesky_beamtime.storage.hdf5_verify import hdf5_files, verify_hdf5

    root = Path(from_uri(os.fspath(uri)))
    report = StoreReport(os.fspath(uri))
    files = hdf5_files(root)
    for file in files:
        verify_hdf5(file, root, report, checksums=checksums)
    arrays = find_arrays(root)
    _check_is_store(root, files, arrays, report)
    report.problems += map(str, broken_groups(root, arrays).values())
    for folder in arrays:
        name = os.path.relpath(folder, root)
        try:
            _verify_array(folder, name, report, checksums=checksums)
        except StorageError as error:
            report.problems.append(str(error))
        except OSError as error:
            report.problems.append(f"{name}: cannot be read: {error}")
    return report


def _check_is_store(
    root: Path, files: list[Path], arrays: list[Path], report: StoreReport
) -> None:
    """Raise :class:`StoreReadError` where there is nothing to look at."""
    if not files and not arrays:
        read_metadata(root)
    if files == [root] and not report.arrays and not report.problems:
        raise StoreReadError(f"{str(root)!r} is no file of frames", filename=str(root))


def _verify_array(
    folder: Path, name: str, report: StoreReport, *, checksums: bool
) -> None:
    # Asked before anything is read: a writer that ends meanwhile has published.
    live = FolderLock.is_held(folder)
    array = report.arrays[name] = ArrayReport(str(folder))
    frames = FrameArray(folder)
    layout = ArrayLayout.from_json(read_metadata(folder), str(folder))
    array.published = len(frames)
    array.written = written_frames(folder, layout)
    array.missing = _missing(folder, layout, max(array.published, array.written))
    if array.published < array.written and not live:
        report.problems.append(
            f"{name}: {array.written} frames are written, readers see "
            f"{array.published}; repair_store() mends it"
        )
    if array.missing:
        report.problems.append(
            f"{name}: {len(array.missing)} frames are missing, "
            f"the first is {array.missing[0]}"
        )
    if checksums:
        array.damaged = damaged_frames(frames, set(array.missing))
        if array.damaged:
            report.problems.append(
                f"{name}: {len(array.damaged)} frames are damaged, "
                f"the first is {array.damaged[0]}"
            )


def _missing(folder: Path, layout: ArrayLayout, length: int) -> list[int]:
    missing: list[int] = []
    for start in range(0, length, layout.frames_per_shard):
        number = start // layout.frames_per_shard
        there = shard_presence(folder, layout, number)[: length - start]
        missing += (start + np.flatnonzero(~there)).tolist()
    return missing


def damaged_frames(frames: FrameArray, missing: set[int]) -> list[int]:
    """Return the numbers of frames that are there and cannot be read."""
    damaged: list[int] = []
    for number in range(len(frames)):
        if number not in missing:
            try:
                frames[number]
            except StoreReadError:
                damaged.append(number)
    return damaged


def repair_store(uri: str | os.PathLike[str]) -> StoreReport:
    """Bring the length of every array below a store up to its written frames.

    No frame is ever removed. What cannot be mended stands in ``problems``. Below a
    folder with several stores those that a live process is writing are left alone, and
    stand in ``skipped``.

    Parameters
    ----------
    uri
        URI or path of a store, an array, or a folder above several.

    Raises
    ------
    StoreStateError
        A live process is writing the store, or every store below the folder.
    """
    from bluesky_beamtime.storage.hdf5_repair import repair_hdf5
    from bluesky_beamtime.storage.hdf5_verify import hdf5_files

    root = Path(from_uri(os.fspath(uri)))
    report = StoreReport(os.fspath(uri))
    files = hdf5_files(root)
    live: dict[Path, StoreStateError] = {}
    for file in files:
        try:
            repair_hdf5(file, root, report)
        except StoreStateError as error:
            report.arrays.pop(os.path.relpath(file, root), None)
            live[file] = error
    found = find_arrays(root)
    _check_is_store(root, files, found, report)
    arrays: list[Path] = []
    for array in found:
        held = next(filter(FolderLock.is_held, (array, array.parent)), None)
        if held is None:
            arrays.append(array)
        else:
            live[held] = StoreStateError(
                f"a live process is writing {str(held)!r}; close it before the repair"
            )
    if live and not arrays and len(files) == sum(file in live for file in files):
        raise next(iter(live.values()))
    report.skipped += map(str, live.values())
    for folder, fault in broken_groups(root, arrays).items():
        if fault.errno in (None, errno.ENOENT) and _holds_any(folder, arrays):
            _repair_group(folder, root, report)
        else:
            report.problems.append(str(fault))
    for folder in arrays:
        _repair_array(folder, root, report)
    _remove_remains(root, live)
    return report


def _holds_any(folder: Path, arrays: list[Path]) -> bool:
    return any(folder in array.parents for array in arrays)


def _remove_remains(root: Path, live: Container[Path]) -> None:
    """Remove what dead writers have left: locks, reserves, files that were not done."""
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if Path(folder, name) not in live]
        if FolderLock.NAME in names:
            # Taken before it is removed, so that none is taken from a writer.
            with suppress(StoreStateError, OSError):
                FolderLock(Path(folder)).release()
        for name in names:
            path = Path(folder, name)
            if name == RESERVE_FILE or _is_forgotten(path):
                with suppress(OSError):
                    path.unlink()


def _is_forgotten(path: Path) -> bool:
    if not (path.name.startswith(".") and path.name.endswith(PARTIAL_SUFFIX)):
        return False
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > _SECONDS_TO_FINISH
    return False


def _repair_array(folder: Path, root: Path, report: StoreReport) -> None:
    name = os.path.relpath(folder, root)
    found = report.arrays[name] = ArrayReport(str(folder))
    try:
        metadata = _metadata_or_copy(folder, name, report)
        layout = ArrayLayout.from_json(metadata, str(folder))
    except StorageError as error:
        report.problems.append(str(error))
        return
    found.published = int(metadata["shape"][0])
    found.written = written_frames(folder, layout)
    found.missing = _missing(folder, layout, max(found.published, found.written))
    if found.missing:
        report.problems.append(
            f"{name}: {len(found.missing)} frames are missing, "
            f"the first is {found.missing[0]}"
        )
    if found.written > found.published:
        ShardedArray.open(folder).close()
        report.repaired.append(
            f"{name}: {found.written - found.published} frames more can be read, "
            f"{found.written} in all"
        )
        found.published = found.written


def _metadata_or_copy(folder: Path, name: str, report: StoreReport) -> dict[str, Any]:
    """Return an array's metadata, put back from its copy if a power cut took it."""
    try:
        metadata = read_metadata(folder)
        ArrayLayout.from_json(metadata, str(folder))
    except StoreReadError:
        if not (folder / LAYOUT_FILE).exists():
            raise
        metadata = read_metadata(folder, LAYOUT_FILE)
        layout = ArrayLayout.from_json(metadata, str(folder))
        attributes = metadata.get("attributes", {})
        replace_file(folder / METADATA_FILE, layout.to_json(0, attributes), sync=True)
        report.repaired.append(f"{name}: its metadata was put back from the copy")
    return metadata


def _repair_group(folder: Path, root: Path, report: StoreReport) -> None:
    """Put back the metadata of a group that a power cut took."""
    with suppress(FileNotFoundError):
        (folder / METADATA_FILE).unlink()
    create_group(folder, sync=True)
    name = os.path.relpath(folder, root)
    report.repaired.append(f"{name}: is a group again; its attributes are lost")
