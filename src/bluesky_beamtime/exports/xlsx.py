"""Runs as Excel workbooks: a sheet for each stream, and one about the run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from bluesky_beamtime.database import encode
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.fields import StreamContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.rows import column_names, table_rows, tabular
from bluesky_beamtime.exports.workbook import LONGEST, MOST_ROWS, Workbook

_FORBIDDEN = re.compile(r"[\[\]:*?/\\\x00-\x1f\ud800-\udfff]")


def write_xlsx(content: RunContent, files: ExportFiles) -> None:
    """Write a workbook with a sheet for each stream, ``<key>_unit`` columns included.

    An array of an event is JSON text in its cell; frames are left out, with a warning.
    What the start document has of more than a cell takes goes on in the next cells.
    Text is never a formula. Excel itself shows 15 digits; the file has all.
    """
    streams = tabular(content, files)
    for stream in streams:
        rows = len(stream.seq_nums)
        if rows >= MOST_ROWS:
            raise ExportError(
                f"{stream.name!r} has {rows} rows, a sheet takes {MOST_ROWS}; use "
                "csv or parquet"
            )
    taken = {"run"}
    titles = [_title(stream.name, taken) for stream in streams]
    with Workbook(files.single(), [*titles, "run"]) as book:
        for stream in streams:
            book.add_sheet(_told(stream, files))
        book.add_sheet(_about(content, files))


def _told(stream: StreamContent, files: ExportFiles) -> Iterator[Iterable[Any]]:
    yield column_names(stream, units=True)
    total = len(stream.seq_nums)
    for number, row in enumerate(table_rows(stream, units=True), 1):
        yield row
        files.tell(stream.name, number, total)


def _about(content: RunContent, files: ExportFiles) -> Iterator[Iterable[Any]]:
    for key, value in content.run.start.items():
        if isinstance(value, (bool, int, float)):
            yield [key, value]
            continue
        parts = _parts(value if isinstance(value, str) else encode(value))
        if len(parts) > 1:
            # As the positions of a list_scan are: the numbers themselves fit.
            files.left_out.append(
                f"{key!r} in one cell of the sheet 'run' (it goes on in the next)"
            )
        yield [key, *parts]


def _parts(text: str) -> list[str]:
    """Return text in pieces of which each fits into a cell."""
    # Excel counts what takes two units in UTF-16 twice.
    size = LONGEST if max(text, default="") < "\U00010000" else LONGEST // 2
    return [text[first : first + size] for first in range(0, len(text) or 1, size)]


def _title(name: str, taken: set[str]) -> str:
    # Excel wants no apostrophe at either end.
    plain = _FORBIDDEN.sub("_", name).strip("'")[:31] or "_"
    title, number = plain, 2
    while title.casefold() in taken:
        end = f"_{number}"
        title, number = plain[: 31 - len(end)] + end, number + 1
    taken.add(title.casefold())
    return title


xlsx = ExportFormat("xlsx", "xlsx", write_xlsx)
