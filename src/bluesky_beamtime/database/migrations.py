"""The steps from one version of the tables to the next, numbered and frozen.

A step is plain SQL that says what was true when it was written: it must not depend on
:mod:`~bluesky_beamtime.database.schema`, which goes on changing. Whoever changes the
tables raises ``SCHEMA_VERSION``, adds a step here, and freezes a file of the version
before in ``tests/data/databases``; the tests compare what the steps make of it with a
new file.
"""

from __future__ import annotations

from typing import Final

TEXTS_OF_VERSION_1: Final = """
SELECT runs.id AS run_id, (
    SELECT coalesce(group_concat(word, char(10)), '') FROM (
        SELECT tree.atom AS word FROM json_tree(runs.start) AS tree
        WHERE tree.type IN ('text', 'integer', 'real')
            AND tree.fullkey NOT IN ('$.uid', '$.time')
        UNION
        SELECT tree.atom FROM samples, json_tree(json_array(samples.name,
            samples.formula, samples.serial, json(samples.tags),
            samples.beamline_pos, json(samples.extra))) AS tree
        WHERE samples.id = runs.sample_id
            AND tree.type IN ('text', 'integer', 'real')
        UNION
        SELECT json_extract(runs.stop, '$.reason') WHERE json_extract(runs.stop,
            '$.reason') <> ''
        UNION
        SELECT tag FROM run_tags WHERE run_tags.run_uid = runs.uid
    )) AS text
FROM runs"""
"""What the runs of a file of version 1 are found by, which it does not hold itself."""

_TO_2 = (
    "ALTER TABLE samples ADD COLUMN time_changed FLOAT",
    "ALTER TABLE runs ADD COLUMN proposal TEXT",
    "ALTER TABLE runs ADD COLUMN starred INTEGER DEFAULT '0' NOT NULL",
    """CREATE TABLE sample_history (
        id INTEGER NOT NULL,
        sample_id INTEGER NOT NULL,
        time FLOAT NOT NULL,
        sample TEXT NOT NULL,
        PRIMARY KEY (id),
        FOREIGN KEY(sample_id) REFERENCES samples (id) ON DELETE CASCADE
    )""",
    "CREATE INDEX sample_history_sample_id ON sample_history (sample_id, time)",
    """CREATE TABLE people (
        id INTEGER NOT NULL,
        name TEXT NOT NULL,
        email TEXT,
        orcid TEXT,
        affiliation TEXT,
        PRIMARY KEY (id),
        UNIQUE (orcid)
    )""",
    "CREATE INDEX people_name ON people (name)",
    """CREATE TABLE run_people (
        run_uid TEXT NOT NULL,
        person_id INTEGER NOT NULL,
        role TEXT,
        PRIMARY KEY (run_uid, person_id),
        FOREIGN KEY(run_uid) REFERENCES runs (uid) ON DELETE CASCADE,
        FOREIGN KEY(person_id) REFERENCES people (id)
    )""",
    "CREATE INDEX run_people_person_id ON run_people (person_id)",
    """CREATE TABLE notes (
        id INTEGER NOT NULL,
        run_uid TEXT,
        time FLOAT NOT NULL,
        author TEXT,
        text TEXT NOT NULL,
        PRIMARY KEY (id),
        FOREIGN KEY(run_uid) REFERENCES runs (uid) ON DELETE CASCADE
    )""",
    "CREATE INDEX notes_run_uid ON notes (run_uid)",
    """CREATE TABLE frame_accounts (
        run_uid TEXT NOT NULL,
        data_key TEXT NOT NULL,
        expected BIGINT,
        received BIGINT,
        dropped BIGINT,
        late BIGINT,
        written BIGINT,
        PRIMARY KEY (run_uid, data_key),
        FOREIGN KEY(run_uid) REFERENCES runs (uid) ON DELETE CASCADE
    )""",
    """CREATE TABLE run_texts (
        run_id INTEGER NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (run_id),
        FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
    )""",
    """CREATE TABLE event_columns (
        stream_uid TEXT NOT NULL,
        part TEXT NOT NULL,
        field TEXT NOT NULL,
        dtype TEXT NOT NULL,
        num_events BIGINT NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (stream_uid, part, field),
        FOREIGN KEY(stream_uid) REFERENCES streams (uid) ON DELETE CASCADE
    )""",
    "CREATE INDEX runs_proposal ON runs (proposal)",
    "CREATE INDEX runs_starred ON runs (id) WHERE starred = 1",
    "CREATE INDEX runs_exit_status ON runs (exit_status)",
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
    # What the tables hold from now on, as far as the start documents tell.
    """UPDATE runs SET proposal = CASE json_type(start, '$.proposal')
        WHEN 'text' THEN nullif(json_extract(start, '$.proposal'), '')
        WHEN 'integer' THEN CAST(json_extract(start, '$.proposal') AS TEXT)
        WHEN 'object' THEN CAST(coalesce(
            json_extract(start, '$.proposal.proposal_id'),
            json_extract(start, '$.proposal.proposal_num'),
            json_extract(start, '$.proposal.number'),
            json_extract(start, '$.proposal.id'),
            json_extract(start, '$.proposal.name'),
            json_extract(start, '$.proposal.title')) AS TEXT)
    END""",
    f"INSERT INTO run_texts (run_id, text) {TEXTS_OF_VERSION_1}",
)

STEPS: Final[dict[int, tuple[str, ...]]] = {1: _TO_2}
"""The statements that lead on from each version, to the next one."""
