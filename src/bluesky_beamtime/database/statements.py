"""INSERT statements, compiled once from the tables, for the driver's own connection."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite

from bluesky_beamtime.database import schema


def compile_insert(table: Table, *columns: str, key: str = "uid") -> str:
    """Return an INSERT with one ``?`` for each column, in the order given.

    A row whose ``key`` is there already is left as it is, so that a document that
    arrives twice is stored once.
    """
    statement = (
        sqlite.insert(table)
        .values(dict.fromkeys(columns))
        .on_conflict_do_nothing(index_elements=[key])
    )
    compiled: Any = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
    order = cast("list[str]", compiled.positiontup)
    if order != list(columns):
        raise RuntimeError(f"{table.name}: {order} is not the order of {columns}")
    return str(compiled)


INSERT_RUN = compile_insert(
    schema.runs,
    "uid",
    "sample_id",
    "scan_id",
    "plan_name",
    "time_start",
    "metadata",
    "start",
    "writer",
)
INSERT_STREAM = compile_insert(
    schema.streams,
    "uid",
    "run_uid",
    "name",
    "data_keys",
    "time_created",
    "descriptor",
    "ordinal",
)
INSERT_EVENT = compile_insert(
    schema.events,
    "uid",
    "stream_uid",
    "seq_num",
    "time",
    "data",
    "timestamps",
    "filled",
    "rest",
    "ordinal",
)
INSERT_STREAM_RESOURCE = compile_insert(
    schema.stream_resources,
    "uid",
    "run_uid",
    "data_key",
    "mimetype",
    "uri",
    "parameters",
    "document",
    "ordinal",
)
INSERT_STREAM_DATUM = compile_insert(
    schema.stream_datums,
    "uid",
    "stream_resource",
    "stream_uid",
    "indices_start",
    "indices_stop",
    "seq_start",
    "seq_stop",
    "rest",
    "ordinal",
)
INSERT_RESOURCE = compile_insert(
    schema.resources,
    "uid",
    "run_uid",
    "spec",
    "root",
    "resource_path",
    "resource_kwargs",
    "document",
    "ordinal",
)
INSERT_DATUM = compile_insert(
    schema.datums,
    "datum_id",
    "resource",
    "datum_kwargs",
    "rest",
    "ordinal",
    key="datum_id",
)
INSERT_IMAGE_REF = compile_insert(
    schema.image_refs,
    "event_uid",
    "field_name",
    "zarr_group",
    "index_in_stack",
    "shape_x",
    "shape_y",
    "shape",
    "dtype",
    "compression_codec",
    key="id",
)
INSERT_TAG = str(
    sqlite.insert(schema.run_tags)
    .values(run_uid=None, tag=None)
    .on_conflict_do_nothing()
    .compile(dialect=sqlite.dialect(paramstyle="qmark"))
)
