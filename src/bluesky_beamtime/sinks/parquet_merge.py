"""Several Parquet files as one, with columns that hold the values of all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from bluesky_beamtime.sinks.arrow import EXACT, cast_column, table_of_rows, unified
from bluesky_beamtime.sinks.layout import HEAD, TAIL
from bluesky_beamtime.sinks.parquet_files import (
    KEY,
    READINGS_PER_GROUP,
    facts_of,
    parquet,
    sync_file,
)


def merge(
    sources: list[Path],
    path: Path,
    shape: str | None,
    options: dict[str, Any],
    row_group_size: int | None,
) -> None:
    """Put files together into one, which is there whole or not at all.

    Parameters
    ----------
    sources
        The files; one of them may be ``path``.
    path
        What becomes of them.
    shape
        Whether their rows are readings or blocks, whose row groups stay as they are.
    options
        How columns are stored.
    row_group_size
        Rows of a row group at most; None for the usual.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    schema = _schema(sources, shape)
    try:
        writer = parquet().ParquetWriter(unfinished, schema, **options)
        with writer:
            for group in _groups(sources, schema, shape, row_group_size):
                size = row_group_size or max(1, group.num_rows)
                writer.write_table(group, row_group_size=size)
        sync_file(unfinished)
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _schema(sources: list[Path], shape: str | None) -> Any:
    """Return a schema that holds the rows of all of them, with what it holds."""
    import pyarrow

    pa = cast("Any", pyarrow)
    held: dict[str, int] = {}
    kinds: dict[str, list[Any]] = {}
    for path in sources:
        schema = parquet().read_schema(path)
        for field in schema:
            kinds.setdefault(field.name, []).append(field.type)
        facts = facts_of(path)
        held.update(facts.get("parts", {}))
        if "session" in facts:
            count = facts["number"] + 1
            held[facts["session"]] = max(count, held.get(facts["session"], 0))
    fields: list[Any] = []
    for name, found in kinds.items():
        several = len(set(found)) > 1
        exact = not several or _exact_as_floats(sources, name)
        fields.append(pa.field(name, unified(found, exact)))
    facts = {"shape": shape, "parts": held}
    if not sources:
        fields = list(table_of_rows((*HEAD, *TAIL), [(None,) * 10]).schema)
    return pa.schema(fields, {KEY: json.dumps(facts)})


def _groups(
    sources: list[Path], schema: Any, shape: str | None, row_group_size: int | None
) -> Iterator[Any]:
    """Yield tables, each of which becomes a row group."""
    import pyarrow

    pa = cast("Any", pyarrow)
    size = row_group_size or READINGS_PER_GROUP
    waiting: list[Any] = []
    rows = 0
    for path in sources:
        with parquet().ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                group = _fitted(file.read_row_group(number), schema)
                if shape == "blocks":
                    yield group
                    continue
                waiting.append(group)
                rows += group.num_rows
                if rows >= size:
                    yield pa.concat_tables(waiting)
                    waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _fitted(table: Any, schema: Any) -> Any:
    import pyarrow

    pa = cast("Any", pyarrow)
    there = set(table.column_names)
    columns = [
        cast_column(table.column(field.name), field.type)
        if field.name in there
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _exact_as_floats(sources: list[Path], name: str) -> bool:
    """Return whether all whole numbers of a column are exact as floats."""
    import pyarrow
    import pyarrow.compute

    pa, compute = cast("Any", pyarrow), cast("Any", pyarrow.compute)
    for path in sources:
        schema = parquet().read_schema(path)
        if name not in schema.names or not pa.types.is_integer(schema.field(name).type):
            continue
        column = parquet().read_table(path, columns=[name]).column(name)
        limits = compute.min_max(column).as_py()
        for limit in limits.values():
            if limit is not None and abs(limit) > EXACT:
                return False
    return True
