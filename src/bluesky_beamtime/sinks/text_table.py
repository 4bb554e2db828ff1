"""What CSV and JSON lines share: a growing text file of rows."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from bluesky_beamtime.errors import ErrorContext, SinkError, SinkSchemaError
from bluesky_beamtime.sinks.append_file import (
    AppendFile,
    check_choice,
    refuse_existing,
)
from bluesky_beamtime.sinks.base import ThreadedSink
from bluesky_beamtime.sinks.block_rows import block_values
from bluesky_beamtime.sinks.columns import Columns, SchemaPolicy
from bluesky_beamtime.sinks.layout import BLOCK_COLUMNS
from bluesky_beamtime.sinks.misuse import check_block, checked_readings
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading
from bluesky_beamtime.sinks.rows import Batch, reading_batches


class TextTableSink(ThreadedSink):
    """Rows in a text file, one batch after the other.

    Parameters
    ----------
    path
        The file; its folder is made.
    accept_blocks
        Take blocks too, as one row per channel and sample.
    schema
        What a row with a new column does: ``"evolve"``, ``"drop"`` or ``"raise"``.
    append
        Go on after what is in the file.
    overwrite
        Begin anew where a file is.
    """

    holds_both = False
    """Readings and blocks need a file each."""
    _text = True
    """Whether the values of readings come as text, but for numbers."""

    def __init__(
        self,
        path: str | Path,
        *,
        accept_blocks: bool = False,
        schema: SchemaPolicy = "evolve",
        append: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        check_choice(append, overwrite)
        self._path = Path(path)
        self._accept_blocks = accept_blocks
        self._append, self._overwrite = append, overwrite
        self._columns = Columns(schema, self.target)
        self._shape: str | None = None
        self._file: AppendFile | None = None
        self._rows_written = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def target(self) -> str:
        """The file, as text."""
        return str(self._path)

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns so far; None before the first row."""
        return None if self._columns.names is None else tuple(self._columns.names)

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Write readings, one row each: all of them, or none and an error.

        When it returns, they survive the end of the process, ``kill -9`` included.

        Raises
        ------
        SinkStateError
            It is not open.
        SinkSchemaError
            They do not fit the file.
        SinkWriteError
            The disk refused.
        """
        items = checked_readings(self, items)
        await self._work("write_many", self._write_readings, items, records=items)

    async def write(self, block: DaqBlock) -> None:
        """Write a block as one row per channel and sample, if ``accept_blocks=True``.

        When it returns, they survive the end of the process, ``kill -9`` included.

        Raises
        ------
        SinkError
            ``accept_blocks`` is not set; nothing was written.
        SinkStateError
            It is not open.
        SinkSchemaError
            The file has readings.
        SinkWriteError
            The disk refused.
        """
        if not self._accept_blocks:
            name = type(self).__name__
            raise SinkError(
                f"{name} refuses blocks by default; pass accept_blocks=True to write "
                "one row per channel and sample, or use ParquetSink, which holds them "
                "in far less space",
                context=ErrorContext(f"{name}.write", self.target),
                records=[block],
            )
        check_block(self, "write", block)
        await self._work("write", self._write_block, block, records=[block])

    def _write_readings(self, readings: list[DaqReading]) -> None:
        if readings:
            batches = reading_batches(readings, text=self._text)
            self._write_batches("readings", batches)

    def _write_block(self, block: DaqBlock) -> None:
        rows = list(block_values(block))
        if rows:
            self._write_batches("blocks", [Batch(BLOCK_COLUMNS, rows)])

    # ---------------------------------------------------------- what a format adds

    def _shape_of(self, columns: Sequence[str]) -> str:
        return "blocks" if tuple(columns) == BLOCK_COLUMNS else "readings"

    @abstractmethod
    def _read_columns(self, file: BinaryIO) -> list[str] | None:
        """Return the columns of a file that has rows."""

    @abstractmethod
    def _whole(self, file: BinaryIO) -> int:
        """Return how many bytes of a file are whole rows."""

    @abstractmethod
    def _format(self, rows: list[tuple[Any, ...]]) -> bytes | bytearray:
        """Return rows in the order of the columns as the bytes of the file."""

    def _begin(self, names: list[str]) -> bytes:
        """Return what stands before the first row."""
        return b""

    def _widen(self, new: list[str], file: AppendFile) -> AppendFile:
        """Return the file, or a copy with place for columns that replaces it."""
        return file

    # ------------------------------------------------------------------------ work

    def _open(self, again: bool) -> None:
        keep = again or self._append
        refuse_existing(
            self._path,
            type(self).__name__,
            append=keep,
            overwrite=self._overwrite,
        )
        names: list[str] | None = None

        def look(file: BinaryIO) -> int:
            nonlocal names
            # Before anything is cut off: a file of another kind is left as it is.
            names = self._read_columns(file)
            file.seek(0)
            return self._whole(file)

        file = AppendFile(self._path, keep=keep, whole=look)
        try:
            if not _ends_a_line(self._path):
                file.append(b"\n")
        except BaseException:
            file.close()
            raise
        self._file = file
        self._columns.names = None
        self._shape = None
        if self._file.size and names is not None:
            self._columns.add(names)
            self._shape = self._shape_of(names)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _flush(self) -> None:
        assert self._file is not None
        self._file.sync()

    def _counts(self) -> dict[str, Any]:
        return {"rows_written": self._rows_written}

    def _write_batches(self, shape: str, batches: list[Batch]) -> None:
        if self._shape not in (None, shape):
            raise SinkSchemaError(
                f"{self._path} has {self._shape}; {shape} go into a file of their own, "
                "since their columns differ"
            )
        before = self._columns.names
        try:
            new = self._columns.learn(batch.columns for batch in batches)
            data = b"".join(
                self._format(self._columns.fit(batch.columns, batch.rows))
                for batch in batches
            )
            self._put(before, new, data)
        except BaseException:
            self._columns.names = before
            self._columns.add(())
            if before is None:
                self._columns.names = None
            raise
        self._shape = shape
        self._rows_written += sum(len(batch.rows) for batch in batches)

    def _put(self, before: list[str] | None, new: list[str], data: bytes) -> None:
        file = there = self._file
        assert file is not None
        assert there is not None
        if before is None:
            data = self._begin(new) + data
        elif new:
            file = self._widen(new, there)
        if file is there:
            file.append(data)
            return
        try:
            file.append(data)
            file.take_place_of(there)
        except BaseException:
            file.discard()
            raise
        self._file = file


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
