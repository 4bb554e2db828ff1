"""Rows in a CSV file."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from typing import Any, BinaryIO

from bluesky_beamtime.errors import SinkSchemaError
from bluesky_beamtime.sinks.append_file import AppendFile
from bluesky_beamtime.sinks.text_table import TextTableSink


class CsvSink(TextTableSink):
    r"""Writes readings to a CSV file: a header, then one row each.

    UTF-8, commas, ``\n`` after each row, fields quoted where they must be. Floats have
    all their digits; NaN is ``nan``, an infinity ``inf``; what is not there is an empty
    field, as is empty text. Each call of :meth:`write_many` is one write to the file:
    when it returns, its rows survive ``kill -9``, and a row that a killed process left
    half-written is cut off when the file is opened again with ``append=True``. After
    :meth:`flush` or :meth:`close` they survive a power cut.

    A new column (``schema="evolve"``) means a new header, and with it a new copy of the
    file, which takes the place of the old one at once or not at all.

    Parameters
    ----------
    path
        The file; its folder is made. One that has something in it is refused, unless
        ``append`` or ``overwrite`` is set.
    accept_blocks
        Take blocks too, as one row per channel and sample.
    schema
        What a row with a new column does: ``"evolve"`` adds it, ``"drop"`` leaves it
        out with one warning, ``"raise"`` refuses the batch.
    append
        Go on after what is in the file.
    overwrite
        Begin anew where a file is.
    """

    kind = "csv"

    def _read_columns(self, file: BinaryIO) -> list[str] | None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            names = next(csv.reader(text), None)
        except (UnicodeDecodeError, csv.Error) as error:
            raise SinkSchemaError(
                f"{self.path} is no CSV file in UTF-8 ({error}); overwrite=True begins "
                "anew"
            ) from error
        text.detach()
        return names

    def _whole(self, file: BinaryIO) -> int:
        # A line ends a row unless a quoted field goes on.
        good, place, quotes = 0, 0, 0
        for line in file:
            place += len(line)
            quotes += line.count(b'"')
            if line.endswith(b"\n") and quotes % 2 == 0:
                good = place
        return good

    def _format(self, rows: list[tuple[Any, ...]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()

    def _begin(self, names: list[str]) -> bytes:
        return self._format([tuple(names)])

    def _widen(self, new: list[str], file: AppendFile) -> AppendFile:
        path = self.path.with_name(f".{self.path.name}.new")
        fill = ("",) * len(new)
        try:
            with (
                self.path.open(encoding="utf-8", newline="") as old,
                path.open("w", encoding="utf-8", newline="") as wider,
            ):
                rows = csv.reader(old)
                writer = csv.writer(wider, lineterminator="\n")
                writer.writerow((*next(rows), *new))
                writer.writerows((*row, *fill) for row in rows)
                wider.flush()
                os.fsync(wider.fileno())
            path.replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        file.close()
        return AppendFile(self.path, keep=True, whole=lambda f: f.seek(0, os.SEEK_END))
