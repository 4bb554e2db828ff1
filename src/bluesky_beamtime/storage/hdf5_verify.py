"""Whether an HDF5 file of frames is whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bluesky_beamtime.errors import MissingExtraError, StorageError
from bluesky_beamtime.storage.files import FolderLock
from bluesky_beamtime.storage.hdf5_dataset import HDF5Dataset
from bluesky_beamtime.storage.hdf5_format import (
    SUPERBLOCK_BYTES,
    UNDEFINED,
    Superblock,
)
from bluesky_beamtime.storage.hdf5_layout import DATASET
from bluesky_beamtime.storage.hdf5_look import (
    bytes_cut,
    first_page,
    header_matches,
    is_ours,
    look,
    opened,
    own_layout,
    state_of,
)
from bluesky_beamtime.storage.hdf5_places import IndexDamagedError
from bluesky_beamtime.storage.hdf5_reader import HDF5Frames
from bluesky_beamtime.storage.hdf5_tail import read_tail
from bluesky_beamtime.storage.integrity import (
    ArrayReport,
    StoreReport,
    damaged_frames,
)


def hdf5_files(root: Path) -> list[Path]:
    """Return the HDF5 files below a folder, or the one that ``root`` is itself."""
    if root.is_file():
        return [root]
    return sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if name.endswith(".h5")
    )


def file_name(path: Path, root: Path) -> str:
    """Return what a report calls a file that was asked for by ``root``."""
    return path.name if path == root else os.path.relpath(path, root)


def verify_hdf5(
    path: Path, root: Path, report: StoreReport, *, checksums: bool = True
) -> None:
    """Check one file of frames; see :func:`~bluesky_beamtime.storage.verify_store`.

    Files that other programs wrote or changed are left to them.
    """
    name = file_name(path, root)
    # Asked before anything is read: a writer that ends meanwhile has published.
    live = FolderLock.is_held(path.parent)
    try:
        with opened(path) as fd:
            layout = own_layout(fd)
            if layout is None:
                return
            found = report.arrays[name] = ArrayReport(str(path))
            if not is_ours(fd):
                if state_of(first_page(fd)) is None:
                    report.problems.append(
                        f"{name}: its state is damaged; its frames can be read with "
                        "the HDF5 library"
                    )
                found.published = found.written = len(HDF5Dataset(path, DATASET))
                return
            superblock = Superblock.from_bytes(os.pread(fd, SUPERBLOCK_BYTES, 0))
            cut = bytes_cut(fd, superblock)
            state, view = look(fd, layout)
            addresses, _ = view.lookup(np.arange(state.count))
            tail = read_tail(fd, layout, state.position)
            intact = live or header_matches(first_page(fd), layout, state)
    except MissingExtraError:
        # Others have changed it, and only the HDF5 library can tell how.
        return
    except (StorageError, IndexDamagedError) as error:
        report.problems.append(f"{name}: {error}; repair_store() makes its index anew")
        return
    found.published = state.count
    found.written = max(tail.frames, default=state.count - 1) + 1
    found.missing = np.flatnonzero(addresses == UNDEFINED).tolist()
    if live:
        pass
    elif found.written > found.published:
        report.problems.append(
            f"{name}: {found.written} frames are written, readers see "
            f"{found.published}; repair_store() mends it"
        )
    elif superblock is None or superblock.flags or not intact:
        report.problems.append(
            f"{name}: its writer died; repair_store() opens it for every reader again"
        )
    if cut:
        report.problems.append(f"{name}: {cut} bytes are missing at its end")
    if found.missing:
        report.problems.append(
            f"{name}: {len(found.missing)} frames are missing, "
            f"the first is {found.missing[0]}"
        )
    if checksums:
        found.damaged = damaged_frames(HDF5Frames(path), set(found.missing))
    if not live:
        found.damaged += [n for n in tail.damaged if n >= found.written]
    if found.damaged:
        report.problems.append(
            f"{name}: {len(found.damaged)} frames are damaged, "
            f"the first is {found.damaged[0]}"
        )
