"""Frames back from HDF5 files: ours without the HDF5 library, all others with it."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from json import loads
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import FrameReadError, MissingExtraError, StoreReadError
from bluesky_beamtime.storage.codecs import checksum, checksum_error
from bluesky_beamtime.storage.hdf5_format import SIGNATURE, UNDEFINED, Superblock
from bluesky_beamtime.storage.hdf5_index import IndexDamagedError, IndexView
from bluesky_beamtime.storage.hdf5_layout import (
    DATASET,
    HEADER_ADDRESS,
    IDENTITY_ADDRESS,
    INDEX_ADDRESS,
    STATE_ADDRESS,
    FileLayout,
    State,
)
from bluesky_beamtime.storage.hdf5_log import BARE_FRAME, FRAME, HEADER_BYTES, MAGIC
from bluesky_beamtime.storage.reader import FrameArray

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
# A reader that looks while a page is replaced looks again; that takes a microsecond.
_ATTEMPTS = 32
# Smaller frames are read many at a time, and then sorted out.
_SMALL_FRAME = 1 << 16
_READ_BYTES = 1 << 24


class HDF5Frames(FrameArray):
    """The frames of a file that this package wrote, also while it grows.

    Reading goes past the HDF5 library: it works after the writer was killed, takes no
    lock, checks what was written with a checksum, and needs no filter plugins.

    See :class:`~bluesky_beamtime.storage.FrameArray`.
    """

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
            self._file_layout = layout
            for _ in range(_ATTEMPTS):
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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of a frame, in native byte order."""
        return self._file_layout.dtype.newbyteorder("=")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape with the frames' axis first."""
        return (self._length, *self._file_layout.shape)

    @property
    def ndim(self) -> int:
        """Number of axes, that of the frames included."""
        return 1 + len(self._file_layout.shape)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of what is read at the least: one frame."""
        return self._file_layout.chunk_shape

    @property
    def dims(self) -> tuple[str, ...] | None:
        """Names of all dimensions."""
        return self._file_layout.dimension_names

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
        numbers = _checked(self, indices)
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
        for attempt in range(_ATTEMPTS):
            _, view = self._look(fd)
            try:
                return view.lookup(numbers)
            except IndexDamagedError as error:
                if attempt == _ATTEMPTS - 1:
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


class HDF5Dataset(FrameArray):
    """Any dataset in an HDF5 file, read through h5py, also while somebody writes it.

    See :class:`~bluesky_beamtime.storage.FrameArray`. The first axis counts frames.
    h5py does one thing at a time in each process: threads that read through it wait for
    each other.
    """

    def __init__(self, path: str | os.PathLike[str], dataset: str) -> None:
        self.dataset = dataset
        super().__init__(path)

    def refresh(self) -> int:
        """Look again how many frames there are and return their number.

        Raises
        ------
        StoreReadError
            The file or the dataset is not there, or somebody writes the file in a way
            that lets no reader in.
        MissingExtraError
            The package ``h5py`` is absent.
        """
        with self._opened() as dataset:
            if dataset.ndim == 0:
                raise StoreReadError(
                    f"{self.dataset!r} in {self.path!r} is one value, not frames",
                    filename=self.path,
                )
            self._shape = tuple(int(size) for size in dataset.shape)
            self._dtype: np.dtype[Any] = dataset.dtype.newbyteorder("=")
            self._chunks = dataset.chunks
            self.attrs = {key: _plain(value) for key, value in dataset.attrs.items()}
        self._length = self._shape[0]
        return self._length

    @contextmanager
    def _opened(self) -> Generator[Any]:
        try:
            h5py = import_module("h5py")
        except ImportError as error:
            raise MissingExtraError("reading HDF5 files", "h5py", "hdf5") from error
        try:
            with _open(h5py, self.path) as file:
                found = file.get(self.dataset)
                if not isinstance(found, h5py.Dataset):
                    raise StoreReadError(
                        f"there is no dataset {self.dataset!r} in {self.path!r}",
                        filename=self.path,
                    )
                yield found
        except OSError as error:
            if isinstance(error, StoreReadError):
                raise
            raise StoreReadError(
                f"cannot read {self.path!r}: {error}",
                errno=error.errno,
                filename=self.path,
            ) from error

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of a frame, in native byte order."""
        return self._dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape with the frames' axis first."""
        return self._shape

    @property
    def ndim(self) -> int:
        """Number of axes, that of the frames included."""
        return len(self._shape)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk; of the whole dataset where it has none."""
        return self._chunks or self._shape

    @property
    def dims(self) -> tuple[str, ...] | None:
        """Names of all dimensions, where this package wrote them."""
        names = self.attrs.get("dimension_names")
        return None if names is None else tuple(names)

    def read(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Read the frames of the given numbers, in that order.

        Raises
        ------
        StoreReadError
            The library cannot read them.
        MissingExtraError
            They are compressed with a filter that is not there.
        IndexError
            A negative number, or one that was not there at the last refresh.
        """
        numbers = _checked(self, indices)
        out = np.empty((len(numbers), *self._shape[1:]), self._dtype)
        # Runs of neighbours, which the library reads with one call each.
        edges = np.flatnonzero(np.diff(numbers) != 1) + 1
        with self._opened() as dataset:
            self._need_filters(dataset)
            for rows in np.split(np.arange(len(numbers)), edges):
                if rows.size:
                    first = int(numbers[rows[0]])
                    frames = dataset[first : first + len(rows)]
                    out[rows[0] : rows[-1] + 1] = frames
        return out

    def _need_filters(self, dataset: Any) -> None:
        """Load the filters that a compressed dataset needs."""
        h5z = import_module("h5py").h5z
        plist = dataset.id.get_create_plist()
        numbers = [plist.get_filter(n)[0] for n in range(plist.get_nfilters())]
        if all(h5z.filter_avail(number) for number in numbers):
            return
        if find_spec("hdf5plugin") is not None:
            import_module("hdf5plugin")
        for number in numbers:
            if not h5z.filter_avail(number):
                what = f"reading {self.path!r}, compressed with filter {number},"
                raise MissingExtraError(what, "hdf5plugin", "hdf5")

    def __reduce__(self) -> tuple[type[FrameArray], tuple[str, ...]]:
        return HDF5Dataset, (self.path, self.dataset)

    def __repr__(self) -> str:
        where = f"{self.path!r} {self.dataset!r}"
        return f"<HDF5Dataset {where} {self.shape} {self.dtype}>"


