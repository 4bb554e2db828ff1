"""A Parquet file that is written while its parts are, to be ready when they end."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, cast

from bluesky_beamtime.sinks.parquet_files import (
    KEY,
    READINGS_PER_GROUP,
    parquet,
    sync_file,
)


class Growing:
    """The file, written beside its parts as long as its columns stay the same.

    Nobody can read it before it is finished, and it is not safe from a kill: the parts
    are. It spares reading them again at the end.
    """

    def __init__(
        self,
        path: Path,
        session: str,
        options: dict[str, Any],
        row_group_size: int | None,
    ) -> None:
        self._path = path
        self._unfinished = path.with_name(f".{path.name}.unfinished")
        self._session = session
        self._options = options
        self._row_group_size = row_group_size
        self._schema: Any = None
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._rows = 0

    def add(self, table: Any, shape: str) -> bool:
        """Add a table; False if it cannot be, and the file is given up."""
        try:
            if self._writer is None:
                self._begin(table, shape)
            elif not table.schema.equals(self._schema, check_metadata=False):
                self._give_up()
                return False
            self._waiting.append(table)
            self._rows += table.num_rows
            if shape == "blocks" or self._rows >= self._group:
                self._write()
        except Exception:
            # The parts have it all; what is wrong will be said when they are combined.
            self._give_up()
            return False
        return True

    @property
    def _group(self) -> int:
        return self._row_group_size or READINGS_PER_GROUP

    def _begin(self, table: Any, shape: str) -> None:
        # All parts of this session, however many there will be.
        facts = {"shape": shape, "parts": {self._session: 2**53}}
        self._schema = table.schema
        schema = table.schema.with_metadata({KEY: json.dumps(facts)})
        self._writer = parquet().ParquetWriter(
            self._unfinished, schema, **self._options
        )

    def _write(self) -> None:
        import pyarrow

        if self._waiting:
            table = cast("Any", pyarrow).concat_tables(self._waiting)
            size = self._row_group_size or max(1, table.num_rows)
            self._writer.write_table(
                table.replace_schema_metadata(self._writer.schema.metadata),
                row_group_size=size,
            )
        self._waiting, self._rows = [], 0

    def _give_up(self) -> None:
        self._waiting = []
        with contextlib.suppress(Exception):
            if self._writer is not None:
                self._writer.close()
        with contextlib.suppress(OSError):
            self._unfinished.unlink(missing_ok=True)

    def finish(self) -> bool:
        """Put the file in its place; False if it could not be finished."""
        if self._writer is None:
            return False
        try:
            self._write()
            self._writer.close()
            sync_file(self._unfinished)
            self._unfinished.replace(self._path)
        except Exception:
            self._give_up()
            return False
        return True
