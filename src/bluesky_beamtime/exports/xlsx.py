"""Runs as Excel workbooks: a sheet for each stream, and one about the run."""

from __future__ import annotations

import math
import re
from importlib import import_module
from typing import Any

from bluesky_beamtime.database import encode
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.rows import column_names, table_rows, tabular

_MOST_ROWS = 1_048_576
_LONGEST = 32_767
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def write_xlsx(content: RunContent, files: ExportFiles) -> None:
    """Write a workbook with a sheet for each stream, ``<key>_unit`` columns included.

    An array of an event is JSON text in its cell; frames are left out, with a warning.
    Text is never a formula. Excel itself shows 15 digits; the file has all.
    """
    openpyxl: Any = import_module("openpyxl")
    book = openpyxl.Workbook(write_only=True)
    taken = {"run"}
    for stream in tabular(content, files):
        total = len(stream.seq_nums)
        if total >= _MOST_ROWS:
            raise ExportError(
                f"{stream.name!r} has {total} rows, a sheet takes {_MOST_ROWS}; use "
                "csv or parquet"
            )
        sheet = book.create_sheet(_title(stream.name, taken))
        sheet.append([_cell(sheet, n) for n in column_names(stream, units=True)])
        for number, row in enumerate(table_rows(stream, units=True), 1):
            sheet.append([_cell(sheet, value) for value in row])
            files.tell(stream.name, number, total)
    sheet = book.create_sheet("run")
    for key, value in content.run.start.items():
        plain = value if isinstance(value, (bool, int, float, str)) else encode(value)
        sheet.append([_cell(sheet, key), _cell(sheet, plain)])
    book.save(files.single())


def _cell(sheet: Any, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    number = isinstance(value, (int, float)) and math.isfinite(value)
    # openpyxl writes 16 digits of a number; some need 17, and great integers more.
    text = repr(value) if number else str(value)
    text = _CONTROL.sub(lambda found: f"_x{ord(found[0]):04X}_", text)
    if len(text) > _LONGEST:
        raise ExportError(
            f"a cell of a workbook takes {_LONGEST} characters, not {len(text)}: "
            f"{text[:40]!r}…; use csv or hdf5"
        )
    cell = import_module("openpyxl.cell").WriteOnlyCell(sheet, value=text)
    # What begins with = would be a formula.
    cell.data_type = "n" if number else "s"
    return cell


def _title(name: str, taken: set[str]) -> str:
    plain = re.sub(r"[\[\]:*?/\\]", "_", name)[:31] or "_"
    title, number = plain, 2
    while title.casefold() in taken:
        end = f"_{number}"
        title, number = plain[: 31 - len(end)] + end, number + 1
    taken.add(title.casefold())
    return title


xlsx = ExportFormat("xlsx", "xlsx", write_xlsx)
