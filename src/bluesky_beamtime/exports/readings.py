"""Runs as tables of readings: what a live sink would have written."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

from bluesky_beamtime.errors import ExportError, SinkDependencyError, SinkError
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import refusal
from bluesky_beamtime.sinks import CsvSink, DaqReading, ParquetSink, pipe

# A part file each, in Parquet.
_BATCH = 4096


def write_readings(
    content: RunContent, files: ExportFiles, sink: type[CsvSink] | type[ParquetSink]
) -> None:
    """Write ``run.readings()`` through a sink: one table for all streams.

    It has the rows of a :class:`~bluesky_beamtime.sinks.SinkSubscriber` that was there
    while the run was taken: a row for each object of each event, in their order.

    Raises
    ------
    ExportError
        The run has no readings, or one that the table cannot hold.
    """
    run = content.run
    total = run.num_events
    path = files.single()
    given_up = threading.Event()
    number = 0

    def readings() -> Iterator[DaqReading]:
        nonlocal number
        for number, reading in enumerate(run.readings(), 1):
            if given_up.is_set():
                raise InterruptedError
            files.tell("readings", number, max(number, total))
            yield reading

    try:
        _run(_write(readings(), sink(path)), given_up)
    except SinkDependencyError:
        raise
    except SinkError as error:
        refused = refusal(error)
        if refused is not None:
            raise OSError(refused, os.strerror(refused), str(path)) from error
        raise ExportError(
            f"{run.label} could not be written as readings: {error.__cause__ or error}"
        ) from error
    if not number:
        raise ExportError(
            f"{run.label} has no readings; rows='events', jsonl and hdf5 take what "
            "there is"
        )


async def _write(readings: Iterator[DaqReading], sink: Any) -> None:
    async with sink:
        await pipe(readings, sink, batch_size=_BATCH)


def _run(work: Coroutine[Any, Any, None], given_up: threading.Event) -> None:
    """Run in a thread: where this is called an event loop may be running already."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="export-readings", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        # Ctrl-C: the files must be at rest before they are removed.
        given_up.set()
        thread.join()
        raise
    if errors:
        raise errors[0]
