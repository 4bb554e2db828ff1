"""Frames back from our HDF5 files, without the HDF5 library."""

from __future__ import annotations

import os
from json import loads
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import FrameReadError, StoreReadError
from bluesky_beamtime.storage.codecs import checksum, checksum_error
from bluesky_beamtime.storage.hdf5_format import UNDEFINED
from bluesky_beamtime.storage.hdf5_index_view import IndexView
from bluesky_beamtime.storage.hdf5_layout import DATASET, State
from bluesky_beamtime.storage.hdf5_log import BARE_FRAME, FRAME, HEADER_BYTES, MAGIC
from bluesky_beamtime.storage.hdf5_look import ATTEMPTS, look, opened, own_layout
from bluesky_beamtime.storage.hdf5_places import IndexDamagedError
from bluesky_beamtime.storage.reader import FrameArray, published_numbers

_HEADER = np.dtype(
    [
        ("magic", "S4"),
        ("kind", "<u4"),
        ("number", "<u8"),
        ("length", "<u8"),
        ("checksum", "<u4"),
        ("own", "<u4"),
    ]
)
# Smaller frames are read many at a time, and then sorted out.
_SMALL_FRAME = 1 << 16
_READ_BYTES = 1 << 24


class HDF5Frames(FrameArray):
    """The frames of a file that this package wrote, also while it grows.

    Reading goes past the HDF5 library: it works after the writer was killed, takes no
    lock, checks what was written with a checksum, and needs no filter plugins.

    See :class:`~bluesky_beamtime.storage.FrameArray`.
    """

    dataset = DATASET
    """Where the HDF5 library finds the frames in the file."""

    def refresh(self) -> int:
        """Look again how many frames there are and return their number.

        Raises
        ------
        StoreReadError
            The file is not there, or not one of ours.
        """
        with opened(self.path) as fd:
            layout = own_layout(fd)
            if layout is None:
                raise StoreReadError(
                    f"{self.path!r} is not an HDF5 file of frames as this package "
                    "writes them",
                    filename=self.path,
                )
            self._file_layout = self._frames = layout
            for _ in range(ATTEMPTS):
                state, _ = self._look(fd)
                at = state.slot_address + state.block_bytes
                text = os.pread(fd, state.text_length, at)
                if text and checksum(text) == state.text_checksum:
                    break
            else:
                raise StoreReadError(f"the attributes of {self.path!r} are damaged")
        self._length = state.count
        self.attrs = loads(text)
        return self._length

    def _look(self, fd: int) -> tuple[State, IndexView]:
        """Return the newest state of the file and its index."""
        try:
            return look(fd, self._file_layout)
        except IndexDamagedError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> StoreReadError:
        return StoreReadError(
            f"{self.path!r} is damaged: {error}; repair_store() makes the index anew",
            filename=self.path,
        )

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
        layout = self._file_layout
        numbers = published_numbers(self, indices)
        out = np.empty((len(numbers), *layout.shape), layout.dtype)
        with opened(self.path) as fd:
            addresses, sizes = self._places(fd, numbers)
            absent = numbers[addresses == UNDEFINED]
            if absent.size:
                raise FrameReadError(
                    f"frame {absent[0]} of {self.path!r} is missing from its file; "
                    "verify_store() tells the extent",
                    filename=self.path,
                )
            starts = addresses.astype(np.int64) - HEADER_BYTES
            if layout.codec.compression != "none":
                self._read_compressed(fd, numbers, starts, sizes.astype(np.int64), out)
            elif layout.frame_bytes < _SMALL_FRAME:
                self._read_small(fd, numbers, starts, out)
            else:
                self._read_large(fd, numbers, starts, out)
        return out.astype(self.dtype, copy=False)

    def _places(
        self, fd: int, numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return where frames lie; looks again when a block was just replaced."""
        for attempt in range(ATTEMPTS):
            _, view = self._look(fd)
            try:
                return view.lookup(numbers)
            except IndexDamagedError as error:
                if attempt == ATTEMPTS - 1:
                    raise self._damaged(error) from error
        raise AssertionError("not reached")

    def _where(self, number: int) -> str:
        return f"frame {number} of {self.path!r}"

    def _cut_short(self, number: int) -> FrameReadError:
        return FrameReadError(f"{self._where(number)}: its file is cut short")

    def _read_large(
        self,
        fd: int,
        numbers: NDArray[np.int64],
        starts: NDArray[np.int64],
        out: NDArray[Any],
    ) -> None:
        """Read frames one by one, straight into the result."""
        header: Any = np.empty(1, _HEADER)
        for row, number in enumerate(numbers):
            # "out[row]" of a frame without dimensions would be a copy.
            frame: Any = out[row : row + 1]
            start = int(starts[row])
            count = os.preadv(fd, [header, frame], start)
            size = HEADER_BYTES + frame.nbytes
            while count < size:
                # Rare: a signal, or more than 2 GiB. Go on where the kernel stopped.
                rest = memoryview(frame.reshape(-1)).cast("B")[count - HEADER_BYTES :]
                more = os.preadv(fd, [rest], start + count) if count >= 32 else 0
                if more == 0:
                    raise self._cut_short(int(number))
                count += more
            self._check(numbers[row : row + 1], header, frame)

    def _read_small(
        self,
        fd: int,
        numbers: NDArray[np.int64],
        starts: NDArray[np.int64],
        out: NDArray[Any],
    ) -> None:
        """Read many frames at once where they lie at equal distances."""
        size = HEADER_BYTES + self._file_layout.frame_bytes
        steps = np.diff(starts)
        row = 0
        while row < len(numbers):
            step = int(steps[row]) if row < len(steps) else size
            if not size <= step <= 4 * size:
                step = size
            most = max(1, _READ_BYTES // step)
            breaks = np.flatnonzero(steps[row : row + most - 1] != step)
            count = min(most, len(numbers) - row)
            if breaks.size:
                count = int(breaks[0]) + 1
            length = step * (count - 1) + size
            data = os.pread(fd, length, int(starts[row]))
            if len(data) < length:
                raise self._cut_short(int(numbers[row + len(data) // step]))
            table = np.frombuffer(data.ljust(step * count, b"\0"), np.uint8)
            table = table.reshape(count, step)
            headers = np.ascontiguousarray(table[:, :HEADER_BYTES]).view(_HEADER)
            frames = out[row : row + count]
            bytes_of = frames.reshape(count, -1).view(np.uint8)
            bytes_of[:] = table[:, HEADER_BYTES:size]
            self._check(numbers[row : row + count], headers.reshape(-1), frames)
            row += count

    def _read_compressed(
        self,
        fd: int,
        numbers: NDArray[np.int64],
        starts: NDArray[np.int64],
        sizes: NDArray[np.int64],
        out: NDArray[Any],
    ) -> None:
        codec = self._file_layout.codec
        for row, number in enumerate(numbers.tolist()):
            size = HEADER_BYTES + int(sizes[row])
            data = os.pread(fd, size, int(starts[row]))
            if len(data) < size:
                raise self._cut_short(number)
            header = np.frombuffer(data, _HEADER, 1)
            chunk = np.frombuffer(data, np.uint8, offset=HEADER_BYTES).reshape(1, -1)
            self._check(numbers[row : row + 1], header, chunk)
            frame = out[row : row + 1]
            codec.decode(data[HEADER_BYTES:], frame, self._where(number))

    def _check(
        self,
        numbers: NDArray[np.int64],
        headers: NDArray[Any],
        chunks: NDArray[Any],
    ) -> None:
        """Raise unless chunks are those that the headers before them describe."""
        size = chunks.nbytes // len(chunks)
        good = (headers["magic"] == MAGIC) & (headers["number"] == numbers)
        good &= (headers["length"] == size) & np.isin(
            headers["kind"], (FRAME, BARE_FRAME)
        )
        if not good.all():
            number = int(numbers[np.flatnonzero(~good)[0]])
            raise FrameReadError(
                f"{self._where(number)}: the record before it was damaged on disk; "
                "verify_store() tells the extent",
                filename=self.path,
            )
        for row in np.flatnonzero(headers["kind"] == FRAME):
            if checksum(chunks[row : row + 1]) != headers["checksum"][row]:
                raise checksum_error(self._where(int(numbers[row])))

    def __reduce__(self) -> tuple[type[FrameArray], tuple[str, ...]]:
        return HDF5Frames, (self.path,)

    def __repr__(self) -> str:
        return f"<HDF5Frames {self.path!r} {self.shape} {self.dtype}>"
