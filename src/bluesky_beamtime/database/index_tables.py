"""The tables of an index over many beamtimes, and connections to its file.

What is known of a run stands in ``runs_index``. The view ``runs`` and the tables beside
it have the names and columns by which a beamtime is searched, so that a search asks
both kinds of file in the same words.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from bluesky_beamtime.database.connect import open_keeping_locks
from bluesky_beamtime.database.failures import translate
from bluesky_beamtime.errors import (
    BeamtimeError,
    BeamtimeFileError,
    NewerVersionError,
)

INDEX_APPLICATION_ID = 0x62626978
"""``bbix``, kept in SQLite's ``application_id``."""

INDEX_VERSION = 1
"""Version of the tables below, kept in SQLite's ``user_version``."""

BUSY_TIMEOUT = 10.0
"""Seconds that somebody else's transaction is waited for."""

_TABLES = (
    """CREATE TABLE researchers (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        root_path TEXT NOT NULL, -- folder of their beamtimes
        email TEXT,
        orcid TEXT UNIQUE, -- 0000-0000-0000-0000, checked
        affiliation TEXT
    )""",
    "CREATE INDEX researchers_name ON researchers (name)",
    """CREATE TABLE beamtimes (
        id INTEGER PRIMARY KEY,
        researcher_id INTEGER REFERENCES researchers (id),
        label TEXT NOT NULL,
        db_path TEXT NOT NULL UNIQUE, -- without links
        time_start REAL, -- seconds since 1970
        time_stop REAL,
        last_row INTEGER NOT NULL DEFAULT 0, -- how far its runs are in runs_index
        last_uid TEXT -- of the run in that row
    )""",
    "CREATE INDEX beamtimes_researcher_id ON beamtimes (researcher_id)",
    """CREATE TABLE samples (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    )""",
    """CREATE TABLE runs_index (
        id INTEGER PRIMARY KEY,
        uid TEXT NOT NULL UNIQUE,
        researcher_id INTEGER REFERENCES researchers (id),
        beamtime_id INTEGER NOT NULL REFERENCES beamtimes (id) ON DELETE CASCADE,
        plan_name TEXT,
        sample_id INTEGER REFERENCES samples (id),
        sample_name TEXT,
        scan_id INTEGER,
        time_start REAL, -- seconds since 1970
        time_stop REAL,
        exit_status TEXT, -- success, abort, fail, interrupted; NULL while it goes on
        num_events INTEGER,
        tags TEXT NOT NULL DEFAULT '[]', -- JSON list of text
        proposal TEXT,
        starred INTEGER NOT NULL DEFAULT 0,
        start TEXT NOT NULL DEFAULT '{}' -- JSON, the RunStart document
    )""",
    "CREATE INDEX runs_index_time_start ON runs_index (time_start)",
    "CREATE INDEX runs_index_beamtime_id ON runs_index (beamtime_id, time_start)",
    "CREATE INDEX runs_index_plan_name ON runs_index (plan_name)",
    "CREATE INDEX runs_index_sample_id ON runs_index (sample_id)",
    "CREATE INDEX runs_index_scan_id ON runs_index (scan_id)",
    """CREATE INDEX runs_index_open ON runs_index (beamtime_id)
        WHERE exit_status IS NULL""",
    """CREATE VIEW runs AS SELECT id, uid, sample_id, scan_id, plan_name, time_start,
        time_stop, exit_status, num_events, proposal, starred, start FROM runs_index""",
    """CREATE TABLE run_tags (
        run_uid TEXT NOT NULL REFERENCES runs_index (uid) ON DELETE CASCADE,
        tag TEXT NOT NULL,
        PRIMARY KEY (run_uid, tag)
    )""",
    "CREATE INDEX run_tags_tag ON run_tags (tag)",
    """CREATE TABLE people (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        email TEXT,
        orcid TEXT
    )""",
    "CREATE UNIQUE INDEX people_all ON people (name, coalesce(email, ''), "
    "coalesce(orcid, ''))",
    """CREATE TABLE run_people (
        run_uid TEXT NOT NULL REFERENCES runs_index (uid) ON DELETE CASCADE,
        person_id INTEGER NOT NULL REFERENCES people (id),
        PRIMARY KEY (run_uid, person_id)
    )""",
    "CREATE INDEX run_people_person_id ON run_people (person_id)",
    """CREATE TABLE run_texts (
        run_id INTEGER PRIMARY KEY REFERENCES runs_index (id) ON DELETE CASCADE,
        text TEXT NOT NULL
    )""",
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


def connect_to_index(path: Path) -> sqlite3.Connection:
    """Open a connection that only reads an index, for one thread at a time.

    Raises
    ------
    BeamtimeFileError, NewerVersionError
        There is no index, or none that this version knows.
    """
    if not path.is_file():
        raise BeamtimeFileError(
            f"there is no index at {str(path)!r}; check the path, or start one: "
            f"beamtime index refresh {path.name} FOLDER"
        )
    try:
        connection = open_keeping_locks(path, "?mode=ro", timeout=BUSY_TIMEOUT)
        try:
            if not _version(connection, path):
                raise _no_index(path)
        except BaseException:
            connection.close()
            raise
    except BeamtimeError:
        # Some of ours are errors of sqlite3 too.
        raise
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return connection


@contextmanager
def writing_index(
    path: Path, timeout: float = BUSY_TIMEOUT
) -> Generator[sqlite3.Connection]:
    """Lend a connection within one transaction; the tables are made if need be.

    Each transaction has a connection of its own: an index lives on a disk that comes
    and goes, and may be replaced while a beamtime is open.

    Raises
    ------
    DatabaseError
        Nothing was stored; the subclass and the message say why.
    """
    if not path.parent.is_dir():
        raise BeamtimeFileError(
            f"there is no folder {str(path.parent)!r} for the index {path.name!r}; "
            "make it first, or check the path"
        )
    try:
        if not path.exists():
            _create_file(path)
        connection = open_keeping_locks(path, timeout=timeout)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            _version(connection, path)  # of another program's file nothing is locked
            connection.execute("BEGIN IMMEDIATE")
            try:
                if not _version(connection, path):
                    _create_tables(connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise
        finally:
            connection.close()
    except BeamtimeError:
        # Some of ours are errors of sqlite3 too.
        raise
    except sqlite3.Error as error:
        raise translate(error, path) from error


def _create_file(path: Path) -> None:
    """Make an index under another name first: readers never see half of one."""
    made = path.with_name(f".{path.name}.{uuid4().hex[:12]}")
    try:
        connection = sqlite3.connect(made, isolation_level=None)
        try:
            connection.execute("BEGIN")
            _create_tables(connection)
            connection.execute("COMMIT")
        finally:
            connection.close()
        try:
            os.link(made, path)
        except FileExistsError:
            pass  # somebody else was as quick
        except OSError:
            # A disk without links.
            if not path.exists():
                os.rename(made, path)
    finally:
        made.unlink(missing_ok=True)


def _create_tables(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {INDEX_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {INDEX_VERSION}")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the tables, 0 for an empty file."""
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise _no_index(path) from error
        raise
    if application == version == tables == 0:
        return 0
    if application != INDEX_APPLICATION_ID:
        raise _no_index(path)
    if version > INDEX_VERSION:
        raise NewerVersionError(
            f"the index {str(path)!r} was written by a newer version of "
            f"bluesky-beamtime (its tables have version {version}, this one knows "
            f"{INDEX_VERSION}); nothing was changed. Upgrade: "
            "pip install -U bluesky-beamtime"
        )
    return int(version)


def _no_index(path: Path) -> BeamtimeFileError:
    return BeamtimeFileError(
        f"{str(path)!r} is not an index of beamtimes; nothing was changed. Give the "
        "file of an index, or a new name to start one"
    )
