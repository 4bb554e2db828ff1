"""What can be read of a stream when something of it is missing or damaged."""

from __future__ import annotations

from typing import Any

from bluesky_beamtime.database.kinds import texts_in
from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.database.streams import Stream
from bluesky_beamtime.errors import StorageError


def read_readable(stream: Stream) -> tuple[Any, dict[str, StorageError]]:
    """Return a Dataset of the fields that can be read, and what is wrong with others.

    Raises
    ------
    BeamtimeError
        Nothing can be read.
    """
    keys = list(stream.data_keys)
    try:
        return stream.read(keys, chunks=None), {}
    except StorageError:
        # One or the other; which, is asked only now, because asking takes its time.
        pass
    faults: dict[str, StorageError] = {}
    for key in keys:
        try:
            stream.read([key], chunks=None)
        except StorageError as error:
            faults[key] = error
    return stream.read([k for k in keys if k not in faults], chunks=None), faults


def motors_of(run: Run) -> list[str]:
    """Return the fields of the axes that a plan names, whatever else it says."""
    return texts_in(run.start.get("motors"))
