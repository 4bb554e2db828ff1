"""Every table and index of a beamtime, in one place.

The file can be read with plain ``sqlite3``::

    SELECT scan_id, began, plan_name, sample, exit_status FROM run_list LIMIT 10;

    SELECT seq_num, value FROM event_values
    WHERE scan_id = 214 AND stream = 'primary' AND field = 'motor' ORDER BY seq_num;

``run_list`` and ``event_values`` are views, made of the tables below::

    SELECT events.seq_num, json_extract(events.data, '$.motor')
    FROM events JOIN streams ON streams.uid = events.stream_uid
    WHERE streams.run_uid = '…' AND streams.name = 'primary' ORDER BY events.seq_num;

Conventions: times are seconds since 1970 (UTC); columns that hold JSON are named in
their comment and written as :mod:`bluesky_beamtime.database.encoding` says; ``ordinal``
counts the documents of one run in the order in which they were emitted, whatever their
kind; URIs inside the beamtime's folder are relative to the folder of the database.

Arrays are never stored here: they are in the Zarr store beside the file.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
)
from sqlalchemy import Text as _Text

SCHEMA_VERSION = 2
"""Version of the tables below, kept in SQLite's ``user_version``."""

APPLICATION_ID = 0x62626D74
"""``bbmt``, kept in SQLite's ``application_id``."""

metadata = MetaData()

# PostgreSQL orders text by the customs of some country unless told otherwise; SQLite by
# its characters, which is what finding a uid by its beginning relies on.
Text = _Text().with_variant(_Text(collation="C"), "postgresql")

# SQLite numbers rows by itself only in a column of type INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


def _fk(target: str, *, optional: bool = False) -> Column[str]:
    """Return a column that refers to a run or stream, and goes with it."""
    table = target.partition(".")[0]
    names = {"runs": "run_uid", "streams": "stream_uid", "events": "event_uid"}
    return Column(
        names[table],
        Text,
        ForeignKey(target, ondelete="CASCADE"),
        nullable=optional,
    )


def _ordinal() -> Column[int]:
    return Column("ordinal", BigInteger, nullable=False)


samples = Table(
    "samples",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("formula", Text),
    Column("serial", Text),
    Column("tags", Text, nullable=False, comment="JSON list of text"),
    Column("beamline_pos", Text),
    Column("extra", Text, nullable=False, comment="JSON object"),
    Column("time_changed", Float(53), comment="when it last became what it is"),
)

