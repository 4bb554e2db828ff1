"""What can be read of a stream when something of it is missing or damaged."""

from __future__ import annotations

from typing import Any

from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.kinds import texts_in
from bluesky_beamtime.database.reading import StreamReading
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
        return read_fields(stream, keys), {}
    except StorageError:
        # One or the other; which, is asked only now, because asking takes its time.
        pass
    faults: dict[str, StorageError] = {}
    for key in keys:
        try:
            read_fields(stream, [key])
        except StorageError as error:
            faults[key] = error
    return read_fields(stream, [k for k in keys if k not in faults]), faults


def read_fields(stream: Stream, fields: list[str]) -> Any:
    """Return a Dataset of some fields; what Python warns of a page says itself."""
    return StreamReading(stream, fields, dask=False).dataset()


def units_of(variable: Any) -> str:
    """Return the units of a variable, all of them if they changed; empty for none."""
    if "units_of_rows" not in variable.attrs:
        return str(variable.attrs.get("units", ""))
    changes: list[tuple[int, str | None]] = decode(variable.attrs["units_of_rows"])
    return ", ".join(dict.fromkeys("none" if u is None else u for _, u in changes))


def motors_of(run: Run) -> list[str]:
    """Return the fields of the axes that a plan names, whatever else it says."""
    return texts_in(run.start.get("motors"))