def _checked(
    frames: FrameArray, indices: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    numbers = np.asarray(indices, np.int64)
    wrong = numbers[(numbers < 0) | (numbers >= len(frames))]
    if wrong.size:
        raise IndexError(f"{frames.path!r} has {len(frames)} frames, no {wrong[0]}")
    return numbers


def open_hdf5(
    path: str, parameters: Mapping[str, Any] | None = None
) -> HDF5Frames | HDF5Dataset:
    """Open a dataset of an HDF5 file for reading, also while it grows.

    Parameters
    ----------
    path
        The file.
    parameters
        Those of the StreamResource: ``dataset`` is the path within the file.

    Raises
    ------
    StoreReadError
        It is not there.
    MissingExtraError
        Somebody else wrote it, and the package ``h5py`` is absent.
    """
    dataset = (parameters or {}).get("dataset") or DATASET
    with opened(path) as fd:
        ours = is_ours(fd)
    if ours and dataset.strip("/") == DATASET.strip("/"):
        return HDF5Frames(path)
    return HDF5Dataset(path, dataset)


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
    page = os.pread(fd, IDENTITY_ADDRESS, 0)
    superblock = Superblock.from_bytes(page)
    if superblock is None or superblock.flags:
        # Being written, or left by a writer that died.
        return True
    state = State.from_bytes(page[STATE_ADDRESS:INDEX_ADDRESS])
    if state is None:
        return False
    header = layout.dataset_header(state.count, state)
    return page[HEADER_ADDRESS : HEADER_ADDRESS + len(header)] == header


def look(fd: int, layout: FileLayout) -> tuple[State, IndexView]:
    """Return the state of a file and its index, both of the same moment.

    Raises
    ------
    IndexDamagedError
        They are not what was written.
    """
    for attempt in range(_ATTEMPTS):
        page = os.pread(fd, IDENTITY_ADDRESS, 0)
        state = State.from_bytes(page[STATE_ADDRESS:INDEX_ADDRESS])
        try:
            view = IndexView(
                page[INDEX_ADDRESS : layout.head_end],
                layout.size_bytes,
                lambda address, size: os.pread(fd, size, address),
            )
        except IndexDamagedError:
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        if state is not None and state.count == view.count:
            return state, view
    raise IndexDamagedError("its state is damaged")


def _open(h5py: Any, path: str) -> Any:
    # The library refuses this for a file that somebody writes in SWMR mode. SWMR comes
    # second, because with it the library tries for ever to read what is damaged.
    try:
        return h5py.File(path, "r")
    except OSError:
        return h5py.File(path, "r", swmr=True)


def _plain(value: Any) -> Any:
    """Return an attribute as JSON has it: texts, numbers and lists."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, (np.bool_, np.number)):
        return cast("Any", value).item()
    return value if isinstance(value, (str, bool, int, float)) else str(value)