sample_history = Table(
    "sample_history",
    metadata,
    Column("id", _Id, primary_key=True),
    Column(
        "sample_id",
        _Id,
        ForeignKey("samples.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("time", Float(53), nullable=False, comment="from then on it was this"),
    Column("sample", Text, nullable=False, comment="JSON object, all its columns"),
)
Index("sample_history_sample_id", sample_history.c.sample_id, sample_history.c.time)

people = Table(
    "people",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("email", Text),
    Column("orcid", Text, unique=True, comment="0000-0000-0000-0000, checked"),
    Column("affiliation", Text),
)
Index("people_name", people.c.name)

runs = Table(
    "runs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),
    Column("sample_id", _Id, ForeignKey("samples.id")),
    Column("scan_id", BigInteger),
    Column("plan_name", Text),
    Column("time_start", Float(53)),
    Column("time_stop", Float(53)),
    Column("exit_status", Text, comment="success, abort, fail or interrupted"),
    Column("num_events", BigInteger, comment="of all streams, set when the run ends"),
    Column("metadata", Text, nullable=False, comment="JSON, what the user said"),
    Column("start", Text, nullable=False, comment="JSON, the RunStart document"),
    Column("stop", Text, comment="JSON, the RunStop document"),
    Column("stop_ordinal", BigInteger),
    Column("writer", Text, comment="lock file of the process that records the run"),
    Column("proposal", Text, comment="number or name of the proposal"),
    Column("starred", Integer, nullable=False, server_default="0", comment="0 or 1"),
)
Index("runs_scan_id", runs.c.scan_id)
Index("runs_plan_name", runs.c.plan_name)
Index("runs_sample_id", runs.c.sample_id)
Index("runs_time_start", runs.c.time_start)
Index("runs_proposal", runs.c.proposal)
Index("runs_starred", runs.c.id, sqlite_where=runs.c.starred == 1)
Index("runs_open", runs.c.id, sqlite_where=runs.c.exit_status.is_(None))
Index("runs_exit_status", runs.c.exit_status)

run_tags = Table(
    "run_tags",
    metadata,
    Column(
        "run_uid", Text, ForeignKey("runs.uid", ondelete="CASCADE"), primary_key=True
    ),
    Column("tag", Text, primary_key=True),
)
Index("run_tags_tag", run_tags.c.tag)

run_people = Table(
    "run_people",
    metadata,
    Column(
        "run_uid", Text, ForeignKey("runs.uid", ondelete="CASCADE"), primary_key=True
    ),
    Column("person_id", _Id, ForeignKey("people.id"), primary_key=True),
    Column("role", Text, comment="such as user, operator, local contact"),
)
Index("run_people_person_id", run_people.c.person_id)

notes = Table(
    "notes",
    metadata,
    Column("id", _Id, primary_key=True),
    Column(
        "run_uid",
        Text,
        ForeignKey("runs.uid", ondelete="CASCADE"),
        comment="NULL: of the beamtime as a whole",
    ),
    Column("time", Float(53), nullable=False),
    Column("author", Text),
    Column("text", Text, nullable=False),
)
Index("notes_run_uid", notes.c.run_uid)

frame_accounts = Table(
    "frame_accounts",
    metadata,
    Column(
        "run_uid", Text, ForeignKey("runs.uid", ondelete="CASCADE"), primary_key=True
    ),
    Column("data_key", Text, primary_key=True),
    Column("expected", BigInteger, comment="NULL where nobody counted, as below"),
    Column("received", BigInteger),
    Column("dropped", BigInteger),
    Column("late", BigInteger),
    Column("written", BigInteger),
)

run_texts = Table(
    "run_texts",
    metadata,
    Column(
        "run_id",
        _Id,
        ForeignKey("runs.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column(
        "text", Text, nullable=False, comment="all that can be found, see run_texts_fts"
    ),
)

streams = Table(
    "streams",
    metadata,
    Column("uid", Text, primary_key=True, comment="uid of the EventDescriptor"),
    _fk("runs.uid"),
    Column("name", Text, nullable=False, comment="several rows when described anew"),
    Column("data_keys", Text, nullable=False, comment="JSON object"),
    Column("time_created", Float(53)),
    Column("descriptor", Text, nullable=False, comment="JSON, the whole document"),
    _ordinal(),
)
Index("streams_run_uid", streams.c.run_uid)

events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),
    _fk("streams.uid"),
    Column("seq_num", BigInteger, nullable=False),
    Column("time", Float(53), comment="NULL for what is no finite number"),
    Column("data", Text, nullable=False, comment="JSON object"),
    Column("timestamps", Text, nullable=False, comment="JSON object"),
    Column("filled", Text, nullable=False, comment="JSON object"),
    Column("rest", Text, comment="JSON: keys, and what the columns cannot hold"),
    _ordinal(),
)
Index("events_stream_uid", events.c.stream_uid, events.c.ordinal)

event_columns = Table(
    "event_columns",
    metadata,
    Column(
        "stream_uid",
        Text,
        ForeignKey("streams.uid", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column(
        "part", Text, primary_key=True, comment="data, timestamps, or a column's name"
    ),
    Column("field", Text, primary_key=True, comment="empty for a column"),
    Column("dtype", Text, nullable=False, comment="of NumPy, little-endian"),
    Column("num_events", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False, comment="the values, in order"),
)

image_refs = Table(
    "image_refs",
    metadata,
    Column("id", _Id, primary_key=True),
    _fk("events.uid"),
    Column("field_name", Text, nullable=False),
    Column(
        "zarr_group", Text, nullable=False, comment="path of the array in the store"
    ),
    Column("index_in_stack", BigInteger, nullable=False),
    Column("shape_x", BigInteger, comment="width, the last dimension"),
    Column("shape_y", BigInteger, comment="height, the last but one"),
    Column("shape", Text, nullable=False, comment="JSON list"),
    Column("dtype", Text, nullable=False),
    Column("compression_codec", Text, nullable=False),
)
Index("image_refs_event_uid", image_refs.c.event_uid)

stream_resources = Table(
    "stream_resources",
    metadata,
    Column("uid", Text, primary_key=True),
    _fk("runs.uid"),
    Column("data_key", Text, nullable=False),
    Column("mimetype", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("parameters", Text, nullable=False, comment="JSON object"),
    Column("document", Text, nullable=False, comment="JSON, as emitted"),
    _ordinal(),
)
Index("stream_resources_run_uid", stream_resources.c.run_uid)

stream_datums = Table(
    "stream_datums",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),
    Column(
        "stream_resource",
        Text,
        ForeignKey("stream_resources.uid", ondelete="CASCADE"),
        nullable=False,
    ),
    _fk("streams.uid"),
    Column("indices_start", BigInteger, nullable=False),
    Column("indices_stop", BigInteger, nullable=False),
    Column("seq_start", BigInteger, nullable=False),
    Column("seq_stop", BigInteger, nullable=False),
    Column("rest", Text, comment="JSON: keys, and what the columns cannot hold"),
    _ordinal(),
)
Index("stream_datums_stream_uid", stream_datums.c.stream_uid, stream_datums.c.ordinal)

resources = Table(
    "resources",
    metadata,
    Column("uid", Text, primary_key=True),
    _fk("runs.uid"),
    Column("spec", Text),
    Column("root", Text),
    Column("resource_path", Text),
    Column("resource_kwargs", Text, comment="JSON object"),
    Column("document", Text, nullable=False, comment="JSON, as emitted"),
    _ordinal(),
)
Index("resources_run_uid", resources.c.run_uid)

datums = Table(
    "datums",
    metadata,
    Column("datum_id", Text, primary_key=True),
    Column(
        "resource",
        Text,
        ForeignKey("resources.uid", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("datum_kwargs", Text, nullable=False, comment="JSON object"),
    Column("rest", Text, comment="JSON: keys, and what the columns cannot hold"),
    _ordinal(),
)
Index("datums_resource", datums.c.resource, datums.c.ordinal)

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False, comment="JSON"),
)

# Full text in SQLite: an index over run_texts in which any three characters in a row
# are found, upper or lower case, kept up to date by triggers. It holds no text itself.
_FULL_TEXT = (
    """CREATE VIRTUAL TABLE run_texts_fts USING fts5(
        text, content='run_texts', content_rowid='run_id', tokenize='trigram')""",
    """CREATE TRIGGER run_texts_insert AFTER INSERT ON run_texts BEGIN
        INSERT INTO run_texts_fts(rowid, text) VALUES (new.run_id, new.text);
    END""",
    """CREATE TRIGGER run_texts_delete AFTER DELETE ON run_texts BEGIN
        INSERT INTO run_texts_fts(run_texts_fts, rowid, text)
        VALUES ('delete', old.run_id, old.text);
    END""",
    """CREATE TRIGGER run_texts_update AFTER UPDATE ON run_texts BEGIN
        INSERT INTO run_texts_fts(run_texts_fts, rowid, text)
        VALUES ('delete', old.run_id, old.text);
        INSERT INTO run_texts_fts(rowid, text) VALUES (new.run_id, new.text);
    END""",
)

# For people with the sqlite3 command: a run in a line, a value in a line.
_VIEWS = (
    """CREATE VIEW run_list AS
    SELECT runs.scan_id, datetime(runs.time_start, 'unixepoch', 'localtime') AS began,
        runs.plan_name, samples.name AS sample, runs.exit_status, runs.num_events,
        round(runs.time_stop - runs.time_start, 1) AS seconds,
        runs.proposal, runs.starred,
        (SELECT group_concat(tag, ', ') FROM run_tags
            WHERE run_tags.run_uid = runs.uid) AS tags,
        (SELECT group_concat(text, ' | ') FROM notes
            WHERE notes.run_uid = runs.uid) AS notes,
        runs.uid
    FROM runs LEFT JOIN samples ON samples.id = runs.sample_id
    ORDER BY runs.id DESC""",
    """CREATE VIEW event_values AS
    SELECT runs.scan_id, runs.uid AS run_uid, streams.name AS stream, events.seq_num,
        events.time, field.key AS field, field.value AS value
    FROM runs JOIN streams ON streams.run_uid = runs.uid
        JOIN events ON events.stream_uid = streams.uid
        JOIN json_each(events.data) AS field""",
)

SQLITE_EXTRAS = tuple(DDL(statement) for statement in (*_FULL_TEXT, *_VIEWS))
"""What SQLite has beyond tables and indexes, in the order in which it is made."""

# What has changed, for replicas: made when the first replica of a file is, so that
# files without one do without it. A row says that something of a run (or a sample, …)
# has changed since, and moves to the end when it changes again: there are never more
# rows than runs, samples and people. Events and datums are only ever added, and their
# own numbers tell which are new.
_CHANGED = {
    "runs": ("run", "{row}.uid"),
    "run_tags": ("run", "{row}.run_uid"),
    "run_people": ("run", "{row}.run_uid"),
    "frame_accounts": ("run", "{row}.run_uid"),
    "streams": ("run", "{row}.run_uid"),
    "stream_resources": ("run", "{row}.run_uid"),
    "resources": ("run", "{row}.run_uid"),
    "run_texts": ("run", "(SELECT uid FROM runs WHERE id = {row}.run_id)"),
    "notes": ("note", "CAST({row}.id AS TEXT)"),
    "event_columns": ("columns", "{row}.stream_uid"),
    "samples": ("sample", "CAST({row}.id AS TEXT)"),
    "sample_history": ("sample", "CAST({row}.sample_id AS TEXT)"),
    "people": ("person", "CAST({row}.id AS TEXT)"),
}


def _change_triggers(table: str, kind: str, key: str) -> list[str]:
    found: list[str] = []
    for action, row in (("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old")):
        value = key.format(row=row)
        found.append(
            f"CREATE TRIGGER IF NOT EXISTS changes_{table}_{action.lower()} "
            f"AFTER {action} ON {table} WHEN {value} IS NOT NULL BEGIN "
            f"DELETE FROM changes WHERE kind = '{kind}' AND key = {value}; "
            f"INSERT INTO changes(kind, key) VALUES ('{kind}', {value}); END"
        )
    return found


CHANGE_FEED = (
    """CREATE TABLE IF NOT EXISTS changes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        UNIQUE (kind, key))""",
    *(
        statement
        for table, (kind, key) in _CHANGED.items()
        for statement in _change_triggers(table, kind, key)
    ),
)
"""Statements that make the feed of changes in an SQLite file; they may be repeated."""
