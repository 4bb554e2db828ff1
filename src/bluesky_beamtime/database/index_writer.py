"""IndexWriter: what an index over many beamtimes is told."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.index_tables import BUSY_TIMEOUT, writing_index
from bluesky_beamtime.database.people import Person, check_orcid
from bluesky_beamtime.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What an index says of a run."""

    uid: str
    plan_name: str | None = None
    sample_name: str | None = None
    scan_id: int | None = None
    time_start: float | None = None
    time_stop: float | None = None
    exit_status: str | None = None
    num_events: int | None = None
    tags: Sequence[str] = ()
    proposal: str | None = None
    starred: bool = False
    start: str = "{}"
    """The RunStart document, as JSON."""
    text: str | None = None
    """What full text finds; None for what the rest says."""
    people: Sequence[Person] = field(default_factory=tuple[Person, ...])


class IndexWriter:
    """Writes an index: one file that knows the runs of many beamtimes.

    Parameters
    ----------
    index_db_path
        The file; made by the first call, in a folder that exists.
    timeout
        Seconds that somebody else's transaction is waited for.

    Notes
    -----
    Thread-safe, and several processes may write at once: each call is one transaction,
    committed when it returns. A Beamtime that was opened with ``index=`` makes these
    calls itself; :meth:`Index.refresh` makes them for beamtimes that are there already.
    """

    def __init__(
        self, index_db_path: str | os.PathLike[str], *, timeout: float = BUSY_TIMEOUT
    ) -> None:
        self.index_db_path = Path(index_db_path)
        self._timeout = timeout

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """Lend a connection within one transaction."""
        path = self.index_db_path.expanduser()
        with writing_index(path, self._timeout) as connection:
            yield connection

    def ensure_schema(self) -> None:
        """Make the tables, unless they are there.

        Raises
        ------
        BeamtimeFileError, NewerVersionError
            There is another kind of file, or one of a newer version.
        """
        with self.writing():
            pass

    def register_researcher(
        self,
        name: str,
        root_path: str | os.PathLike[str],
        *,
        email: str | None = None,
        orcid: str | None = None,
        affiliation: str | None = None,
    ) -> int:
        """Add a researcher, or bring up to date what is known; return the number.

        A researcher is known by the ORCID iD, else by the name. What is given replaces
        what was known; what is not given stays.

        Parameters
        ----------
        name
            As people say it.
        root_path
            Folder of the researcher's beamtimes.
        email, orcid, affiliation
            The ORCID iD in any of its spellings; it is checked.

        Raises
        ------
        DocumentError
            The ORCID iD is mistyped.
        IntegrityError
            There is no name, or several researchers have it and no iD was given.
        """
        if not name or not name.strip():
            raise IntegrityError("a researcher needs a name")
        checked = None if orcid is None else check_orcid(orcid)
        root = str(Path(root_path).expanduser().resolve())
        with self.writing() as connection:
            number = _find_researcher(connection, name, checked)
            if number is None:
                return _new_row(
                    connection,
                    "INSERT INTO researchers (name, root_path, email, orcid, "
                    "affiliation) VALUES (?, ?, ?, ?, ?)",
                    (name, root, email, checked, affiliation),
                )
            connection.execute(
                "UPDATE researchers SET name = ?, root_path = ?, "
                "email = coalesce(?, email), orcid = coalesce(?, orcid), "
                "affiliation = coalesce(?, affiliation) WHERE id = ?",
                (name, root, email, checked, affiliation, number),
            )
            return number

    def register_beamtime(
        self,
        researcher_id: int | None,
        label: str,
        db_path: str | os.PathLike[str],
        *,
        time_start: float | None = None,
        time_stop: float | None = None,
    ) -> int:
        """Add a beamtime, or bring up to date what is known; return the number.

        A beamtime is known by its file, whose path is stored without links; what is
        given replaces what was known.

        Parameters
        ----------
        researcher_id
            From :meth:`register_researcher`; None where nobody said whose it is.
        label
            As people say it, such as ``"2026-11 LaB6"``.
        db_path
            The file; it need not be there.
        time_start, time_stop
            When the beamtime began and ended, in seconds since 1970.

        Raises
        ------
        IntegrityError
            There is no such researcher.
        """
        path = str(Path(db_path).expanduser().resolve())
        with self.writing() as connection:
            if researcher_id is not None:
                _check_row(connection, "researchers", researcher_id, "researcher")
            found = connection.execute(
                "SELECT id FROM beamtimes WHERE db_path = ?", (path,)
            ).fetchone()
            if found is None:
                return _new_row(
                    connection,
                    "INSERT INTO beamtimes (researcher_id, label, db_path, time_start, "
                    "time_stop) VALUES (?, ?, ?, ?, ?)",
                    (researcher_id, label, path, time_start, time_stop),
                )
            connection.execute(
                "UPDATE beamtimes SET researcher_id = coalesce(?, researcher_id), "
                "label = ?, time_start = coalesce(?, time_start), "
                "time_stop = coalesce(?, time_stop) WHERE id = ?",
                (researcher_id, label, time_start, time_stop, found[0]),
            )
            if researcher_id is not None:
                connection.execute(
                    "UPDATE runs_index SET researcher_id = ? WHERE beamtime_id = ?",
                    (researcher_id, found[0]),
                )
            return int(found[0])

    def index_run(
        self,
        uid: str,
        researcher_id: int | None,
        beamtime_id: int,
        plan_name: str | None,
        *,
        sample_name: str | None = None,
        time_start: float | None = None,
        tags: Iterable[str] | None = None,
        time_stop: float | None = None,
        exit_status: str | None = None,
        scan_id: int | None = None,
        num_events: int | None = None,
    ) -> None:
        """Add a run, or bring up to date what is known of it.

        Parameters
        ----------
        uid
            Of the run; a second call for it replaces the first.
        researcher_id, beamtime_id
            From the other calls.
        plan_name, sample_name, scan_id, num_events
            As the run has them.
        time_start, time_stop
            In seconds since 1970.
        tags
            Words to find it by.
        exit_status
            None while it goes on.

        Raises
        ------
        IntegrityError
            There is no such researcher or beamtime.
        """
        entry = IndexEntry(
            uid=uid,
            plan_name=plan_name,
            sample_name=sample_name,
            scan_id=scan_id,
            time_start=time_start,
            time_stop=time_stop,
            exit_status=exit_status,
            num_events=num_events,
            tags=tuple(tags or ()),
        )
        with self.writing() as connection:
            if researcher_id is not None:
                _check_row(connection, "researchers", researcher_id, "researcher")
            _check_row(connection, "beamtimes", beamtime_id, "beamtime")
            store_entry(connection, beamtime_id, researcher_id, entry)

    def __repr__(self) -> str:
        return f"<IndexWriter {str(self.index_db_path)!r}>"


