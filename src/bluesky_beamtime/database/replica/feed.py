"""What is new in the file of a beamtime, for whoever follows it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from bluesky_beamtime.database.connect import connect_to_read
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.failures import translate
from bluesky_beamtime.database.schema import CHANGE_FEED

Row = dict[str, Any]

_SOURCE = "replica_source"
# Rows are lent to nobody while they travel: a page is as much as is sent at once.
_PAGE_ROWS = 1000
_PAGE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class RowFeed:
    """A table to which rows are only ever added, in the order of their numbers."""

    table: str
    """Its name."""
    number: str
    """Column that numbers its rows."""
    key: str
    """Column that tells whether a number still means the same row."""


ROW_FEEDS = (
    RowFeed("events", "id", "uid"),
    RowFeed("image_refs", "id", "event_uid"),
    RowFeed("stream_datums", "id", "uid"),
    RowFeed("datums", "rowid", "datum_id"),
)
"""In an order in which no row comes before what it refers to."""

# Where a feed begins that nobody has followed: everything that is there is new.
_EVERYTHING = (
    "INSERT INTO changes(kind, key) SELECT 'sample', CAST(id AS TEXT) FROM samples",
    "INSERT INTO changes(kind, key) SELECT 'person', CAST(id AS TEXT) FROM people",
    "INSERT INTO changes(kind, key) SELECT 'run', uid FROM runs ORDER BY id",
    "INSERT INTO changes(kind, key) SELECT 'note', CAST(id AS TEXT) FROM notes",
    "INSERT INTO changes(kind, key) "
    "SELECT DISTINCT 'columns', stream_uid FROM event_columns",
)


def start_feed(database: Database) -> str:
    """Begin to note what changes in a file, and return the name of the file.

    Called for every replica; the first one adds a table and triggers to the file, which
    then work for every program that writes to it.

    Parameters
    ----------
    database
        Opened for recording.

    Returns
    -------
    str
        What the file is called at the far end: it stays when the file moves.

    Raises
    ------
    DatabaseError
        The file cannot be changed.
    """
    with database.inserting() as cursor:
        query = "SELECT value FROM meta WHERE key = ?"
        row = cursor.execute(query, (_SOURCE,)).fetchone()
        known = cursor.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'changes'"
        ).fetchone()
        for statement in CHANGE_FEED:
            cursor.execute(statement)
        if known is None:
            for statement in _EVERYTHING:
                cursor.execute(statement)
        if row is not None:
            return json.loads(row[0])
        source = uuid4().hex
        cursor.execute(
            "INSERT INTO meta(key, value) VALUES (?, ?)", (_SOURCE, json.dumps(source))
        )
        return source


class Feed:
    """Reads what is new in a file; for one thread.

    Each method reads at one moment and leaves no transaction open.

    Parameters
    ----------
    path
        The file, whose feed has been started.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = connect_to_read(path)
        self._connection.row_factory = _as_dict

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def has_changed(self, version: int | None) -> tuple[bool, int]:
        """Say whether anything was committed since ``version``, and the version now."""
        now = int(self._one("PRAGMA data_version")["data_version"])
        return now != version, now

    def heads(self) -> dict[str, int]:
        """Return the newest number of each feed, all of one moment."""
        parts = ["(SELECT coalesce(max(seq), 0) FROM changes) AS changes"]
        parts += (
            f"(SELECT coalesce(max({feed.number}), 0) FROM {feed.table}) "
            f"AS {feed.table}"
            for feed in ROW_FEEDS
        )
        return cast("dict[str, int]", self._one(f"SELECT {', '.join(parts)}"))

    def changes(
        self, after: int, limit: int, upto: int | None = None
    ) -> list[tuple[int, str, str]]:
        """Return number, kind and key of what has changed, in the order of change."""
        rows = self._all(
            "SELECT seq, kind, key FROM changes WHERE seq > ? AND seq <= ? "
            "ORDER BY seq LIMIT ?",
            (after, 2**63 - 1 if upto is None else upto, limit),
        )
        return [(row["seq"], row["kind"], row["key"]) for row in rows]

    def count(self, feed: str, after: int, upto: int) -> int:
        """Return how many numbers of a feed lie between two, at most."""
        if feed != "changes":
            return max(0, upto - after)
        query = "SELECT count(*) AS n FROM changes WHERE seq > ? AND seq <= ?"
        return int(self._one(query, (after, upto))["n"])

    def key_at(self, feed: RowFeed, number: int) -> str | None:
        """Return the key of a numbered row, None if it is not there."""
        query = f"SELECT {feed.key} AS k FROM {feed.table} WHERE {feed.number} = ?"
        rows = self._all(query, (number,))
        return rows[0]["k"] if rows else None

    def page(self, feed: RowFeed, after: int, upto: int) -> list[Row]:
        """Return the next rows of a table, with their number as ``_number``."""
        found: list[Row] = []
        size = 0
        with self._reading() as cursor:
            cursor.execute(
                f"SELECT {feed.number} AS _number, * FROM {feed.table} "
                f"WHERE {feed.number} > ? AND {feed.number} <= ? "
                f"ORDER BY {feed.number} LIMIT {_PAGE_ROWS}",
                (after, upto),
            )
            for row in cursor:
                found.append(row)
                size += sum(len(v) for v in row.values() if isinstance(v, str))
                if size > _PAGE_BYTES:
                    break
        return found

    def snapshot(self) -> Snapshot:
        """Return a view of one moment, to be used as a context manager, briefly."""
        return Snapshot(self._connection)

    def _reading(self) -> closing[sqlite3.Cursor]:
        return closing(self._connection.cursor())

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Row:
        return self._all(sql, values)[0]

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            with self._reading() as cursor:
                return cursor.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise translate(error, self.path) from error


class Snapshot:
    """Rows of several tables as they were at one moment."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Snapshot:
        self._connection.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.execute("COMMIT")

    def changes(self, after: int, upto: int, limit: int) -> list[tuple[int, str, str]]:
        """Return what has changed last between two numbers."""
        rows = self._connection.execute(
            "SELECT seq, kind, key FROM changes WHERE seq > ? AND seq <= ? "
            "ORDER BY seq LIMIT ?",
            (after, upto, limit),
        ).fetchall()
        return [(row["seq"], row["kind"], row["key"]) for row in rows]

    def rows(self, table: str, column: str, keys: Iterable[Any]) -> list[Row]:
        """Return the rows of a table whose column has one of the values."""
        values = list(keys)
        if not values:
            return []
        marks = ", ".join("?" * len(values))
        return self._connection.execute(
            f"SELECT * FROM {table} WHERE {column} IN ({marks}) ORDER BY rowid", values
        ).fetchall()


def _as_dict(cursor: sqlite3.Cursor, row: Sequence[Any]) -> Mapping[str, Any]:
    return {
        column[0]: value for column, value in zip(cursor.description, row, strict=True)
    }
