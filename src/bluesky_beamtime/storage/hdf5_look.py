"""A look at an HDF5 file of frames: whose it is, how far it has come."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from bluesky_beamtime.errors import StoreReadError
from bluesky_beamtime.storage.hdf5_format import SIGNATURE, Superblock
from bluesky_beamtime.storage.hdf5_index_view import IndexView
from bluesky_beamtime.storage.hdf5_layout import (
    HEADER_ADDRESS,
    IDENTITY_ADDRESS,
    INDEX_ADDRESS,
    STATE_ADDRESS,
    FileLayout,
    State,
)
from bluesky_beamtime.storage.hdf5_places import IndexDamagedError

# A reader that looks while a page is replaced looks again; that takes a microsecond.
ATTEMPTS = 32


@contextmanager
def opened(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> Generator[int]:
    """Open a file for a moment.

    Raises
    ------
    StoreReadError
        It cannot be opened or read.
    """
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        if isinstance(error, StoreReadError):
            raise
        raise StoreReadError(
            f"cannot read {os.fspath(path)!r}: {os.strerror(error.errno or 0)}",
            errno=error.errno,
            filename=os.fspath(path),
        ) from error


def own_layout(fd: int) -> FileLayout | None:
    """Return the layout of an open file; None if this package did not write it."""
    if os.pread(fd, len(SIGNATURE), 0) != SIGNATURE:
        return None
    return FileLayout.read(fd)


def is_ours(fd: int) -> bool:
    """Say whether a file holds what this package wrote, and nobody changed it since.

    Other programs may open a closed file for writing. What they add beside the dataset
    does not matter; when they change the dataset, only the HDF5 library can tell how.
    """
    layout = own_layout(fd)
    if layout is None:
        return False
    page = first_page(fd)
    superblock = Superblock.from_bytes(page)
    if superblock is None or superblock.flags:
        # Being written, or left by a writer that died.
        return True
    state = state_of(page)
    return state is not None and header_matches(page, layout, state)


def first_page(fd: int) -> bytes:
    """Return where a file says how far it has come, read at one moment."""
    return os.pread(fd, IDENTITY_ADDRESS, 0)


def state_of(page: bytes) -> State | None:
    """Return the state that a first page tells; None if it is damaged."""
    return State.from_bytes(page[STATE_ADDRESS:INDEX_ADDRESS])


def header_matches(page: bytes, layout: FileLayout, state: State) -> bool:
    """Say whether the dataset's header in a first page is as it was written."""
    header = layout.dataset_header(state.count, state)
    return page[HEADER_ADDRESS : HEADER_ADDRESS + len(header)] == header


def bytes_cut(fd: int, superblock: Superblock | None) -> int:
    """Return how many bytes of a file are missing at its end."""
    end = superblock.end if superblock is not None else 0
    return max(0, end - os.fstat(fd).st_size)


def look(fd: int, layout: FileLayout) -> tuple[State, IndexView]:
    """Return the state of a file and its index, both of the same moment.

    Raises
    ------
    IndexDamagedError
        They are not what was written.
    """
    for attempt in range(ATTEMPTS):
        page = first_page(fd)
        state = state_of(page)
        try:
            view = IndexView(
                page[INDEX_ADDRESS : layout.head_end],
                layout.size_bytes,
                lambda address, size: os.pread(fd, size, address),
            )
        except IndexDamagedError:
            if attempt == ATTEMPTS - 1:
                raise
            continue
        if state is not None and state.count == view.count:
            return state, view
    raise IndexDamagedError("its state is damaged")
