"""Frames that devices streamed: which row of which array belongs to which event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from bluesky_beamtime.database import schema, uris
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.rowframes import RowFrames
from bluesky_beamtime.database.within import Within
from bluesky_beamtime.errors import PathError
from bluesky_beamtime.storage import FrameArray, from_uri, open_frames
from bluesky_beamtime.storage.hdf5_dataset import HDF5Dataset
from bluesky_beamtime.storage.hdf5_reader import HDF5Frames

if TYPE_CHECKING:
    from bluesky_beamtime.database.engine import Database

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StoredArray:
    """Where the frames of one data key are, as a StreamResource says."""

    uid: str
    """Uid of the StreamResource."""
    data_key: str
    """The data key."""
    uri: str
    """URI now, wherever the beamtime's folder is."""
    mimetype: str
    """Format."""
    parameters: Mapping[str, Any]
    """What a reader of that format needs."""
    readable: Sequence[Path] | None = None
    """Folders that may be read from, without links; None for everything."""

    def open(self) -> Any:
        """Return the array, lazily read.

        Raises
        ------
        StoreReadError
            It is not there, or may not be read here.
        UnsupportedFormatError
            Nothing here reads this format.
        """
        if self.readable is None:
            return open_frames(self.uri, self.mimetype, self.parameters)
        within = Within(self.readable, self.uri)
        within.check(_path_of(self.uri))
        frames = open_frames(self.uri, self.mimetype, self.parameters)
        if isinstance(frames, HDF5Dataset):
            # It opens its file for each look, and may be another one by then.
            frames.inspect = within.check_dataset
            frames.refresh()
        elif not isinstance(frames, HDF5Frames):
            within.check_tree(_folder_of(frames))
        return frames


def _folder_of(frames: Any) -> Path:
    """Return the folder of a Zarr array, ours or a stock one."""
    if isinstance(frames, FrameArray):
        return Path(frames.path)
    return Path(frames.store_path.store.root) / frames.store_path.path


def _path_of(uri: str) -> Path | None:
    """Return the path that a URI leads to in the end, None if it is none of a file."""
    try:
        return Path(from_uri(uri)).resolve()
    except (PathError, ValueError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class FrameRows:
    """The events of one data key that have frames, by sequence number."""

    arrays: Sequence[StoredArray]
    """The arrays that hold them."""
    seq_nums: Ints
    """Sequence numbers, ascending, each once."""
    source: Ints
    """For each, which of the arrays."""
    index: Ints
    """For each, the event's index within that array."""

    def frames(self, seq_nums: Ints, data_key: Mapping[str, Any]) -> RowFrames:
        """Return the frames of the given events.

        Parameters
        ----------
        seq_nums
            Sequence numbers, all among those of this object.
        data_key
            What the descriptor says.

        Raises
        ------
        StoreReadError
            An array is not there.
        """
        places = np.searchsorted(self.seq_nums, seq_nums)
        opened = [array.open() for array in self.arrays]
        return RowFrames(
            opened,
            self.source[places],
            self.index[places],
            per_row=frames_per_event(data_key, opened[0].ndim - 1),
        )


def frames_per_event(data_key: Mapping[str, Any], rank: int) -> int | None:
    """Return how many frames one event has; None for one, without an axis of its own.

    Parameters
    ----------
    data_key
        What the descriptor says; some devices declare a single frame as ``[1, h, w]``.
    rank
        Dimensions of one stored frame.
    """
    shape: list[Any] = data_key.get("shape") or []
    if len(shape) == rank + 1 and isinstance(shape[0], int) and shape[0] > 1:
        return shape[0]
    return None


def stored_arrays(database: Database, run_uid: str) -> list[StoredArray]:
    """Return the arrays that a run streamed into, in the order of their documents."""
    table = schema.stream_resources
    query = select(table).where(table.c.run_uid == run_uid).order_by(table.c.ordinal)
    with database.reading() as connection:
        rows = connection.execute(query).all()
    return [
        StoredArray(
            uid=row.uid,
            data_key=row.data_key,
            uri=uris.from_stored(row.uri, decode(row.document)["uri"], database.folder),
            mimetype=row.mimetype,
            parameters=decode(row.parameters),
            readable=database.readable,
        )
        for row in rows
    ]


def frame_rows(
    database: Database, run_uid: str, stream_uids: Sequence[str]
) -> dict[str, FrameRows]:
    """Return, for each data key of a stream that has frames, where its events are.

    Of an event that was repeated after a pause the last frame counts.
    """
    arrays = stored_arrays(database, run_uid)
    numbers = {array.uid: number for number, array in enumerate(arrays)}
    table = schema.stream_datums
    query = (
        select(
            table.c.stream_resource,
            table.c.indices_start,
            table.c.indices_stop,
            table.c.seq_start,
            table.c.seq_stop,
        )
        .where(table.c.stream_uid.in_(stream_uids))
        .order_by(table.c.ordinal)
    )
    with database.reading() as connection:
        rows = connection.execute(query).all()
    by_key: dict[str, list[tuple[int, int, int, int]]] = {}
    for uid, start, stop, seq_start, seq_stop in rows:
        number = numbers.get(uid)
        count = min(stop - start, seq_stop - seq_start)
        # A datum without frames says nothing.
        if number is not None and count > 0:
            by_key.setdefault(arrays[number].data_key, []).append(
                (number, start, seq_start, count)
            )
    return {key: _expand(arrays, ranges) for key, ranges in by_key.items()}


def _expand(
    arrays: Sequence[StoredArray], ranges: Sequence[tuple[int, int, int, int]]
) -> FrameRows:
    table = np.array(ranges, np.int64).reshape(-1, 4)
    counts: Ints = np.maximum(table[:, 3], 0)
    source: Ints = np.repeat(table[:, 0], counts)
    ends: Ints = np.cumsum(counts)
    offsets: Ints = np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)
    index: Ints = np.repeat(table[:, 1], counts) + offsets
    seq_nums: Ints = np.repeat(table[:, 2], counts) + offsets
    # unique() finds the first: look from the end to keep the last.
    unique, last = np.unique(seq_nums[::-1], return_index=True)
    places = len(seq_nums) - 1 - last
    used, compact = np.unique(source[places], return_inverse=True)
    return FrameRows(
        [arrays[int(number)] for number in used],
        unique,
        compact.astype(np.int64),
        index[places],
    )
