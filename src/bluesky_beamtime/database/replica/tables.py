"""What a server has beyond the tables of a beamtime: who copies there, and how far."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, MetaData, Table, Text

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
    Column("source", Text, nullable=False),
    Column("folder", Text, nullable=False, index=True, comment="of its arrays"),
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
