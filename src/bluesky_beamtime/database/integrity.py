"""Is everything here, and does it agree? Checked without changing a byte."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bluesky_beamtime.database.agreement import check_runs
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.failures import translate
from bluesky_beamtime.database.liveness import is_alive
from bluesky_beamtime.database.problems import Problem
from bluesky_beamtime.database.schema import metadata
from bluesky_beamtime.errors import BeamtimeError
from bluesky_beamtime.storage import FolderLock, quote_name, verify_store
from bluesky_beamtime.storage.hierarchy import find_arrays

Progress = Callable[[str, int, int], None]
"""Called with what is being checked, how many are done, and how many there are."""

_BATCH = 2000


@dataclass
class VerifyReport:
    """What :func:`verify` found."""

    path: str
    """The database file."""
    problems: list[Problem] = field(default_factory=list[Problem])
    """What is wrong, in the order in which it was found."""
    checked: dict[str, int] = field(default_factory=dict[str, int])
    """How many of each were looked at: rows, runs, arrays, frames."""
    quick: bool = False
    """Whether checksums were left out."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"ok": self.ok, **asdict(self)}


def verify(
    database: Database, *, quick: bool = False, progress: Progress | None = None
) -> VerifyReport:
    """Check the file, every row, every frame, and whether they agree.

    Changes nothing, and may be done while others record: what they are just writing is
    left out.

    ============  =====================================================================
    kind          what is wrong
    ============  =====================================================================
    file          SQLite finds its pages or its indexes damaged
    reference     a row refers to one that is not there
    value         what should be JSON is not, or cannot be read back
    order         documents of a run are missing, or two have the same place
    count         a run tells another number of events than it has
    array         an event refers to an array or an index that is not there
    frames        a document promises frames that no reader finds, or that nothing
                  here can read: HDF5 files of detectors without the package h5py
    place         a path leads out of the beamtime's folder
    store         a store is damaged: metadata, missing frames, wrong checksums
    journal       documents could not be stored, and wait to be recovered
    orphan        arrays that belong to no run
    ============  =====================================================================

    Parameters
    ----------
    database
        Opened in whatever mode.
    quick
        Leave out what takes as long as reading all data: checksums of frames.
    progress
        Told how it gets on.

    Returns
    -------
    VerifyReport
        ``report.ok`` and ``report.problems``.
    """
    report = VerifyReport(str(database.path), quick=quick)
    steps = (
        ("the database file", _check_file),
        ("the rows", _check_values),
        ("the runs", check_runs),
        ("the journal", _check_journal),
        ("orphans", _check_orphans),
    )
    for number, (what, step) in enumerate(steps):
        if progress is not None:
            progress(what, number, len(steps))
        try:
            for problem in step(database, report.checked):
                report.problems.append(problem)
        except (BeamtimeError, OSError) as error:
            report.problems.append(_broke_off(what, database.path, error))
    _check_stores(database, report, progress)
    return report


def _broke_off(what: str, path: Path, error: Exception) -> Problem:
    return Problem(
        "file",
        str(path),
        f"{what} could not be checked to the end: {error}",
        "make a copy of the file, and see what 'sqlite3 FILE .recover' brings back",
    )


# ------------------------------------------------------------------------- the file


def _check_file(database: Database, checked: dict[str, int]) -> Iterator[Problem]:
    with database.reading() as connection:
        driver: Any = connection.connection.driver_connection
        try:
            with closing(driver.cursor()) as cursor:
                found = cursor.execute("PRAGMA main.integrity_check").fetchall()
                broken = cursor.execute("PRAGMA main.foreign_key_check").fetchall()
        except sqlite3.Error as error:
            raise translate(error, database.path) from error
    checked["pages checked by SQLite"] = 1
    for (sentence,) in found:
        if sentence != "ok":
            yield Problem(
                "file",
                str(database.path),
                sentence,
                "make a copy of the file, and see what 'sqlite3 FILE .recover' brings "
                "back; damaged indexes alone are mended by 'sqlite3 FILE REINDEX'",
            )
    for table, row, parent, _ in broken:
        yield Problem(
            "reference",
            f"{table}, row {row}",
            f"refers to a row of {parent} that is not there",
            "recover the documents in the journal, if there are any; otherwise the "
            "rest of the run can still be read",
        )


