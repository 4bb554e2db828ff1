"""Excel workbooks, written row by row straight into their file.

No more than a row is held in memory, nothing is left in folders for temporary files,
and numbers have all their digits.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from xml.sax.saxutils import escape, quoteattr

from bluesky_beamtime.errors import ExportError

MOST_ROWS = 1_048_576
"""Rows that a sheet can have."""
_MOST_COLUMNS = 16_384
LONGEST = 32_767
"""Characters that a cell can have."""
# What XML cannot have, and what would be taken for its stand-in.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]|_(?=x[0-9A-F]{4}_)"
)
_DECLARED = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_FORMATS = "http://schemas.openxmlformats.org"
_OFFICE = f"{_FORMATS}/officeDocument/2006"
_PACKAGE = f"{_FORMATS}/package/2006"
_SHEETS = f"{_FORMATS}/spreadsheetml/2006/main"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"


class Workbook:
    """A workbook with sheets that are written one after the other.

    Parameters
    ----------
    path
        The file.
    titles
        Names of all its sheets.
    """

    def __init__(self, path: Path, titles: Sequence[str]) -> None:
        self._titles = list(titles)
        self._number = 0
        self._archive = zipfile.ZipFile(
            path, "w", zipfile.ZIP_DEFLATED, compresslevel=6
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._archive as archive:
            if error is None:
                for name, text in self._parts().items():
                    archive.writestr(name, _DECLARED + text)

    def add_sheet(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write the next sheet: numbers, truth values, texts, None for nothing.

        Raises
        ------
        ExportError
            A row or a text is longer than Excel takes.
        """
        self._number += 1
        name = f"xl/worksheets/sheet{self._number}.xml"
        with self._archive.open(name, "w", force_zip64=True) as file:
            file.write(f'{_DECLARED}<worksheet xmlns="{_SHEETS}"><sheetData>'.encode())
            _write_rows(file, rows)
            file.write(b"</sheetData></worksheet>")

    def _parts(self) -> dict[str, str]:
        """Return the texts that make a workbook of the sheets."""
        numbers = range(1, len(self._titles) + 1)
        types = "".join(
            f'<Override PartName="/xl/worksheets/sheet{n}.xml" '
            f'ContentType="{_TYPE}.worksheet+xml"/>'
            for n in numbers
        )
        sheets = "".join(
            f'<sheet name={quoteattr(title)} sheetId="{n}" r:id="rId{n}"/>'
            for n, title in zip(numbers, self._titles, strict=True)
        )
        links = "".join(
            f'<Relationship Id="rId{n}" Type="{_OFFICE}/relationships/worksheet" '
            f'Target="worksheets/sheet{n}.xml"/>'
            for n in numbers
        )
        return {
            "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
            '<Default Extension="rels" ContentType="application/'
            'vnd.openxmlformats-package.relationships+xml"/>'
            '<Override PartName="/xl/workbook.xml" '
            f'ContentType="{_TYPE}.sheet.main+xml"/>{types}</Types>',
            "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
            f'<Relationship Id="rId1" Type="{_OFFICE}/relationships/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook xmlns="{_SHEETS}" '
            f'xmlns:r="{_OFFICE}/relationships"><sheets>{sheets}</sheets></workbook>',
            "xl/_rels/workbook.xml.rels": "<Relationships "
            f'xmlns="{_PACKAGE}/relationships">{links}</Relationships>',
        }


def _write_rows(file: IO[bytes], rows: Iterable[Iterable[Any]]) -> None:
    for number, row in enumerate(rows, 1):
        cells = "".join(map(_cell, row))
        if cells.count("<c") > _MOST_COLUMNS:
            raise ExportError(
                f"a sheet takes {_MOST_COLUMNS} columns; use parquet or hdf5"
            )
        file.write(f'<row r="{number}">{cells}</row>'.encode())


def _cell(value: Any) -> str:
    if value is None:
        return "<c/>"
    if isinstance(value, bool):
        return f'<c t="b"><v>{int(value)}</v></c>'
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return f"<c><v>{value!r}</v></c>"
    text = str(value)
    if len(text) > LONGEST:
        raise ExportError(
            f"a cell of a workbook takes {LONGEST} characters, not {len(text)}: "
            f"{text[:40]!r}…; use csv or hdf5"
        )
    # Inline, and so never a formula.
    safe = escape(_CONTROL.sub(lambda found: f"_x{ord(found[0]):04X}_", text))
    return f'<c t="inlineStr"><is><t xml:space="preserve">{safe}</t></is></c>'
