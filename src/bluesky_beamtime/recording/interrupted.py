"""Runs that were cut off: found, repaired and labelled at the next start."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.accounting import try_to_store_accounts
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.liveness import is_alive, remove_stale
from bluesky_beamtime.database.rows import column_int
from bluesky_beamtime.database.uris import stored_path
from bluesky_beamtime.errors import BeamtimeError, StorageError, StoreStateError
from bluesky_beamtime.storage import open_frames, quote_name, repair_store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InterruptedRun:
    """What is left of a run whose process ended before it did."""

    uid: str
    """Its uid."""
    scan_id: int | None
    """Its scan number."""
    point: int
    """Last point that was recorded."""
    num_points: int | None
    """Points that its plan meant to measure."""
    events: int
    """Events that are safe."""
    frames: int
    """Frames that are safe, those of all cameras."""

    def __str__(self) -> str:
        """Say it in one line, for the log."""
        name = self.uid[:8] if self.scan_id is None else str(self.scan_id)
        of = "" if self.num_points is None else f" of {self.num_points}"
        safe = _count(self.events, "event")
        if self.frames:
            safe += f" and {_count(self.frames, 'frame')}"
        verb = "is" if self.events == 1 and not self.frames else "are"
        return (
            f"run {name} was interrupted at point {self.point}{of}; {safe} {verb} safe"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def claim_run(database: Database, run_uid: str, writer: str | None) -> None:
    """Say that ``writer`` goes on with a run that has not stopped."""
    runs = schema.runs
    with database.writing() as connection:
        connection.execute(
            update(runs)
            .where(runs.c.uid == run_uid, runs.c.stop.is_(None))
            .values(writer=writer, exit_status=None)
        )


def label_interrupted(database: Database) -> list[InterruptedRun]:
    """Find the runs that nobody records any more, repair their frames, label them.

    No document is made up: the run has no stop, and ``exit_status`` says
    ``interrupted``. Called when a beamtime is opened for recording.

    Returns
    -------
    list of InterruptedRun
        What was found, oldest first; each is also logged as a warning.
    """
    runs = schema.runs
    query = (
        select(
            runs.c.uid, runs.c.scan_id, runs.c.plan_name, runs.c.writer, runs.c.start
        )
        .where(runs.c.exit_status.is_(None))
        .order_by(runs.c.id)
    )
    with database.reading() as connection:
        open_runs = connection.execute(query).all()
    found: list[InterruptedRun] = []
    for row in open_runs:
        if row.writer is not None and not is_alive(database.folder, row.writer):
            _repair(database, row)
            try_to_store_accounts(database, row.uid)
            interrupted = _take_stock(database, row)
            with database.writing() as connection:
                changed = connection.execute(
                    update(runs)
                    .where(runs.c.uid == row.uid, runs.c.exit_status.is_(None))
                    .values(exit_status="interrupted", num_events=interrupted.events)
                ).rowcount
            if changed:
                found.append(interrupted)
                logger.warning("%s", interrupted)
    _account_for_newest(database)
    remove_stale(database.path)
    return found


def _account_for_newest(database: Database) -> None:
    """Count the frames of a run after whose end its process was killed."""
    runs = schema.runs
    query = select(runs.c.uid, runs.c.writer, runs.c.stop.is_(None).label("open"))
    with database.reading() as connection:
        row = connection.execute(query.order_by(runs.c.id.desc()).limit(1)).first()
    if row is not None and not row.open and not is_alive(database.folder, row.writer):
        try_to_store_accounts(database, row.uid)


def _repair(database: Database, run: Any) -> None:
    """Bring the arrays of a run up to the last frame that was written."""
    for store in _stores(database, run):
        try:
            report = repair_store(store)
        except StoreStateError:
            # Another run writes there by now: its writer repairs what it opens.
            continue
        except (BeamtimeError, OSError) as error:
            logger.warning(
                "the frames of run %s could not be checked: %s", run.uid, error
            )
            continue
        for sentence in report.repaired:
            logger.info("%s: %s", store, sentence)
        for sentence in report.problems:
            logger.warning("%s: %s", store, sentence)


def _stores(database: Database, run: Any) -> Iterator[Path]:
    """Yield the stores that a run may have written to, each once."""
    candidates = [database.store / "runs" / quote_name(run.uid)]
    for uri in _streamed_to(database, run.uid):
        # Those outside the beamtime's folder are somebody else's to repair.
        path = stored_path(uri, database.folder)
        if path is not None:
            candidates.append(path.parent)
    # A camera may have written before its first document came.
    name = acquisition_name(run.plan_name, run.scan_id)
    if name is not None:
        for day in sorted((database.store / "frames").glob("*")):
            candidates += (path for path in day.glob("*") if _is_named(path, name))
    for path in dict.fromkeys(candidates):
        if path.is_dir():
            yield path


def _streamed_to(database: Database, run_uid: str) -> list[str]:
    """Return the stored URIs of the arrays that a run announced."""
    resources = schema.stream_resources
    query = select(resources.c.uri).where(
        resources.c.run_uid == run_uid, resources.c.mimetype == "application/x-zarr"
    )
    with database.reading() as connection:
        return list(connection.execute(query.distinct()).scalars())


def acquisition_name(plan_name: Any, scan_id: Any) -> str | None:
    """Return the folder name of a run's frames, None if it has no scan number."""
    number = column_int(scan_id)
    if number is None:
        return None
    plan = plan_name if isinstance(plan_name, str) and plan_name else "run"
    return quote_name(f"{plan}_{number:05d}")


