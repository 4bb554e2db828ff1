"""Whether the rows of a run agree with each other, and with its frames."""

from __future__ import annotations

import errno
import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.external import frames_per_event
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.liveness import is_alive
from bluesky_beamtime.database.problems import Problem
from bluesky_beamtime.database.references import length_of, open_referenced
from bluesky_beamtime.database.uris import relative_to, stored_path
from bluesky_beamtime.errors import BeamtimeError, MissingExtraError, StoreReadError
from bluesky_beamtime.storage import open_frames

_HDF5 = "application/x-hdf5"
# Files of other formats are there or not; nothing here opens them.
_READABLE = ("application/x-zarr", _HDF5)
_RECOVER = "beamtime recover, if there is a journal; what is there can be read"
_BACKUP = "take the folder from a backup; what else there is can be read"


def check_runs(database: Database, checked: dict[str, int]) -> Iterator[Problem]:
    """Yield what is wrong with the runs that nobody records just now.

    Parameters
    ----------
    database
        Opened in whatever mode.
    checked
        Told how many of what were looked at.
    """
    runs = schema.runs
    columns = (runs.c.uid, runs.c.scan_id, runs.c.stop_ordinal, runs.c.writer)
    query = select(*columns, runs.c.exit_status, runs.c.num_events).order_by(runs.c.id)
    with database.reading() as connection:
        rows = connection.execute(query).all()
    journaled = JournalIndex(database.journal).runs()
    for row in rows:
        if row.exit_status is None and is_alive(database.folder, row.writer):
            continue
        checked["runs"] = checked.get("runs", 0) + 1
        name = f"run {row.uid[:8] if row.scan_id is None else row.scan_id} ({row.uid})"
        # What is in the journal is missing here, and is told of there.
        if row.uid not in journaled:
            yield from _check_order(database, row, name)
            yield from _check_count(database, row, name)
        yield from _check_images(database, row.uid, name)
        yield from _check_frames(database, row.uid, name, checked)


def _of_run(table: Any, run_uid: str) -> Any:
    """Return the condition that rows with an ordinal belong to a run."""
    if "run_uid" in table.c:
        return table.c.run_uid == run_uid
    if "stream_uid" in table.c:
        mine = select(schema.streams.c.uid).where(schema.streams.c.run_uid == run_uid)
        return table.c.stream_uid.in_(mine)
    mine = select(schema.resources.c.uid).where(schema.resources.c.run_uid == run_uid)
    return table.c.resource.in_(mine)


def _check_order(database: Database, row: Any, name: str) -> Iterator[Problem]:
    """Every document has a place of its own, and no place is empty."""
    places: list[Iterable[int]] = []
    with database.reading() as connection:
        for table in schema.metadata.sorted_tables:
            if "ordinal" in table.c:
                query = select(table.c.ordinal).where(_of_run(table, row.uid))
                found = connection.execute(query.order_by(table.c.ordinal)).scalars()
                places.append(list(found))
    missing = doubled = 0
    expected = 1
    for ordinal in heapq.merge(*places):
        if ordinal < expected:
            doubled += 1
        else:
            missing += ordinal - expected
            expected = ordinal + 1
    # What came after the end, from a device that was late, has the places behind it.
    if row.stop_ordinal is not None:
        missing += max(0, row.stop_ordinal - expected)
    if missing:
        yield Problem("order", name, f"{missing} documents are missing", _RECOVER)
    if doubled:
        yield Problem(
            "order",
            name,
            f"{doubled} documents have the place of another one",
            "two programs may have recorded it at once; all documents can be read",
        )


def _check_count(database: Database, row: Any, name: str) -> Iterator[Problem]:
    """Yield runs that have more events than they tell."""
    query = select(func.count()).where(_of_run(schema.events, row.uid))
    with database.reading() as connection:
        counted = connection.execute(query).scalar_one()
    if row.num_events is not None and counted > row.num_events:
        yield Problem(
            "count",
            name,
            f"{counted} events are stored, the run says {row.num_events}",
            "nothing is lost; beamtime recover counts anew",
        )


