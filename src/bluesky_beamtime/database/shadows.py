"""What an older file lacks, put beside it in memory so that it can be read as it is.

Opening never migrates. A connection that reads a file of an older version gets
temporary views with the names of the tables and columns that came later: empty, or with
the value that a column has by default. SQLite looks for a name among the temporary ones
first, so that the queries of today find them, and no byte of the file changes.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Column, Table
from sqlalchemy.dialects import sqlite

from bluesky_beamtime.database.migrations import TEXTS_OF_VERSION_1
from bluesky_beamtime.database.schema import SQLITE_EXTRAS, metadata

_TEXTS = "run_texts"
_dialect = sqlite.dialect()


class Shadows:
    """What connections to one older file get; the full text is made once for all.

    Parameters
    ----------
    connection
        Reads the file.

    Notes
    -----
    Runs that a program of the older version records later are read like all others,
    but not found by full text until the file is opened again.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._statements = list(_views(connection))
        if not _columns(connection, _TEXTS):
            self._folder = tempfile.TemporaryDirectory(prefix="beamtime-")
            path = Path(self._folder.name, "texts.db")
            try:
                _write_texts(connection, path)
            except BaseException:
                self.close()
                raise
            uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
            self._statements.insert(0, f"ATTACH '{uri}' AS texts")

    def cast(self, connection: sqlite3.Connection) -> None:
        """Give a new connection what the file lacks."""
        for statement in self._statements:
            connection.execute(statement)

    def close(self) -> None:
        """Remove the full text; may be called again."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return {name for (name,) in rows}


def _views(connection: sqlite3.Connection):
    """Yield the statements that make the views which stand for what is missing."""
    changed: set[str] = set()
    for table in metadata.sorted_tables:
        there = _columns(connection, table.name)
        missing = [column for column in table.columns if column.name not in there]
        if not missing or table.name == _TEXTS:
            continue
        changed.add(table.name)
        yield _view(table, missing, empty=not there)
    for extra in SQLITE_EXTRAS:
        if extra.statement.startswith("CREATE VIEW "):
            yield extra.statement.replace("CREATE VIEW ", "CREATE TEMP VIEW ", 1)


def _view(table: Table, missing: list[Column[object]], *, empty: bool) -> str:
    values = ", ".join(f'{_default(column)} AS "{column.name}"' for column in missing)
    view, name = "CREATE TEMP VIEW", f'"{table.name}"'
    if empty:
        return f"{view} {name} AS SELECT {values} WHERE 0"
    return f"{view} {name} AS SELECT *, {values} FROM main.{name}"


def _default(column: Column[object]) -> str:
    default = column.server_default
    text = getattr(default, "arg", None)
    if text is None:
        return "NULL"
    kind = column.type.compile(dialect=_dialect)
    return f"CAST('{text}' AS {kind})"


def _write_texts(source: sqlite3.Connection, path: Path) -> None:
    """Write the full text of all runs of a file to another one."""
    with closing(sqlite3.connect(path)) as target:
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        target.execute(f"CREATE TABLE {_TEXTS} (run_id INTEGER PRIMARY KEY, text TEXT)")
        for extra in SQLITE_EXTRAS:
            if not extra.statement.startswith("CREATE VIEW "):
                target.execute(extra.statement)
        with target:
            rows = source.execute(TEXTS_OF_VERSION_1)
            target.executemany(f"INSERT INTO {_TEXTS} VALUES (?, ?)", rows)
