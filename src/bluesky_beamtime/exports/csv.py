"""Runs as CSV: a table for each stream."""

from __future__ import annotations

import csv as writing
from itertools import islice
from typing import Literal

from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.readings import write_readings
from bluesky_beamtime.exports.rows import column_names, table_rows, tabular
from bluesky_beamtime.sinks import CsvSink

# Half of a surrogate pair is no text in UTF-8; it is written as such.
_ERRORS = "backslashreplace"
_ROWS = 256


def write_csv(
    content: RunContent,
    files: ExportFiles,
    *,
    rows: Literal["events", "readings"] = "events",
) -> None:
    """Write a CSV file for each stream, UTF-8, with ``<key>_unit`` columns.

    Numbers have all their digits. An array of an event is JSON text in its cell;
    frames are left out, with a warning.

    Parameters
    ----------
    content, files
        The run, and where to.
    rows
        ``"events"`` is a row for each event; ``"readings"`` one file for all streams,
        with a row for each object of each event, as a live sink writes it.
    """
    if rows == "readings":
        write_readings(content, files, CsvSink)
        return
    streams = tabular(content, files)
    paths = files.several([stream.name for stream in streams])
    for stream, path in zip(streams, paths, strict=True):
        with path.open("w", encoding="utf-8", errors=_ERRORS, newline="") as file:
            writer = writing.writer(file)
            writer.writerow(column_names(stream, units=True))
            total = len(stream.seq_nums)
            lines = table_rows(stream, units=True)
            done = 0
            while some := list(islice(lines, _ROWS)):
                writer.writerows(some)
                done += len(some)
                files.tell(stream.name, done, total)


csv = ExportFormat("csv", "csv", write_csv)
