"""Rows in a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from bluesky_beamtime.errors import SinkSchemaError
from bluesky_beamtime.sinks.append_file import AppendFile
from bluesky_beamtime.sinks.text_table import TextTableSink

# How our own files begin; in those of others no kill of ours has torn a row.
_OURS = b"device,task,"
_COPIED_AT_ONCE = 1 << 20


class CsvSink(TextTableSink):
    r"""Writes readings to a CSV file: a header, then one row each.

    UTF-8, commas, ``\n`` after each row, fields quoted where they must be. Floats have
    all their digits; NaN is ``nan``, an infinity ``inf``; what is not there is an empty
    field, as is empty text; half of a surrogate pair is its escape. Each call of
    :meth:`write_many` is one write to the file: when it returns, its rows survive
    ``kill -9``, and a row that a killed process left half-written is cut off when the
    file is opened again with ``append=True``. After :meth:`flush` or :meth:`close` they
    survive a power cut.

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
        good, place = 0, 0
        ours = file.read(len(_OURS)) == _OURS
        file.seek(0)
        for line, ends in _lines(file):
            place += len(line)
            if ends or not ours:
                good = place
        return good

    def _format(self, rows: list[tuple[Any, ...]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        content = text.getvalue()
        if "\r" in content:
            # Python before 3.13 quotes a line end only if it is its own.
            text = io.StringIO()
            writer = csv.writer(_Unix(text), lineterminator="\r\n")
            writer.writerows(rows)
            content = text.getvalue()
        # As `as_utf8` does.
        return content.encode(errors="backslashreplace")

    def _begin(self, names: list[str]) -> bytes:
        return self._format([tuple(names)])

    def _widen(self, new: list[str], file: AppendFile) -> AppendFile:
        path = self.path.with_name(f".{self.path.name}.new")
        wider = AppendFile(path, keep=False, whole=_nothing)
        try:
            with self.path.open("rb") as old:
                for rows in _longer(old, self._begin(new), len(new)):
                    wider.append(rows)
        except BaseException:
            wider.discard()
            raise
        return wider


class _Unix:
    r"""Takes rows that end in ``\r\n``, and writes them with ``\n``."""

    def __init__(self, text: io.StringIO) -> None:
        self._text = text

    def write(self, row: str) -> None:
        self._text.write(f"{row[:-2]}\n")


def _nothing(file: BinaryIO) -> int:
    return 0


def _lines(file: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each line, and whether a row ends with it: not while quotes are open."""
    quotes = 0
    for line in file:
        quotes += line.count(b'"')
        yield line, line.endswith(b"\n") and quotes % 2 == 0


def _longer(file: Iterable[bytes], names: bytes, count: int) -> Iterator[bytes]:
    """Yield the rows of a file with further fields, empty but in the header."""
    fields = b"," + names.rstrip(b"\n")
    rows = bytearray()
    for line, ends in _lines(file):
        if ends:
            row = line.rstrip(b"\r\n")
            rows += row + fields + line[len(row) :]
            fields = b"," * count
        else:
            rows += line
        if len(rows) > _COPIED_AT_ONCE:
            yield bytes(rows)
            rows.clear()
    yield bytes(rows)