def _check_images(database: Database, run_uid: str, name: str) -> Iterator[Problem]:
    """Every array that an event refers to is there, with the index that it names."""
    images, events = schema.image_refs, schema.events
    query = (
        select(images.c.zarr_group, func.max(images.c.index_in_stack))
        .join(events, events.c.uid == images.c.event_uid)
        .where(_of_run(events, run_uid))
        .group_by(images.c.zarr_group)
    )
    with database.reading() as connection:
        found = connection.execute(query).all()
    for group, highest in found:
        if relative_to(database.store / group, database.store) is None:
            yield _leads_out(name, group)
            continue
        try:
            length = length_of(open_referenced(database.store, group))
        except (BeamtimeError, OSError, ValueError) as error:
            yield Problem("array", f"{name}, {group}", str(error), _BACKUP)
            continue
        if highest >= length:
            yield Problem(
                "array",
                f"{name}, {group}",
                f"an event refers to number {highest} of an array of {length}",
                "beamtime recover makes frames readable that are there",
            )


def _check_frames(
    database: Database, run_uid: str, name: str, checked: dict[str, int]
) -> Iterator[Problem]:
    """Every frame that a document promises can be read by anybody."""
    resources, datums = schema.stream_resources, schema.stream_datums
    query = (
        select(
            *(resources.c.uid, resources.c.data_key, resources.c.uri),
            *(resources.c.mimetype, resources.c.parameters),
            func.max(datums.c.indices_stop).label("promised"),
            func.min(datums.c.indices_start).label("first"),
            func.min(schema.streams.c.data_keys).label("data_keys"),
        )
        .outerjoin(datums, datums.c.stream_resource == resources.c.uid)
        .outerjoin(schema.streams, schema.streams.c.uid == datums.c.stream_uid)
        .where(resources.c.run_uid == run_uid)
        .group_by(resources.c.uid)
    )
    with database.reading() as connection:
        found = connection.execute(query).all()
    for row in found:
        path = stored_path(row.uri, database.folder)
        where = f"{name}, {row.data_key}"
        if path is None:
            if _is_relative(row.uri):
                yield _leads_out(name, row.uri)
            # What lies elsewhere is somebody else's to keep.
        elif row.mimetype not in _READABLE or not row.promised:
            if not path.exists():
                yield Problem("frames", where, f"{row.uri} is not there", _BACKUP)
        else:
            if row.mimetype == _HDF5:
                checked["HDF5 files"] = checked.get("HDF5 files", 0) + 1
            yield from _check_promised(path, row, where, checked)


def _check_promised(
    path: Path, row: Any, where: str, checked: dict[str, int]
) -> Iterator[Problem]:
    """As many frames as are promised can be read."""
    try:
        frames = open_frames(path, row.mimetype, decode(row.parameters))
        length = length_of(frames)
        data_key = decode(row.data_keys or "{}").get(row.data_key, {})
        each = frames_per_event(data_key, frames.ndim - 1) or 1
    except MissingExtraError as error:
        yield Problem(
            "frames", where, f"not checked: {error}", "install it, then verify again"
        )
    except StoreReadError as error:
        if row.mimetype == _HDF5 and error.errno == errno.EAGAIN:
            # Locked: somebody writes it, in a way that lets no reader in.
            what = "HDF5 files left out, as somebody writes them"
            checked[what] = checked.get(what, 0) + 1
        else:
            yield Problem("frames", where, str(error), _BACKUP)
    except (BeamtimeError, OSError, ValueError) as error:
        yield Problem("frames", where, str(error), _BACKUP)
    else:
        if row.first < 0:
            what = f"frames from {row.first} on are promised, there is none before 0"
            yield Problem("frames", where, what, "the other frames can be read")
        if length < row.promised * each:
            yield Problem(
                "frames",
                where,
                f"{row.promised * each} frames are promised, {length} can be read",
                "a copy of the file may have them all; what is there can be read"
                if row.mimetype == _HDF5
                else "beamtime recover makes frames readable that are there",
            )


def _is_relative(stored: str) -> bool:
    return ":" not in stored.partition("/")[0]


def _leads_out(name: str, path: str) -> Problem:
    return Problem(
        "place",
        name,
        f"{path!r} leads out of the beamtime's folder",
        "nothing there is read; whoever made this file may have meant harm",
    )
