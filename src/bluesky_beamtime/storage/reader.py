"""Frames back from disk: lazily, in parallel, and never a frame that is not there."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bluesky_beamtime.errors import (
    FrameReadError,
    PathError,
    StoreReadError,
    UnsupportedFormatError,
)
from bluesky_beamtime.storage.codecs import (
    CHECKSUM_BYTES,
    checksum,
    checksum_error,
)
from bluesky_beamtime.storage.layout import ArrayLayout, read_metadata
from bluesky_beamtime.storage.paths import from_uri
from bluesky_beamtime.storage.shards import ABSENT, index_bytes, read_index

# One call of preadv takes at most 1024 buffers; a frame has up to two.
_MOST_FRAMES = 500


class FrameArray:
    """A stored array of frames that is read where it is indexed.

    It looks like a NumPy array with a leading frame axis: ``frames[3]``,
    ``frames[10:20, :, ::2]``, ``frames[[1, 5]]``. Thread-safe and picklable; it holds
    no open file.

    Attributes
    ----------
    path : str
        Folder of the array.
    dtype : numpy.dtype
        Dtype of a frame.
    chunk_shape : tuple of int
        What is read at the least.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._folder = Path(path)
        self._refreshing = threading.Lock()
        self._length = 0
        self.refresh()

    def refresh(self) -> int:
        """Look again how many frames there are and return their number.

        Raises
        ------
        StoreReadError
            The array is not there, or not one of ours.
        """
        metadata = read_metadata(self._folder)
        layout = ArrayLayout.from_json(metadata, self.path)
        with self._refreshing:
            self._layout = layout
            # Another thread may have seen more meanwhile; a length never shrinks.
            if metadata["shape"][0] >= self._length:
                self._length = int(metadata["shape"][0])
                self.attrs: dict[str, Any] = metadata.get("attributes", {})
            return self._length

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of a frame, in native byte order."""
        return self._layout.dtype.newbyteorder("=")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape with the frames' axis first."""
        return (self._length, *self._layout.shape)

    @property
    def ndim(self) -> int:
        """Number of axes, that of the frames included."""
        return 1 + len(self._layout.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes when read."""
        return self.size * self.dtype.itemsize

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of what is read at the least: one frame."""
        return self._layout.chunk_shape

    @property
    def units(self) -> str | None:
        """Units of the values."""
        return self.attrs.get("units")

    @property
    def dims(self) -> tuple[str, ...] | None:
        """Names of all dimensions."""
        return self._layout.dimension_names

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read frames; the first index chooses them, the others cut them.

        What NumPy returns for the same index is returned, but for new axes, and for
        masks over more than the frames as the first index.

        Raises
        ------
        FrameReadError
            A frame below the published length is missing or damaged.
        IndexError
            There is no such frame.
        """
        first, rest = _split_key(key, self.ndim)
        wanted = np.arange(self._length)[first]
        frames = self.read(wanted.reshape(-1))
        if isinstance(first, slice):
            return frames[(slice(None), *rest)] if rest else frames
        if wanted.ndim == 1 and all(isinstance(part, slice) for part in rest):
            return frames[(slice(None), *rest)] if rest else frames
        # Here NumPy joins the indices of several axes: the frames that were read are
        # put in the place of those that were asked for.
        place: Any = 0 if wanted.ndim == 0 else np.arange(wanted.size)
        return frames[(np.reshape(place, wanted.shape)[()], *rest)]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        if copy is False:
            raise ValueError("frames on disk cannot become an array without a copy")
        array = self[:]
        return array if dtype is None else array.astype(dtype, copy=False)

    def read(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Read the frames of the given numbers, in that order.

        Uncompressed frames go from the file into the result without a copy.

        Raises
        ------
        FrameReadError
            A frame below the published length is missing or damaged.
        IndexError
            A negative number, or one that is not published.
        """
        layout = self._layout
        out = np.empty((len(indices), *layout.shape), layout.dtype)
        numbers = np.asarray(indices, np.int64)
        wrong = numbers[(numbers < 0) | (numbers >= self._length)]
        if wrong.size:
            raise IndexError(f"{self.path!r} has {self._length} frames, no {wrong[0]}")
        shards = numbers // layout.frames_per_shard
        # Runs of frames in the same shard, in the order asked for.
        edges = np.flatnonzero(np.diff(shards)) + 1
        for rows in np.split(np.arange(len(numbers)), edges):
            if rows.size:
                self._read_shard(int(shards[rows[0]]), numbers[rows], out[rows[0] :])
        return out.astype(self.dtype, copy=False)

    def _read_shard(
        self, shard: int, numbers: NDArray[np.int64], out: NDArray[Any]
    ) -> None:
        layout = self._layout
        path = self._folder / layout.shard_name(shard)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise FrameReadError(
                f"frames {numbers[0]} to {numbers[-1]} of {self.path!r}: their file "
                f"cannot be opened: {os.strerror(error.errno or 0)}",
                errno=error.errno,
                filename=str(path),
            ) from error
        try:
            index = read_index(fd, layout.frames_per_shard)
            entries = index[numbers % layout.frames_per_shard]
            absent = numbers[entries[:, 0] == ABSENT]
            if absent.size:
                raise FrameReadError(
                    f"frame {absent[0]} of {self.path!r} is missing from its file; "
                    "verify_store() tells the extent",
                    filename=str(path),
                )
            if layout.codec.compression == "none":
                self._read_raw(fd, numbers, entries, out)
            else:
                self._read_encoded(fd, numbers, entries, out)
        except OSError as error:
            if isinstance(error, StoreReadError):
                raise
            raise FrameReadError(
                f"frames {numbers[0]} to {numbers[-1]} of {self.path!r} cannot be "
                f"read: {os.strerror(error.errno or 0)}",
                errno=error.errno,
                filename=str(path),
            ) from error
        finally:
            os.close(fd)

    def _where(self, number: int) -> str:
        return f"frame {number} of {self.path!r}"

    def _check_entry(self, number: int, offset: int, length: int, size: int) -> None:
        """Check that a chunk lies behind the index and inside its file."""
        if offset < index_bytes(self._layout.frames_per_shard):
            raise FrameReadError(f"{self._where(number)}: its index entry is damaged")
        if offset + length > size:
            raise FrameReadError(f"{self._where(number)}: its file is cut short")

    def _read_encoded(
        self,
        fd: int,
        numbers: NDArray[np.int64],
        entries: NDArray[np.uint64],
        out: NDArray[Any],
    ) -> None:
        size = os.fstat(fd).st_size
        for row, number in enumerate(numbers):
            offset, length = map(int, entries[row])
            self._check_entry(number, offset, length, size)
            chunk = os.pread(fd, length, offset)
            # "out[row]" of a frame without dimensions would be a copy.
            frame = out[row : row + 1]
            self._layout.codec.decode(chunk, frame, self._where(number))

    def _read_raw(
        self,
        fd: int,
        numbers: NDArray[np.int64],
        entries: NDArray[np.uint64],
        out: NDArray[Any],
    ) -> None:
        """Read frames that lie one behind the other with one call."""
        codec = self._layout.codec
        tail = CHECKSUM_BYTES if codec.checksum else 0
        frame_bytes = self._layout.frame_bytes
        wrong = np.flatnonzero(entries[:, 1] != frame_bytes + tail)
        if wrong.size:
            raise FrameReadError(
                f"{self._where(int(numbers[wrong[0]]))}: its index entry is damaged"
            )
        offsets = entries[:, 0]
        gaps = np.flatnonzero(np.diff(offsets) != np.uint64(frame_bytes + tail)) + 1
        sums = bytearray(tail * len(numbers))
        size = os.fstat(fd).st_size
        for run in np.split(np.arange(len(numbers)), gaps):
            for start in range(0, len(run), _MOST_FRAMES):
                rows = run[start : start + _MOST_FRAMES]
                offset = int(offsets[rows[0]])
                self._check_entry(int(numbers[rows[0]]), offset, frame_bytes, size)
                buffers: list[Any] = []
                for row in rows:
                    buffers.append(out[row : row + 1])
                    if tail:
                        buffers.append(memoryview(sums)[row * tail : (row + 1) * tail])
                expected = len(rows) * (frame_bytes + tail)
                if _preadv_all(fd, buffers, expected, offset) < expected:
                    raise FrameReadError(
                        f"{self._where(int(numbers[rows[-1]]))}: its file is cut short"
                    )
        if tail:
            stored = np.frombuffer(sums, "<u4")
            for row, number in enumerate(numbers):
                if checksum(out[row : row + 1]) != stored[row]:
                    raise checksum_error(self._where(int(number)))

    def __reduce__(self) -> tuple[type[FrameArray], tuple[str, ...]]:
        return FrameArray, (self.path,)

    def __repr__(self) -> str:
        return f"<FrameArray {self.path!r} {self.shape} {self.dtype}>"


def _preadv_all(fd: int, buffers: list[Any], size: int, offset: int) -> int:
    """Read until the buffers are full or the file ends; return the bytes read."""
    count = os.preadv(fd, buffers, offset)
    while 0 < count < size:
        # Rare: a signal, or more than 2 GiB. Go on where the kernel stopped.
        skip, rest = count, list[Any]()
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            if skip >= view.nbytes:
                skip -= view.nbytes
                continue
            rest.append(view[skip:])
            skip = 0
        more = os.preadv(fd, rest, offset + count)
        if more == 0:
            break
        count += more
    return count


def _split_key(key: Any, ndim: int) -> tuple[Any, tuple[Any, ...]]:
    """Split an index into that of the frames and those within a frame."""
    whole = cast("tuple[Any, ...]", key) if isinstance(key, tuple) else (key,)
    parts: tuple[Any, ...] = whole
    if any(part is None for part in parts):
        raise IndexError("new axes are not supported; index the result instead")
    if any(isinstance(part, (bool, np.bool_)) for part in parts):
        raise IndexError("a single truth value is no index")
    ellipses = [place for place, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    used = sum(_axes(part) for part in parts) - len(ellipses)
    if used > ndim:
        raise IndexError(f"{used} indices for {ndim} axes")
    for place in ellipses:
        filler = (slice(None),) * (ndim - used)
        parts = (*parts[:place], *filler, *parts[place + 1 :])
    if not parts:
        return slice(None), ()
    if _axes(parts[0]) > 1:
        raise IndexError("a mask over more than the frames cannot choose them")
    return parts[0], tuple(parts[1:])


def _axes(part: Any) -> int:
    """Return how many axes a part of an index stands for: more than one for a mask."""
    if isinstance(part, (list, np.ndarray)):
        array: NDArray[Any] = np.asarray(cast("Any", part))
        if array.dtype == bool:
            return array.ndim
    return 1


def _member(group: str, name: str) -> str:
    """Return the path of a node below a group; names come from documents."""
    parts = name.strip("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise PathError(f"{name!r} does not name an array inside {group!r}")
    return os.path.join(group, *parts)


def open_frames(
    uri: str | os.PathLike[str],
    mimetype: str = "application/x-zarr",
    parameters: Mapping[str, Any] | None = None,
) -> Any:
    """Open stored frames for reading, also while they grow.

    Parameters
    ----------
    uri
        URI or path of the array; for a Zarr group, ``parameters`` name the array.
    mimetype
        ``application/x-zarr``, or ``application/x-hdf5`` with the extra ``hdf5``.
    parameters
        Those of the StreamResource.

    Returns
    -------
    FrameArray or zarr.Array
        A :class:`FrameArray` for what this package wrote; a stock array otherwise.

    Raises
    ------
    StoreReadError
        It is not there.
    UnsupportedFormatError
        A format that cannot be read here.
    PathError
        ``parameters`` lead out of the group.
    """
    path = from_uri(os.fspath(uri))
    if mimetype == "application/x-hdf5":
        from bluesky_beamtime.storage.hdf5_reader import open_hdf5

        return open_hdf5(path, parameters)
    if mimetype != "application/x-zarr":
        raise UnsupportedFormatError(
            f"frames of the mimetype {mimetype!r} cannot be read here ({path!r})"
        )
    metadata = read_metadata(Path(path))
    name = (parameters or {}).get("array_name") or (parameters or {}).get("dataset")
    if metadata.get("node_type") == "group" and name:
        path = _member(path, name)
    try:
        return FrameArray(path)
    except StoreReadError:
        try:
            # zarr has types, but not for all of its arguments.
            return import_module("zarr").open_array(path, mode="r")
        except (ValueError, OSError, KeyError) as error:
            raise StoreReadError(f"cannot read {path!r}: {error}") from error
