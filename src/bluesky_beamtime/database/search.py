"""Runs by their conditions, number, age or uid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from sqlalchemy import and_, func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.conditions import Condition
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.liveness import is_alive
from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.errors import RunNotFoundError

_PAGE = 200
_INT64 = range(-(2**63), 2**63)
_LAST_CHARACTER = "\U0010ffff"


class Runs(Sequence[Run]):
    """Runs that fulfil some conditions, the newest first; asked anew at each use.

    Has a length, can be iterated, indexed and sliced, and is cheap to make.

    Parameters
    ----------
    database
        The database.
    journal
        Which runs have documents in the journal.
    conditions
        All of them must hold.
    """

    def __init__(
        self,
        database: Database,
        journal: JournalIndex,
        conditions: Sequence[Condition] = (),
    ) -> None:
        self._database = database
        self._journal = journal
        self._conditions = tuple(conditions)

    def __len__(self) -> int:
        query = select(func.count()).select_from(schema.runs).where(*self._conditions)
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one()

    def __bool__(self) -> bool:
        return bool(self._uids(limit=1))

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> list[Run]: ...

    def __getitem__(self, index: int | slice) -> Run | list[Run]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step < 0:
                return list(self)[index]
            uids = self._uids(offset=start, limit=max(0, stop - start))
            return [self._run(uid) for uid in uids[::step]]
        count = None if index >= 0 else len(self)
        offset = index if count is None else count + index
        uids = self._uids(offset=offset, limit=1) if offset >= 0 else []
        if not uids:
            raise IndexError(f"there are only {len(self)} runs, no number {index}")
        return self._run(uids[0])

    def __iter__(self) -> Iterator[Run]:
        below: int | None = None
        while True:
            query = self._select(schema.runs.c.id, schema.runs.c.uid).limit(_PAGE)
            if below is not None:
                query = query.where(schema.runs.c.id < below)
            with self._database.reading() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                yield self._run(row.uid)
            if len(rows) < _PAGE:
                return
            below = rows[-1].id

    def _select(self, *columns: Any) -> Any:
        return (
            select(*columns).where(*self._conditions).order_by(schema.runs.c.id.desc())
        )

    def _uids(self, *, offset: int = 0, limit: int) -> list[str]:
        query = self._select(schema.runs.c.uid).offset(offset).limit(limit)
        with self._database.reading() as connection:
            return list(connection.execute(query).scalars())

    def _run(self, uid: str) -> Run:
        return Run(self._database, uid, self._journal)

    # --------------------------------------------------------------------- one run

    def newest(self, number: int) -> Run:
        """Return the run before the ``number``-th newest; 0 is the newest.

        Raises
        ------
        RunNotFoundError
            There are not as many.
        """
        uids = self._uids(offset=number, limit=1)
        if not uids:
            count = len(self)
            there = f"there are {count} runs" if count else "there is no run yet"
            raise RunNotFoundError(f"there is no run [{-number - 1}]: {there}")
        return self._run(uids[0])

    def by_scan_id(self, scan_id: int) -> Run:
        """Return the newest run with a scan number.

        Raises
        ------
        RunNotFoundError
            There is none; the message says which there are.
        """
        runs = schema.runs
        here = (*self._conditions, runs.c.scan_id == scan_id)
        found = Runs(self._database, self._journal, here)
        uids = found._uids(limit=1) if scan_id in _INT64 else []
        if uids:
            return self._run(uids[0])
        with self._database.reading() as connection:
            query = select(func.min(runs.c.scan_id), func.max(runs.c.scan_id))
            first, last = connection.execute(query.where(*self._conditions)).one()
        there = (
            "there is no run yet"
            if first is None
            else f"scan numbers here run from {first} to {last}"
        )
        raise RunNotFoundError(
            f"there is no run with the scan number {scan_id}: {there}"
        )

    def by_uid(self, uid: str) -> Run:
        """Return the run whose uid begins with ``uid``.

        Raises
        ------
        RunNotFoundError
            There is none, or several.
        """
        runs = schema.runs
        begins = and_(runs.c.uid >= uid, runs.c.uid < uid + _LAST_CHARACTER)
        found = Runs(self._database, self._journal, (*self._conditions, begins))
        uids = found._uids(limit=6)
        if uid in uids:
            return self._run(uid)
        if len(uids) == 1:
            return self._run(uids[0])
        if not uids:
            raise RunNotFoundError(f"there is no run whose uid begins with {uid!r}")
        more = " and more" if len(uids) > 5 else ""
        raise RunNotFoundError(
            f"{uid!r} is the beginning of several uids, give more of it: "
            f"{', '.join(uids[:5])}{more}"
        )

    def __repr__(self) -> str:
        count = len(self)
        return f"<{count} run{'' if count == 1 else 's'}, newest first>"


def count_incomplete(database: Database, journal: JournalIndex) -> int:
    """Return how many runs were interrupted or have documents in the journal."""
    runs = schema.runs
    interrupted = select(runs.c.uid).where(runs.c.exit_status == "interrupted")
    unfinished = select(runs.c.uid, runs.c.writer).where(runs.c.exit_status.is_(None))
    journaled = journal.runs()
    with database.reading() as connection:
        found = set(connection.execute(interrupted).scalars())
        open_runs = connection.execute(unfinished).all()
    found |= {r.uid for r in open_runs if not is_alive(database.folder, r.writer)}
    return len(found | journaled)