def _new_row(connection: sqlite3.Connection, sql: str, values: Sequence[object]) -> int:
    number = connection.execute(sql, values).lastrowid
    assert number is not None
    return number


def _check_row(
    connection: sqlite3.Connection, table: str, number: int, what: str
) -> None:
    query = f"SELECT 1 FROM {table} WHERE id = ?"
    if connection.execute(query, (number,)).fetchone() is None:
        raise IntegrityError(
            f"the index has no {what} with the number {number}; "
            f"register_{what}() returns it"
        )


def _find_researcher(
    connection: sqlite3.Connection, name: str, orcid: str | None
) -> int | None:
    if orcid is not None:
        query = "SELECT id FROM researchers WHERE orcid = ?"
        found = connection.execute(query, (orcid,)).fetchone()
        if found is not None:
            return int(found[0])
    # Who has another ORCID iD is somebody else.
    query = "SELECT id FROM researchers WHERE name = ? AND (orcid IS NULL OR ?)"
    found = connection.execute(query, (name, orcid is None)).fetchall()
    if len(found) > 1:
        raise IntegrityError(
            f"the index has {len(found)} researchers called {name!r}; say which one "
            "by the ORCID iD"
        )
    return int(found[0][0]) if found else None


def store_entry(
    connection: sqlite3.Connection,
    beamtime_id: int,
    researcher_id: int | None,
    entry: IndexEntry,
) -> None:
    """Store what an index says of a run, in place of what it said before."""
    sample_id = None
    if entry.sample_name is not None:
        name = (entry.sample_name,)
        connection.execute("INSERT OR IGNORE INTO samples (name) VALUES (?)", name)
        query = "SELECT id FROM samples WHERE name = ?"
        (sample_id,) = connection.execute(query, name).fetchone()
    tags = list(dict.fromkeys(entry.tags))
    values = (
        *(entry.uid, researcher_id, beamtime_id, entry.plan_name, sample_id),
        *(entry.sample_name, entry.scan_id, entry.time_start, entry.time_stop),
        *(entry.exit_status, entry.num_events, encode(tags), entry.proposal),
        *(int(entry.starred), entry.start),
    )
    (number,) = connection.execute(_UPSERT_RUN, values).fetchone()
    for table in ("run_tags", "run_people"):
        connection.execute(f"DELETE FROM {table} WHERE run_uid = ?", (entry.uid,))
    for tag in tags:
        connection.execute("INSERT INTO run_tags VALUES (?, ?)", (entry.uid, tag))
    for person in entry.people:
        _store_person(connection, entry.uid, person)
    text = entry.text
    if text is None:
        words = (entry.plan_name, entry.sample_name, entry.exit_status, *tags)
        text = "\n".join(filter(None, words))
    connection.execute(
        "INSERT INTO run_texts (run_id, text) VALUES (?, ?) "
        "ON CONFLICT (run_id) DO UPDATE SET text = excluded.text",
        (number, text),
    )


_RUN_COLUMNS = (
    *("uid", "researcher_id", "beamtime_id", "plan_name", "sample_id"),
    *("sample_name", "scan_id", "time_start", "time_stop"),
    *("exit_status", "num_events", "tags", "proposal", "starred", "start"),
)
_UPSERT_RUN = (
    f"INSERT INTO runs_index ({', '.join(_RUN_COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(_RUN_COLUMNS))}) ON CONFLICT (uid) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _RUN_COLUMNS[1:])
    + " RETURNING id"
)


def _store_person(connection: sqlite3.Connection, uid: str, person: Person) -> None:
    known = (person.name, person.email, person.orcid)
    connection.execute(
        "INSERT OR IGNORE INTO people (name, email, orcid) VALUES (?, ?, ?)", known
    )
    connection.execute(
        "INSERT OR IGNORE INTO run_people SELECT ?, id FROM people "
        "WHERE name IS ? AND email IS ? AND orcid IS ?",
        (uid, *known),
    )
