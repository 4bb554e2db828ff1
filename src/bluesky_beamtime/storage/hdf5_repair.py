"""How an HDF5 file of frames is made whole again.

A writer that dies leaves the mark of an open file in the superblock (HDF5 File Format
Specification 3.0, II.A, "File Consistency Flags"), for which the HDF5 library refuses
the file to all but SWMR readers, and frames in the log that the index does not know
yet. The repair reads the log from where the index ends, adds what it finds, and takes
the mark away; it changes no byte of a frame.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_beamtime.errors import StoreReadError, StoreStateError
from bluesky_beamtime.storage.files import FolderLock, pwrite_all, write_error
from bluesky_beamtime.storage.hdf5_file import HDF5File
from bluesky_beamtime.storage.hdf5_format import (
    SUPERBLOCK_BYTES,
    SWMR_WRITING,
    Superblock,
)
from bluesky_beamtime.storage.hdf5_index import ChunkIndex
from bluesky_beamtime.storage.hdf5_layout import INDEX_ADDRESS, FileLayout, State
from bluesky_beamtime.storage.hdf5_log import HEADER_BYTES, Record, aligned
from bluesky_beamtime.storage.hdf5_look import (
    bytes_cut,
    first_page,
    header_matches,
    look,
    opened,
    own_layout,
    state_of,
)
from bluesky_beamtime.storage.hdf5_places import IndexDamagedError
from bluesky_beamtime.storage.hdf5_tail import read_tail
from bluesky_beamtime.storage.hdf5_verify import file_name
from bluesky_beamtime.storage.integrity import ArrayReport, StoreReport


def repair_hdf5(path: Path, root: Path, report: StoreReport) -> None:
    """Mend one file of frames; see :func:`~bluesky_beamtime.storage.repair_store`.

    Nothing is done to a closed file. A file that another program wrote is opened for
    readers again only if it was asked for itself, as ``root``.

    Raises
    ------
    StoreStateError
        A live process is writing it.
    StoreWriteError
        The disk refused.
    """
    name = file_name(path, root)
    try:
        with opened(path) as fd:
            layout = own_layout(fd)
            superblock = Superblock.from_bytes(os.pread(fd, SUPERBLOCK_BYTES, 0))
            if layout is None:
                if path == root:
                    _clear_mark(path, superblock, report)
                return
            found = report.arrays[name] = ArrayReport(str(path))
            page = first_page(fd)
            state = state_of(page)
            closed = state is not None and state.closed
            matches = state is not None and header_matches(page, layout, state)
            if superblock is not None and superblock.flags == 0:
                found.published = found.written = state.count if state else 0
                whole = closed and _is_whole(fd, layout)
                # What others have changed is theirs.
                if not matches or (whole and not bytes_cut(fd, superblock)):
                    return
    except StoreReadError as error:
        report.problems.append(str(error))
        return
    if closed and not matches:
        report.problems.append(
            f"{name}: another program has changed it and left it open; "
            "'h5clear -s' takes the mark away if that program is gone"
        )
        return
    with _locked(path.parent):
        _recover(path, name, layout, superblock, report, found)


def _is_whole(fd: int, layout: FileLayout) -> bool:
    try:
        state, view = look(fd, layout)
        view.lookup(np.arange(state.count))
    except IndexDamagedError:
        return False
    return True


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Keep writers out of a folder."""
    try:
        lock = FolderLock(folder)
    except OSError as error:
        raise write_error("the lock file", folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _recover(
    path: Path,
    name: str,
    layout: FileLayout,
    superblock: Superblock | None,
    report: StoreReport,
    found: ArrayReport,
) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise write_error("a repaired file", path, error) from error
    try:
        state, index, position = _index(fd, layout, bytes_cut(fd, superblock) > 0)
        known, found.published = index.count, state.count
        tail = read_tail(fd, layout, position)
        file = HDF5File(
            path,
            fd,
            layout,
            replace(state, count=known),
            superblock or Superblock(layout.root, layout.log_start, SWMR_WRITING),
            index=index,
            attributes=_attributes(fd, layout, state),
            recovered=True,
        )
        # A power cut may have torn the slot that is in use: both are made whole.
        file.set_attributes({})
    except BaseException:
        os.close(fd)
        raise
    try:
        file.recover(tail.frames, tail.blocks)
    except BaseException:
        # Still marked, so that the next repair does it.
        file.abandon()
        raise
    # This publishes the frames and takes the mark of the writer away.
    file.close()
    found.written = file.length
    found.damaged = tail.damaged
    found.missing = sorted(set(range(known, file.length)) - set(tail.frames))
    if file.length < found.published:
        report.problems.append(
            f"{name}: {found.published - file.length} frames at the end are gone"
        )
    if found.damaged:
        report.problems.append(
            f"{name}: {len(found.damaged)} frames are damaged and left out, "
            f"the first is {found.damaged[0]}"
        )
    if found.missing:
        report.problems.append(
            f"{name}: {len(found.missing)} frames are missing, "
            f"the first is {found.missing[0]}"
        )
    report.repaired.append(
        f"{name}: {max(0, file.length - found.published)} frames more can be read, "
        f"{file.length} in all; it is open to every reader again"
    )
    found.published = file.length


def _index(fd: int, layout: FileLayout, cut: bool) -> tuple[State, ChunkIndex, int]:
    """Return the state, the index, and where the log goes on behind it.

    The index is taken over up to the first frame that it does not lead to. A power cut
    can leave an older version of a block, or none; the log knows what was in it.
    """
    try:
        if cut:
            raise IndexDamagedError("the end of the file is missing")
        state, view = look(fd, layout)
    except IndexDamagedError:
        state = state_of(first_page(fd)) or layout.first
        index = ChunkIndex(INDEX_ADDRESS, layout.size_bytes)
        return state, index, layout.log_start

    def base_of(pointer: int, size: int) -> int:
        head = os.pread(fd, HEADER_BYTES, pointer - HEADER_BYTES)
        first = Record.from_bytes(head, layout.nonce)
        return pointer if first is not None else pointer - size

    whole = view.whole()
    index = ChunkIndex.load(INDEX_ADDRESS, view, whole, base_of)
    if whole == state.count:
        return state, index, state.position
    if whole == 0:
        return state, index, layout.log_start
    addresses, sizes = view.lookup(np.array([whole - 1]))
    size = int(sizes[0]) or layout.frame_bytes
    return state, index, aligned(int(addresses[0]) + size)


def _attributes(fd: int, layout: FileLayout, state: State) -> dict[str, Any]:
    """Return the attributes from the newest slot that is whole."""
    for candidate in (state, replace(state, slot=1 - state.slot), layout.first):
        size = candidate.block_bytes + candidate.text_bytes
        data = os.pread(fd, size, candidate.slot_address)
        text = data[candidate.block_bytes :].rstrip(b"\0")
        try:
            attributes: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        sizes = candidate.block_bytes, candidate.text_bytes
        if data.startswith(layout.attribute_slot(attributes, *sizes) or b"-"):
            return attributes
    return {}


def _clear_mark(path: Path, superblock: Superblock | None, report: StoreReport) -> None:
    """Take the mark of a dead writer from a file that another program wrote.

    Its superblock may say an end that lies before the last chunks, which the library
    would then write over; so the end becomes that of the file.
    """
    name = path.name
    if superblock is None:
        # Another kind of file, or one of a version that has no such mark.
        return
    report.arrays[name] = ArrayReport(str(path))
    if superblock.flags == 0:
        return
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _check_unlocked(fd, path)
            size = os.fstat(fd).st_size
            if superblock.end > size:
                report.problems.append(
                    f"{name}: {superblock.end - size} bytes are missing at its end"
                )
                return
            data = replace(superblock, flags=0, end=size).to_bytes()
            pwrite_all(fd, [data], len(data), 0)
            os.fdatasync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise write_error("a superblock", path, error) from error
    report.repaired.append(f"{name}: it is open to every reader again")


def _check_unlocked(fd: int, path: Path) -> None:
    """Refuse a file on which the HDF5 library of a live process holds its lock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StoreStateError(
            f"another process has {str(path)!r} open; close it there first"
        ) from error
