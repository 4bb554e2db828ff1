"""Documents of one run from the journal into the tables, each in its own place."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.failures import translate
from bluesky_beamtime.database.kinds import is_mapping, is_number
from bluesky_beamtime.database.run_recorder import RunRecorder
from bluesky_beamtime.database.samples import SampleMetadata, upsert_sample
from bluesky_beamtime.errors import DocumentError
from bluesky_beamtime.recording import pages
from bluesky_beamtime.recording.failures import is_malformed
from bluesky_beamtime.recording.journal import Entry
from bluesky_beamtime.recording.recorder import NAMES

# Rows on their way to a new place are up here meanwhile.
_ASIDE = 2**50
_OF_RUN = "SELECT uid FROM {} WHERE run_uid = :run"
_TABLES = {
    "streams": "run_uid = :run",
    "stream_resources": "run_uid = :run",
    "resources": "run_uid = :run",
    "events": f"stream_uid IN ({_OF_RUN.format('streams')})",
    "stream_datums": f"stream_uid IN ({_OF_RUN.format('streams')})",
    "datums": f"resource IN ({_OF_RUN.format('resources')})",
}
"""The tables whose rows have ordinals, and which rows are those of a run."""


@dataclass
class Replay:
    """What became of the entries of one run."""

    stored: list[Entry] = field(default_factory=list[Entry])
    """Those whose documents are in the tables now, or were already."""
    refused: dict[Entry, str] = field(default_factory=dict[Entry, str])
    """Those that stay, each with the reason."""
    moved: dict[Entry, int] = field(default_factory=dict[Entry, int])
    """New ordinals of those that stay."""


def replay(
    database: Database,
    run_uid: str,
    entries: Sequence[Entry],
    read: Callable[[Entry], Any],
    *,
    over: bool,
) -> Replay:
    """Store what can be stored of a run's documents, in one transaction.

    Doing it again changes nothing: what is there already is recognised by its uid.

    Parameters
    ----------
    database
        Opened for recording.
    run_uid
        The run; nobody records it.
    entries
        Its lines of the journal, in their order.
    read
        Returns the document of an entry.
    over
        Whether the process that recorded the run has ended: without a stop document
        the run is called interrupted then.

    Raises
    ------
    DatabaseError
        The database cannot take them now; nothing was stored.
    """
    with database.inserting() as cursor:
        return _Replaying(database, cursor, run_uid, entries, read).all(over=over)


class _Replaying:
    def __init__(
        self,
        database: Database,
        cursor: sqlite3.Cursor,
        run_uid: str,
        entries: Sequence[Entry],
        read: Callable[[Entry], Any],
    ) -> None:
        self._database = database
        self._cursor = cursor
        self._run_uid = run_uid
        self._entries = entries
        self._read = read
        self._done = Replay()
        # Where the rows of an entry begin, and how many there are.
        self._rows: dict[Entry, tuple[int, int]] = {}

    def all(self, *, over: bool) -> Replay:
        run = self._open()
        if run is None:
            return self._done
        first = run.ordinal
        try:
            waiting = [e for e in self._entries if e.name not in ("start", "stop")]
            before = 0
            # A document may have come before the one that it refers to.
            while len(waiting) != before:
                before = len(waiting)
                waiting = [each for each in waiting if not self._store(run, each)]
            for entry in self._entries:
                if entry.name == "stop":
                    self._store(run, entry)
        finally:
            run.close()
        if self._rows:
            self._put_in_place(first)
        self._tidy(run, over=over)
        return self._done

    def _open(self) -> RunRecorder | None:
        """Return the recorder of the run, whose start may be in the journal too."""
        run = RunRecorder.resume(self._database, self._run_uid)
        for entry in self._entries:
            if entry.name != "start":
                continue
            with self._taking(entry):
                start = self._document(entry)
                if run is None:
                    sample = self._sample_of(start)
                    run = RunRecorder.insert(
                        self._database, start, sample_id=sample, writer=None
                    )
                else:
                    run.check_same_start(start)
        if run is None:
            for entry in self._entries:
                reason = "the start document of its run is not there"
                self._done.refused.setdefault(entry, reason)
        return run

    def _sample_of(self, start: Any) -> int | None:
        named = start.get("sample")
        if not named:
            return None
        with suppress(DocumentError), self._database.writing() as connection:
            since = start.get("time")
            since = float(since) if is_number(since) else None
            return upsert_sample(connection, SampleMetadata.of(named), since)
        return None

    def _document(self, entry: Entry) -> Any:
        if entry.name not in NAMES:
            raise DocumentError(entry.reason)
        doc = self._read(entry)
        if not is_mapping(doc):
            raise DocumentError(entry.reason)
        return doc

    def _store(self, run: RunRecorder, entry: Entry) -> bool:
        before = run.ordinal
        with self._taking(entry):
            pages.store(run, entry.name, self._document(entry))
            if run.ordinal > before:
                self._rows[entry] = (before, run.ordinal - before)
            return True
        run.ordinal = before
        return False

    @contextmanager
    def _taking(self, entry: Entry) -> Generator[None]:
        """Take all of an entry or nothing; note what became of it."""
        self._cursor.execute("SAVEPOINT entry")
        try:
            yield
        except Exception as error:
            if type(error).__module__ == "sqlite3":
                error = translate(cast("sqlite3.Error", error), self._database.path)
            if not is_malformed(error):
                raise
            self._cursor.execute("ROLLBACK TO entry")
            self._done.refused[entry] = str(error)
        else:
            self._done.refused.pop(entry, None)
            self._done.stored.append(entry)
        finally:
            self._cursor.execute("RELEASE entry")

    # ------------------------------------------------------------------------ places

    def _place(self, entry: Entry) -> int | None:
        """Return where in the run a document was emitted, None if nobody knows."""
        if entry.ordinal is not None:
            return entry.ordinal
        return entry.places.get(self._run_uid)

    def _put_in_place(self, first: int) -> None:
        """Renumber the run, so that each document stands where it was emitted."""
        moves: list[tuple[int, int, int]] = []
        shift, end = 0, 0
        for place, kind, _, entry in sorted(self._items(first), key=lambda i: i[:3]):
            old, number = (place, 1) if entry is None else self._rows[entry]
            new = max(end, first if place == _ASIDE else place + shift)
            end = new + number
            # What was put aside takes a place only now, and a page more than one.
            shift += number - (kind != _QUARANTINED)
            if old != new:
                moves.append((old, number, new))
        self._move(list(_merged(moves)))
        self._shift_those_that_stay()

    def _items(self, first: int) -> Iterator[tuple[int, int, int, Entry | None]]:
        """Yield everything that has a place, with what it is sorted by."""
        places = map(self._place, self._rows)
        known = [place for place in places if place is not None]
        lowest = min(known, default=first)
        for ordinal in self._ordinals(lowest, first):
            yield ordinal, _IN_TABLES, 0, None
        for entry in self._rows:
            place = self._place(entry)
            place = _ASIDE if place is None else place
            kind = _QUARANTINED if entry.quarantined else _UNSTORED
            yield place, kind, entry.start, entry

    def _ordinals(self, lowest: int, first: int) -> list[int]:
        found: set[int] = set()
        for table, mine in _TABLES.items():
            query = (
                f"SELECT DISTINCT ordinal FROM {table} "
                f"WHERE {mine} AND ordinal >= :lowest AND ordinal < :first"
            )
            values = {"run": self._run_uid, "lowest": lowest, "first": first}
            found.update(o for (o,) in self._cursor.execute(query, values))
        return sorted(found)

    def _move(self, moves: Sequence[tuple[int, int, int]]) -> None:
        up = [(old, old + number - 1, _ASIDE) for old, number, _ in moves]
        down = [
            (_ASIDE + old, _ASIDE + old + number - 1, new - old - _ASIDE)
            for old, number, new in moves
        ]
        for begin, end, by in (*up, *down):
            for table, mine in _TABLES.items():
                self._cursor.execute(
                    f"UPDATE {table} SET ordinal = ordinal + :by "
                    f"WHERE {mine} AND ordinal BETWEEN :begin AND :end",
                    {"run": self._run_uid, "begin": begin, "end": end, "by": by},
                )

    def _shift_those_that_stay(self) -> None:
        taken = [
            (place, e.start, number - (not e.quarantined))
            for e, (_, number) in self._rows.items()
            if (place := self._place(e)) is not None
        ]
        for entry in self._entries:
            place = self._place(entry)
            if entry in self._done.stored or place is None:
                continue
            here = (place, entry.start)
            by = sum(number for *where, number in taken if tuple(where) < here)
            if by or entry.run is None:
                self._done.moved[entry] = place + by

    def _tidy(self, run: RunRecorder, *, over: bool) -> None:
        """Bring the row of the run up to what is stored of it now."""
        values = {"run": self._run_uid, "events": run.num_events, "over": over}
        if self._rows:
            self._cursor.execute(
                "DELETE FROM event_columns WHERE stream_uid IN "
                f"({_OF_RUN.format('streams')})",
                values,
            )
            self._cursor.execute(
                "UPDATE runs SET num_events = max(num_events, :events) "
                "WHERE uid = :run AND num_events IS NOT NULL",
                values,
            )
        last = max(
            self._cursor.execute(
                f"SELECT coalesce(max(ordinal), 0) FROM {table} WHERE {mine}", values
            ).fetchone()[0]
            for table, mine in _TABLES.items()
        )
        self._cursor.execute(
            "UPDATE runs SET stop_ordinal = :next WHERE uid = :run "
            "AND stop IS NOT NULL AND stop_ordinal < :next",
            values | {"next": last + 1},
        )
        self._cursor.execute(
            "UPDATE runs SET exit_status = 'interrupted', num_events = :events "
            "WHERE uid = :run AND exit_status IS NULL AND :over",
            values,
        )


_QUARANTINED, _UNSTORED, _IN_TABLES = 0, 2, 1


def _merged(
    moves: Sequence[tuple[int, int, int]],
) -> Iterator[tuple[int, int, int]]:
    """Yield ``(old, number, new)`` with neighbours that go the same way in one."""
    current: tuple[int, int, int] | None = None
    for old, number, new in moves:
        if current is not None:
            begin, length, target = current
            if old == begin + length and new == target + length:
                current = (begin, length + number, target)
                continue
            yield current
        current = (old, number, new)
    if current is not None:
        yield current
