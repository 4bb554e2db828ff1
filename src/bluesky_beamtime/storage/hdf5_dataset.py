"""Frames back from the HDF5 files of others, through the HDF5 library."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import MissingExtraError, StoreReadError
from bluesky_beamtime.storage.reader import FrameArray, published_numbers


class HDF5Dataset(FrameArray):
    """Any dataset in an HDF5 file, read through h5py, also while somebody writes it.

    See :class:`~bluesky_beamtime.storage.FrameArray`. The first axis counts frames.
    h5py does one thing at a time in each process: threads that read through it wait for
    each other.

    Attributes
    ----------
    inspect
        Called with the dataset of h5py whenever the file was opened, before anything
        is read of it; may raise.
    """

    inspect: Callable[[Any], None] | None = None

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
            with open_file(h5py, self.path) as file:
                found = file.get(self.dataset)
                if not isinstance(found, h5py.Dataset):
                    raise StoreReadError(
                        f"there is no dataset {self.dataset!r} in {self.path!r}",
                        filename=self.path,
                    )
                if self.inspect is not None:
                    self.inspect(found)
                yield found
        except StoreReadError:
            raise
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            # Which of them tells of damage depends on where in the file it is.
            raise StoreReadError(
                f"cannot read {self.path!r}: {error}",
                errno=getattr(error, "errno", None),
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
        numbers = published_numbers(self, indices)
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

    def __reduce__(self) -> tuple[Any, ...]:
        return HDF5Dataset, (self.path, self.dataset), {"inspect": self.inspect}

    def __repr__(self) -> str:
        where = f"{self.path!r} {self.dataset!r}"
        return f"<HDF5Dataset {where} {self.shape} {self.dtype}>"


def open_file(h5py: Any, path: str) -> Any:
    """Open a file of others for reading, also while somebody writes it."""
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
