"""What a server has beyond the tables of a beamtime: who copies there, and how far."""

from __future__ import annotations

from sqlalchemy import DDL, BigInteger, Column, Float, MetaData, Table, Text

metadata = MetaData()

sources = Table(
    "replica_sources",
    metadata,
    Column("source", Text, primary_key=True, comment="of a file, wherever it moves"),
    Column("name", Text, nullable=False, comment="of the file, for people"),
    Column("host", Text, nullable=False, comment="where the file is"),
    Column("store", Text, nullable=False, comment="URL of its Zarr store, for readers"),
    Column("journaled", Text, nullable=False, comment="JSON: runs in its journal"),
    Column("time_seen", Float(53), nullable=False, comment="when it was connected"),
)

positions = Table(
    "replica_positions",
    metadata,
    Column("source", Text, primary_key=True),
    Column("feed", Text, primary_key=True, comment="a table, or a pass over changes"),
    Column("position", BigInteger, nullable=False, comment="all up to it is here"),
    Column("anchor", Text, comment="key of the row at this position"),
)

source_runs = Table(
    "replica_runs",
    metadata,
    Column("run_uid", Text, primary_key=True),
    Column("source", Text, nullable=False, index=True),
)

source_notes = Table(
    "replica_notes",
    metadata,
    Column("source", Text, primary_key=True),
    Column("local_id", BigInteger, primary_key=True, autoincrement=False),
    Column("note_id", BigInteger, nullable=False),
)

refused = Table(
    "replica_refused",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("source", Text, nullable=False),
    Column("time", Float(53), nullable=False),
    Column("table_name", Text, nullable=False),
    Column("row", Text, nullable=False, comment="JSON"),
    Column("reason", Text, nullable=False),
)

stores = Table(
    "replica_stores",
    metadata,
    Column("source", Text, primary_key=True),
    Column("path", Text, primary_key=True, comment="in the Zarr store of the source"),
    Column("files", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("time", Float(53), nullable=False, comment="when its hashes were compared"),
)

# Numbers, text and lists inside JSON. Whatever PostgreSQL cannot take apart (a NUL in a
# text) is not found, and does not make a search fail.
FUNCTIONS = (
    DDL(
        "CREATE OR REPLACE FUNCTION beamtime_json(document text, path text[]) "
        "RETURNS json LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$ "
        "BEGIN RETURN document::json #> path; "
        "EXCEPTION WHEN others THEN RETURN NULL; END $body$"
    ),
    DDL(
        "CREATE OR REPLACE FUNCTION beamtime_text(document text, path text[]) "
        "RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$ "
        "BEGIN RETURN document::json #>> path; "
        "EXCEPTION WHEN others THEN RETURN NULL; END $body$"
    ),
)