def _check_values(database: Database, checked: dict[str, int]) -> Iterator[Problem]:
    """Decode every column that is said to hold JSON."""
    for table in metadata.sorted_tables:
        columns = [
            column.name
            for column in table.columns
            if (column.comment or "").startswith("JSON")
        ]
        if not columns:
            continue
        key = next(iter(table.primary_key.columns)).name
        names = ", ".join(f'"{name}"' for name in columns)
        query = f'SELECT "{key}", {names} FROM "{table.name}"'
        for row in _rows(database, query):
            checked["rows"] = checked.get("rows", 0) + 1
            for name, text in zip(columns, row[1:], strict=True):
                fault = _fault(text)
                if fault is not None:
                    yield Problem(
                        "value",
                        f"{table.name}.{name} of {row[0]}",
                        fault,
                        "take the row from a backup; the other rows are not concerned",
                    )


def _fault(text: Any) -> str | None:
    if text is None:
        return None
    if not isinstance(text, (str, bytes)):
        return f"is no text, but {type(text).__name__}"
    try:
        decode(text)
    except (BeamtimeError, ValueError, RecursionError) as error:
        return str(error)
    return None


def _rows(database: Database, query: str) -> Iterator[tuple[Any, ...]]:
    with database.reading() as connection:
        driver: Any = connection.connection.driver_connection
        try:
            with closing(driver.cursor()) as cursor:
                cursor.execute(query)
                while rows := cursor.fetchmany(_BATCH):
                    yield from rows
        except sqlite3.Error as error:
            raise translate(error, database.path) from error


# ---------------------------------------------------------------------- beside the file


def _check_journal(database: Database, checked: dict[str, int]) -> Iterator[Problem]:
    try:
        with database.journal.open("rb") as file:
            lines = sum(1 for _ in file)
    except FileNotFoundError:
        return
    checked["lines of the journal"] = lines
    if lines:
        yield Problem(
            "journal",
            str(database.journal),
            f"{lines} documents are not in the tables: they could not be stored, or "
            "are malformed",
            f"beamtime recover {database.path.name}",
        )


def _check_orphans(database: Database, checked: dict[str, int]) -> Iterator[Problem]:
    """Find arrays of events whose run is not in the tables."""
    folder = database.store / "runs"
    if not folder.is_dir():
        return
    known = {quote_name(uid) for (uid,) in _rows(database, "SELECT uid FROM runs")}
    journaled = database.journal.exists()
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in known and not journaled:
            yield Problem(
                "orphan",
                str(path),
                "arrays of a run that is not in the tables",
                "look at them with bluesky_beamtime.storage.open_frames; if nobody "
                "misses them, remove the folder",
            )


def _check_stores(
    database: Database, report: VerifyReport, progress: Progress | None
) -> None:
    arrays = find_arrays(database.store)
    try:
        writers = _rows(database, "SELECT writer FROM runs WHERE exit_status IS NULL")
        live = any(is_alive(database.folder, name) for (name,) in writers)
    except BeamtimeError:
        live = False
    for number, array in enumerate(arrays):
        if progress is not None:
            progress("frames", number, len(arrays))
        where = os.path.relpath(array, database.folder)
        # The arrays of events have no lock of their own once they hold a frame.
        if live and FolderLock.is_held(array):
            continue
        try:
            found = verify_store(array, checksums=not report.quick)
        except (BeamtimeError, OSError) as error:
            report.problems.append(_of_store(where, str(error)))
            continue
        for one in found.arrays.values():
            report.checked["frames"] = report.checked.get("frames", 0) + one.published
        for sentence in found.problems:
            report.problems.append(_of_store(where, sentence))
    report.checked["arrays"] = len(arrays)


def _of_store(where: str, sentence: str) -> Problem:
    mends = "repair_store" in sentence
    return Problem(
        "store",
        where,
        sentence.removeprefix(".: "),
        "beamtime recover mends it"
        if mends
        else "take the folder from a backup; the other frames can be read",
    )