def _is_named(path: Path, name: str) -> bool:
    rest = path.name.removeprefix(name)
    return path.name.startswith(name) and (not rest or rest[:1] == "_")


def _take_stock(database: Database, run: Any) -> InterruptedRun:
    start = decode(run.start)
    streams, events, datums = schema.streams, schema.events, schema.stream_datums
    mine = select(streams.c.uid).where(streams.c.run_uid == run.uid)
    primary = mine.where(streams.c.name == "primary")
    with database.reading() as connection:
        count = connection.execute(
            select(func.count()).where(events.c.stream_uid.in_(mine))
        ).scalar_one()
        by_event = connection.execute(
            select(func.max(events.c.seq_num)).where(events.c.stream_uid.in_(primary))
        ).scalar()
        by_frame = connection.execute(
            select(func.max(datums.c.seq_stop)).where(datums.c.stream_uid.in_(primary))
        ).scalar()
    point = by_event if by_event is not None else (by_frame or 1) - 1
    return InterruptedRun(
        uid=run.uid,
        scan_id=run.scan_id,
        point=point,
        num_points=column_int(start.get("num_points")),
        events=count,
        frames=_count_frames(database, run),
    )


def _count_frames(database: Database, run: Any) -> int:
    """Return how many frames a reader finds, those of all cameras together.

    Frames that no document announced yet when the process ended count too.
    """
    images, events, streams = schema.image_refs, schema.events, schema.streams
    in_events = (
        select(func.count())
        .select_from(images)
        .join(events, events.c.uid == images.c.event_uid)
        .join(streams, streams.c.uid == events.c.stream_uid)
        .where(streams.c.run_uid == run.uid, images.c.shape_y.is_not(None))
    )
    with database.reading() as connection:
        total = connection.execute(in_events).scalar_one()
    arrays: dict[str | Path, None] = {}
    for uri in _streamed_to(database, run.uid):
        arrays[stored_path(uri, database.folder) or uri] = None
    in_frames = database.store / "frames"
    for store in _stores(database, run):
        if store.is_relative_to(in_frames):
            arrays |= dict.fromkeys(path.parent for path in store.glob("*/zarr.json"))
    for array in arrays:
        try:
            frames = open_frames(array)
        except (StorageError, OSError, ValueError):
            continue
        # A number per frame (its time, its id) is no frame.
        if frames.ndim > 1:
            total += len(frames)
    return total
