"""Rows in a Parquet file, by way of finished parts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bluesky_beamtime.errors import (
    ErrorContext,
    SinkDependencyError,
    SinkSchemaError,
    SinkWriteError,
)
from bluesky_beamtime.sinks.append_file import check_choice, refuse_existing
from bluesky_beamtime.sinks.base import ThreadedSink
from bluesky_beamtime.sinks.columns import Columns, SchemaPolicy
from bluesky_beamtime.sinks.layout import BLOCK_COLUMNS
from bluesky_beamtime.sinks.misuse import check_block, checked_readings
from bluesky_beamtime.sinks.parquet_parts import Parts
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading
from bluesky_beamtime.sinks.rows import reading_batches

_COMPRESSIONS = ("none", "snappy", "gzip", "brotli", "lz4", "zstd")


class ParquetSink(ThreadedSink):
    """Writes readings, or the samples of blocks, to a Parquet file.

    A Parquet file cannot be read before it is finished. So each call writes into small
    finished files, ``<stem>.part-NNNNN.parquet`` beside ``path``, and ``close`` puts
    them together into one file at ``path``. A block has a part of its own. Readings go
    on in the last part, which a longer one replaces at once or not at all, until it has
    500 rows, its columns change or :meth:`flush` was called. When :meth:`write` or
    :meth:`write_many` returns, its rows survive ``kill -9`` and can be read by anybody;
    after :meth:`flush` or :meth:`close` they survive a power cut. What a killed process
    left is taken up by ``append=True``; ``close`` then makes one file of it.

    A block is one row group in the end; readings are gathered into row groups of
    100 000. Times are timestamps (microseconds, UTC). Whole numbers are ``int64``,
    numbers of samples have the type of the block's data. A column whose type changes
    gets one that holds every value exactly, text if nothing else does. In text, half of
    a surrogate pair becomes its escape.

    Parameters
    ----------
    path
        The file; its folder is made. One that is there is refused, unless ``append`` or
        ``overwrite`` is set, and so are parts.
    compression
        ``"zstd"``, ``"lz4"``, ``"snappy"``, ``"gzip"``, ``"brotli"`` or ``"none"``.
    use_dictionary
        Store repeated values once.
    row_group_size
        Rows of a row group at most; by default as above.
    schema
        What a row with a new column does: ``"evolve"`` adds it, ``"drop"`` leaves it
        out with one warning, ``"raise"`` refuses the batch.
    append
        Go on after what is in the file and in parts beside it.
    overwrite
        Begin anew where a file or parts are.
    """

    kind = "parquet"
    holds_both = False
    """Readings and blocks need a file each."""

    def __init__(
        self,
        path: str | Path,
        *,
        compression: str = "zstd",
        use_dictionary: bool = True,
        row_group_size: int | None = None,
        schema: SchemaPolicy = "evolve",
        append: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        check_choice(append, overwrite)
        if compression not in _COMPRESSIONS:
            raise ValueError(
                f"compression={compression!r}: one of {', '.join(_COMPRESSIONS)}"
            )
        if row_group_size is not None and row_group_size < 1:
            raise ValueError(
                f"row_group_size must be >= 1 if set, got {row_group_size!r}"
            )
        self._path = Path(path)
        self._compression = compression
        self._append, self._overwrite = append, overwrite
        self._columns = Columns(schema, self.target)
        self._shape: str | None = None
        self._rows_written = 0
        self._parts = Parts(self._path, compression, use_dictionary, row_group_size)

    @property
    def path(self) -> Path:
        """The file that ``close`` makes."""
        return self._path

    @property
    def target(self) -> str:
        """The file, as text."""
        return str(self._path)

    @property
    def compression(self) -> str:
        """How the columns are compressed."""
        return self._compression

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns so far; None before the first row."""
        return None if self._columns.names is None else tuple(self._columns.names)

    @property
    def shape(self) -> str | None:
        """``"readings"`` or ``"blocks"``, as the first write decided; None before."""
        return self._shape

    @property
    def parts(self) -> list[Path]:
        """The finished parts that ``close`` will put together, oldest first."""
        return list(self._parts.paths)

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Write readings, one row each: all of them, or none and an error.

        Raises
        ------
        SinkStateError
            It is not open.
        SinkSchemaError
            They do not fit the file, or it has blocks.
        SinkWriteError
            The disk refused.
        """
        items = checked_readings(self, items)
        await self._work("write_many", self._write_readings, items, records=items)

    async def write(self, block: DaqBlock) -> None:
        """Write a block: a row per channel and sample, as ``block_to_rows`` has them.

        Raises
        ------
        SinkStateError
            It is not open.
        SinkSchemaError
            The file has readings.
        SinkWriteError
            The disk refused.
        """
        check_block(self, "write", block)
        await self._work("write", self._write_block, block, records=[block])

    # ------------------------------------------------------------------------ work

    def _open(self, again: bool) -> None:
        try:
            import_module("pyarrow.parquet")
        except ImportError as error:
            raise SinkDependencyError(
                "ParquetSink",
                "pyarrow",
                "parquet",
                context=ErrorContext("ParquetSink.open", self.target),
            ) from error
        keep = again or self._append
        refuse_existing(
            self._path, "ParquetSink", append=keep, overwrite=self._overwrite
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._parts.lock()
        try:
            self._begin(keep)
        except BaseException:
            self._parts.unlock()
            raise

    def _begin(self, keep: bool) -> None:
        left = self._parts.find()
        if left and not (keep or self._overwrite):
            raise SinkWriteError(
                f"{left[0]} is there: a process that was killed left it. append=True "
                "takes it up, overwrite=True begins anew",
                filename=str(left[0]),
            )
        if not keep:
            self._parts.remove_all()
        self._parts.open(uuid.uuid4().hex[:8])
        self._columns.names = None
        self._shape, names = self._parts.look()
        if names is not None and self._shape is not None:
            self._columns.add(names)

    def _close(self) -> None:
        try:
            self._parts.combine(self._shape)
        finally:
            self._parts.unlock()

    def _flush(self) -> None:
        self._parts.sync()

    def _counts(self) -> dict[str, Any]:
        return {"rows_written": self._rows_written}

    def _lock_shape(self, shape: str) -> None:
        if self._shape not in (None, shape):
            raise SinkSchemaError(
                f"ParquetSink locked on {self._shape!r}; cannot mix {shape!r} into the "
                f"same file {self._path}. Write them to a file of their own"
            )

    def _write_readings(self, readings: list[DaqReading]) -> None:
        from bluesky_beamtime.sinks.arrow import table_of_rows

        if not readings:
            return
        self._lock_shape("readings")
        batches = reading_batches(readings)
        before = self._columns.names
        try:
            self._columns.learn(batch.columns for batch in batches)
            rows = [
                row
                for batch in batches
                for row in self._columns.fit(batch.columns, batch.rows)
            ]
            table = table_of_rows(self._columns.names or [], rows)
            self._parts.write(table, "readings")
        except BaseException:
            self._columns.add(())
            self._columns.names = before
            raise
        self._shape = "readings"
        self._rows_written += len(rows)

    def _write_block(self, block: DaqBlock) -> None:
        from bluesky_beamtime.sinks.arrow import table_of_block

        self._lock_shape("blocks")
        table = table_of_block(block)
        if table.num_rows:
            self._parts.write(table, "blocks")
            if self._columns.names is None:
                self._columns.add(BLOCK_COLUMNS)
            self._shape = "blocks"
            self._rows_written += table.num_rows
