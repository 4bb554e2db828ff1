"""Frames back from disk: lazily, in parallel, and never a frame that is not there."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bluesky_beamtime.errors import FrameReadError, StoreReadError
from bluesky_beamtime.storage.codecs import (
    CHECKSUM_BYTES,
    checksum,
    checksum_error,
)
from bluesky_beamtime.storage.indexing import region, split_key
from bluesky_beamtime.storage.layout import ArrayLayout, read_metadata
from bluesky_beamtime.storage.shards import ABSENT, index_bytes, read_index
from bluesky_beamtime.storage.tiling import Box, Slices

# Tiles that lie one behind the other are read at once, up to so many bytes.
_MOST_BYTES = 1 << 24
# One call of preadv takes at most 1024 buffers; a frame has up to two.
_MOST_FRAMES = 500


class FrameLayout(Protocol):
    """What a stored array is made of, whatever its format."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of a frame as it is stored."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        ...

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk, the frames' axis first."""
        ...

    @property
    def dimension_names(self) -> tuple[str, ...] | None:
        """Names of all dimensions, the frames' first."""
        ...


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

    _frames: FrameLayout
    # Whether a part of a frame can be read alone.
    _tiled = False

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
            self._layout = self._frames = layout
            self._tiled = layout.chunks is not None
            # Another thread may have seen more meanwhile; a length never shrinks.
            if metadata["shape"][0] >= self._length:
                self._length = int(metadata["shape"][0])
                self.attrs: dict[str, Any] = metadata.get("attributes", {})
            return self._length

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of a frame, in native byte order."""
        return self._frames.dtype.newbyteorder("=")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape with the frames' axis first."""
        return (self._length, *self._frames.shape)

    @property
    def ndim(self) -> int:
        """Number of axes, that of the frames included."""
        return 1 + len(self._frames.shape)

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
        """Shape of what is read at the least: one frame, or one tile of it."""
        return self._frames.chunk_shape

    @property
    def units(self) -> str | None:
        """Units of the values."""
        return self.attrs.get("units")

    @property
    def dims(self) -> tuple[str, ...] | None:
        """Names of all dimensions."""
        return self._frames.dimension_names

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
        first, rest = split_key(key, self.ndim)
        wanted = np.arange(self._length)[first]
        found = region(rest, self.shape[1:]) if self._tiled and rest else None
        if found is None:
            frames = self.read(wanted.reshape(-1))
        else:
            box, rest = found
            frames = self.read_region(wanted.reshape(-1), box)
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
        return self.read_region(indices, tuple((0, size) for size in self.shape[1:]))

    def read_region(self, indices: NDArray[np.integer[Any]], box: Box) -> NDArray[Any]:
        """Read a part of the frames of the given numbers.

        Of frames that are cut into chunks only those are read that the part touches.

        Parameters
        ----------
        indices
            Numbers of frames.
        box
            Where the part begins and ends along each axis of a frame.

        Raises
        ------
        FrameReadError
            A frame below the published length is missing or damaged.
        IndexError
            A negative number, or one that is not published.
        """
        layout = self._layout
        sizes = tuple(stop - start for start, stop in box)
        if layout.chunks is None and sizes != layout.shape:
            cut = tuple(slice(start, stop) for start, stop in box)
            return self.read(indices)[(slice(None), *cut)]
        out = np.empty((len(indices), *sizes), layout.dtype)
        numbers = published_numbers(self, indices)
        shards = numbers // layout.frames_per_shard
        # Runs of frames in the same shard, in the order asked for.
        edges = np.flatnonzero(np.diff(shards)) + 1
        for rows in np.split(np.arange(len(numbers)), edges):
            if rows.size:
                part = out[rows[0] :]
                self._read_shard(int(shards[rows[0]]), numbers[rows], part, box)
        return out.astype(self.dtype, copy=False)

    def _read_shard(
        self, shard: int, numbers: NDArray[np.int64], out: NDArray[Any], box: Box
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
            if layout.chunks is not None:
                for row, number in enumerate(numbers.tolist()):
                    self._read_tiles(fd, number, box, out[row])
                return
            index = read_index(fd, layout.frames_per_shard)
            entries = index[numbers % layout.frames_per_shard]
            absent = numbers[entries[:, 0] == ABSENT]
            if absent.size:
                raise self._missing(int(absent[0]))
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

    def _read_tiles(self, fd: int, number: int, box: Box, out: NDArray[Any]) -> None:
        """Read the chunks of one frame that a region touches."""
        layout = self._layout
        count = layout.chunks_per_frame
        slot = number % layout.frames_per_shard
        entries = read_index(fd, count, slot * count)
        size = os.fstat(fd).st_size
        tile = np.empty(layout.chunk_shape, layout.dtype)
        start, block = 0, b""
        wanted: list[tuple[int, int, Slices, Slices]] = []
        for which, inside, target in layout.tiling.within(box):
            offset, length = map(int, entries[which])
            wanted.append((offset, length, inside, target))
        for place, (offset, length, inside, target) in enumerate(wanted):
            if offset == ABSENT:
                raise self._missing(number)
            self._check_entry(number, offset, length, size)
            if not start <= offset <= offset + length <= start + len(block):
                # With it those that lie right behind it.
                start, stop = offset, offset + length
                for later, more, *_ in wanted[place + 1 :]:
                    if later != stop or stop + more - start > _MOST_BYTES:
                        break
                    stop += more
                block = os.pread(fd, min(stop, size) - start, start)
            chunk = memoryview(block)[offset - start : offset - start + length]
            layout.codec.decode(chunk, tile, self._where(number))
            out[target] = tile[(0, *inside)]

    def _missing(self, number: int) -> FrameReadError:
        return FrameReadError(
            f"{self._where(number)} is missing from its file; "
            "verify_store() tells the extent",
            filename=self.path,
        )

    def _where(self, number: int) -> str:
        return f"frame {number} of {self.path!r}"

    def _check_entry(self, number: int, offset: int, length: int, size: int) -> None:
        """Check that a chunk lies behind the index and inside its file."""
        if offset < index_bytes(self._layout.entries_per_shard):
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


def published_numbers(
    frames: FrameArray, indices: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """Return the numbers of frames.

    Raises
    ------
    IndexError
        A negative number, or one that is not published.
    """
    numbers = np.asarray(indices, np.int64)
    wrong = numbers[(numbers < 0) | (numbers >= len(frames))]
    if wrong.size:
        raise IndexError(f"{frames.path!r} has {len(frames)} frames, no {wrong[0]}")
    return numbers


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
