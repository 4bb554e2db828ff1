"""Frames in the order of a stream's events, read where they are indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.kinds import is_list
from bluesky_beamtime.errors import StoreReadError

# One task reads about this much: enough to be worth a task, little enough to look at
# one frame without waiting for a hundred.
_BLOCK_BYTES = 8 << 20


class RowFrames:
    """A lazy array with one row for each event, over one stored array or several.

    Parameters
    ----------
    sources
        Stored arrays, with their frames along the first axis and of one shape.
    source_of_row, index_of_row
        For each row, which stored array and which event within it.
    per_row
        Frames of one event, the second axis; None for one frame and no such axis.

    Attributes
    ----------
    shape, dtype, ndim
        As those of a NumPy array.
    per_row : int or None
        Frames of one event.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        source_of_row: NDArray[np.integer[Any]],
        index_of_row: NDArray[np.integer[Any]],
        *,
        per_row: int | None = None,
    ) -> None:
        self._sources = list(sources)
        self._source_of_row = source_of_row
        self._index_of_row = index_of_row
        self.per_row = per_row
        frame = tuple(self._sources[0].shape[1:])
        for source in self._sources:
            if tuple(source.shape[1:]) != frame:
                raise StoreReadError(
                    f"frames of the shapes {frame} and {tuple(source.shape[1:])} do "
                    "not fit into one array; read them from the stores themselves"
                )
        inner = (per_row,) if per_row is not None else ()
        self.shape: tuple[int, ...] = (len(index_of_row), *inner, *frame)
        self.dtype: np.dtype[Any] = np.result_type(*(s.dtype for s in self._sources))
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read rows; the first index chooses them, the others cut them."""
        parts = cast("tuple[Any, ...]", key) if isinstance(key, tuple) else (key,)
        if Ellipsis in [part for part in parts if not isinstance(part, np.ndarray)]:
            place = next(i for i, part in enumerate(parts) if part is Ellipsis)
            filler = (slice(None),) * (self.ndim - len(parts) + 1)
            parts = (*parts[:place], *filler, *parts[place + 1 :])
        first = parts[0] if parts else slice(None)
        rows = np.arange(len(self))[first]
        values = self._read(np.atleast_1d(rows))
        if rows.ndim == 0:
            return values[0][parts[1:]] if parts[1:] else values[0]
        return values[(slice(None), *parts[1:])] if parts[1:] else values

    def _read(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        which = self._source_of_row[rows]
        indices = self._index_of_row[rows]
        for number in np.unique(which):
            mine = np.flatnonzero(which == number)
            wanted = self._frames_of(indices[mine])
            source = self._sources[number]
            _check_promise(source, wanted)
            # A slice where it can be one: every kind of array takes it, and fast.
            straight = len(wanted) > 0 and bool(np.all(np.diff(wanted) == 1))
            frames = source[
                slice(int(wanted[0]), int(wanted[-1]) + 1) if straight else wanted
            ]
            out[mine] = np.asarray(frames).reshape(len(mine), *self.shape[1:])
        return out

    def _frames_of(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return the frames that belong to events of these indices."""
        if self.per_row is None:
            return indices
        return (indices[:, None] * self.per_row + np.arange(self.per_row)).ravel()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self[:]
        return array if dtype is None else array.astype(dtype, copy=False)

    def parts(
        self,
    ) -> tuple[list[Any], NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
        """Return the stored arrays, and for each row which of them and what index.

        Raises
        ------
        StoreReadError
            One of them has not all frames that were promised.
        """
        for number, source in enumerate(self._sources):
            indices = self._index_of_row[self._source_of_row == number]
            _check_promise(source, self._frames_of(indices))
        return self._sources, self._source_of_row, self._index_of_row

    def lazy(self, name: str) -> Any:
        """Return a dask array whose blocks are a few frames each.

        Parameters
        ----------
        name
            Begins the names of its tasks.
        """
        import dask.array
        from dask.base import tokenize

        da: Any = dask.array  # its functions lack annotations

        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        rows = max(1, min(len(self), _BLOCK_BYTES // max(1, row_bytes)))
        identity = tokenize(
            [getattr(source, "path", str(source)) for source in self._sources],
            self._source_of_row,
            self._index_of_row,
            self.per_row,
        )
        return da.from_array(
            self,
            chunks=(rows, *self.shape[1:]),
            name=f"{name}-{identity}",
            meta=np.empty((0,) * self.ndim, self.dtype),
        )

    def indexed(self) -> Any:
        """Return an array for xarray that reads what is indexed, without dask."""
        from xarray.backends import BackendArray
        from xarray.core import indexing

        frames = self

        class Indexed(BackendArray):
            shape = frames.shape
            dtype = frames.dtype

            def __getitem__(self, key: Any) -> Any:
                tools: Any = indexing
                return tools.explicit_indexing_adapter(
                    key, self.shape, tools.IndexingSupport.OUTER_1VECTOR, frames.outer
                )

        return indexing.LazilyIndexedArray(Indexed())

    def outer(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Read rows; each index cuts the axis at its own place.

        Parameters
        ----------
        key
            Integers, slices, and at most one vector of integers.
        """
        first, *rest = key
        values = self[np.arange(len(self))[first]]
        leading = () if np.ndim(np.arange(len(self))[first]) == 0 else (slice(None),)
        return values[(*leading, *rest)]


def _check_promise(source: Any, wanted: NDArray[np.integer[Any]]) -> None:
    """Raise StoreReadError if a stored array has not all of these frames."""
    if not wanted.size:
        return
    first, last = int(wanted.min()), int(wanted.max())
    if last >= source.shape[0] and hasattr(source, "refresh"):
        # A file that grows may hold them by now.
        source.refresh()
    length = source.shape[0]
    if first < 0 or last >= length:
        missing = wanted[(wanted < 0) | (wanted >= length)]
        path = getattr(source, "path", None)
        where = "the array" if path is None else repr(path)
        raise StoreReadError(
            f"frames {missing.min()} to {missing.max()} were promised, {where} holds "
            f"{length}, counted from 0; 'beamtime verify' tells what else is missing",
            filename=path,
        )


def frame_dims(
    key: str, rank: int, declared: Any = None, *, per_row: bool = False
) -> tuple[str, ...]:
    """Return names for the axes of what one event holds under ``key``.

    Parameters
    ----------
    key
        Data key.
    rank
        Number of those axes.
    declared
        ``dims`` of the data key, used when there are as many.
    per_row
        Whether the first of them counts the frames of an event.
    """
    if is_list(declared):
        names = [str(name) for name in declared]
        if len(names) == rank and len(set(names)) == rank:
            return tuple(names)
    inner = rank - per_row
    axes = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}.get(
        inner, tuple(f"dim_{number}" for number in range(inner))
    )
    leading = (f"{key}_frame",) if per_row else ()
    return (*leading, *(f"{key}_{axis}" for axis in axes))
