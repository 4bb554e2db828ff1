"""Some of the runs of a beamtime alone: their rows, their lines, their files."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from bluesky_beamtime.database import migrate
from bluesky_beamtime.database.journaled import run_of_line
from bluesky_beamtime.database.uris import is_relative
from bluesky_beamtime.errors import RunNotFoundError
from bluesky_beamtime.exports.belongings import Belonging
from bluesky_beamtime.storage.layout import METADATA_FILE


def keep_runs(database: Path, uids: Collection[str]) -> None:
    """Take all other runs out of a copy of a database, and what belongs to them alone.

    Samples and people that none of the runs has are gone too, and nothing of them is
    left in the file. What was said of the beamtime as a whole stays. A copy of an older
    version is brought up to date first.

    Parameters
    ----------
    database
        A copy that nobody else uses.
    uids
        Uids of the runs that stay.

    Raises
    ------
    RunNotFoundError
        One of them is not there; no run was taken out.
    """
    migrate(database, backup=False)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        # For replicas, which this copy has none of.
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (name,) in connection.execute(triggers).fetchall():
            if name.startswith("changes_"):
                connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute("DROP TABLE IF EXISTS changes")
        connection.execute("CREATE TEMP TABLE kept (uid TEXT PRIMARY KEY)")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT OR IGNORE INTO kept VALUES (?)", ((uid,) for uid in uids)
        )
        lost = "SELECT uid FROM kept EXCEPT SELECT uid FROM runs"
        for (uid,) in connection.execute(lost):
            raise RunNotFoundError(
                f"there is no run {uid!r} to take; name runs by their whole uids, "
                "which beamtime.summaries() lists"
            )
        connection.execute("DELETE FROM runs WHERE uid NOT IN (SELECT uid FROM kept)")
        connection.execute(
            "DELETE FROM samples WHERE id NOT IN "
            "(SELECT sample_id FROM runs WHERE sample_id IS NOT NULL)"
        )
        connection.execute(
            "DELETE FROM people WHERE id NOT IN (SELECT person_id FROM run_people)"
        )
        connection.execute("COMMIT")
        # The index of texts keeps what was deleted until it is made anew.
        connection.execute(
            "INSERT INTO run_texts_fts(run_texts_fts) VALUES ('rebuild')"
        )
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = DELETE")


def keep_lines(journal: Path, uids: Collection[str]) -> None:
    """Take the documents of other runs out of a copy of a journal."""
    kept = journal.with_name(f"{journal.name}.kept")
    with journal.open("rb") as lines, kept.open("xb") as file:
        file.writelines(line for line in lines if run_of_line(line) in uids)
    os.replace(kept, journal)


def files_of(database: Path, stem: str) -> Callable[[Belonging], bool]:
    """Return what says whether a file belongs to the runs of a database.

    Parameters
    ----------
    database
        The database, which has only the runs that matter.
    stem
        Name of the beamtime, with which its folders begin.
    """
    roots: set[str] = set()
    beginnings: set[str] = set()
    with closing(sqlite3.connect(database)) as connection:
        for (uri,) in connection.execute("SELECT uri FROM stream_resources"):
            if is_relative(uri):
                roots.add(os.path.normpath(unquote(uri)))
        for (group,) in connection.execute(
            "SELECT DISTINCT zarr_group FROM image_refs"
        ):
            roots.add(os.path.normpath(f"{stem}.zarr/{group}"))
        query = "SELECT coalesce(root, ''), resource_path FROM resources"
        for root, path in connection.execute(query):
            beginnings.add(os.path.normpath(os.path.join(root, path or "")))
    roots |= beginnings
    groups = {above for root in roots for above in _above(root)}

    def belongs(file: Belonging) -> bool:
        if file.kind not in ("frames", "files"):
            return True
        folder, _, name = file.name.rpartition("/")
        if name == METADATA_FILE and (folder in groups or "/" not in folder):
            return True
        if any(place in roots for place in (file.name, *_above(file.name))):
            return True
        # Some old resources name the beginning that several files have in common.
        return any(
            f"{folder}/{name[:length]}" in beginnings
            and not file.path.with_name(name[:length]).exists()
            for length in range(1, len(name))
        )

    return belongs


def _above(name: str) -> list[str]:
    """Return the folders above a relative path."""
    found: list[str] = []
    while name := os.path.dirname(name):
        if name == "/":
            break
        found.append(name)
    return found
