"""Values on their way: buffers, ranges, sizes, and files in pieces."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import numpy as np

from bluesky_beamtime.errors import StorageError, StoreReadError
from bluesky_beamtime.storage.backends.protocol import (
    BytesLike,
    FileBackend,
    PieceBackend,
    SizedBackend,
    StorageBackend,
)


def file_pieces(fd: int, size: int, piece: int) -> Iterator[bytes]:
    """Yield the first ``size`` bytes of an open file in pieces; fewer where it ends."""
    start = 0
    while start < size:
        data = os.pread(fd, min(piece, size - start), start)
        if not data:
            return
        start += len(data)
        yield data


def put_file(
    backend: StorageBackend,
    key: str,
    path: str | os.PathLike[str],
    size: int | None = None,
) -> int:
    """Write a file as a value, in pieces where that is possible; return the bytes.

    Parameters
    ----------
    backend, key
        Where to.
    path
        The file. It may grow meanwhile.
    size
        How much of it; by default what is there now.

    Raises
    ------
    StoreReadError
        The file cannot be read.
    """
    try:
        count = os.stat(path).st_size if size is None else size
        if isinstance(backend, FileBackend):
            backend.put_file(key, path, count)
        else:
            with open(path, "rb") as file:
                backend.put_bytes(key, file.read(count))
        return count
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StoreReadError(
            f"cannot read {os.fspath(path)!r}: {os.strerror(error.errno or 0)}",
            errno=error.errno,
            filename=os.fspath(path),
        ) from error


def put_pieces(
    backend: StorageBackend, key: str, pieces: Iterable[bytes], size: int
) -> None:
    """Write a value piece by piece where that is possible, else as a whole.

    Parameters
    ----------
    backend, key
        Where to.
    pieces
        Its bytes. They may be iterated more than once.
    size
        About what they amount to.
    """
    if isinstance(backend, PieceBackend):
        backend.put_pieces(key, pieces, size)
    else:
        backend.put_bytes(key, b"".join(pieces))


def get_size(backend: StorageBackend, key: str) -> int:
    """Return the size of a value in bytes, without reading it where possible."""
    if isinstance(backend, SizedBackend):
        return backend.get_size(key)
    return len(backend.get_bytes(key))


def as_buffer(data: BytesLike) -> memoryview:
    """Return the bytes of ``data``, in C order and without a copy where there is one.

    Raises
    ------
    TypeError
        ``data`` has no bytes of its own: text, numbers, arrays of objects.
    """
    if isinstance(data, np.ndarray):
        if data.dtype.hasobject:
            raise TypeError("an array of objects has no bytes to store")
        # Typed as Any: NumPy's arrays are buffers, its annotations say so from 3.12 on.
        flat: Any = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        return memoryview(flat)
    view = memoryview(data)
    return view.cast("B") if view.contiguous and view.ndim else memoryview(bytes(view))


def check_range(start: int, length: int) -> None:
    """Raise ``ValueError`` for a range that begins or extends below zero."""
    if start < 0 or length < 0:
        raise ValueError(
            f"a range starts and extends at zero or more, got start={start}, "
            f"length={length}"
        )


def join_url(url: str, key: str) -> str:
    """Return the URL of a key below a root's URL."""
    return f"{url}/{quote(key)}" if key else url
