"""Runs by their conditions, number, age or uid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from sqlalchemy import ColumnElement, and_, func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.conditions import Condition
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.fulltext import count_matching, matching, newest_first
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.liveness import is_alive
from bluesky_beamtime.database.ordering import distinct_values, ordered_by
from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.database.summaries import summarize
from bluesky_beamtime.errors import RunNotFoundError

_PAGE = 200
_INT64 = range(-(2**63), 2**63)
_LAST_CHARACTER = "\U0010ffff"

_id, _uid = schema.runs.c.id, schema.runs.c.uid


class Runs(Sequence[Run]):
    """Runs that fulfil some conditions, the newest first; asked anew at each use.

    Has a length, can be iterated, indexed and sliced, and is cheap to make. Newest
    means last begun to be recorded; :meth:`sorted_by` gives another order.

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
        self._order: tuple[ColumnElement[Any], ...] = ()
        self._skip = 0
        self._most: int | None = None

    def _like(self, **changes: Any) -> Runs:
        runs = Runs(self._database, self._journal, self._conditions)
        for name in ("_order", "_skip", "_most"):
            setattr(runs, name, changes.get(name, getattr(self, name)))
        return runs

    # ------------------------------------------------------------- another order

    def sorted_by(self, *keys: str) -> Runs:
        """Return the same runs in another order.

        Parameters
        ----------
        *keys
            ``time``, ``scan_id``, ``plan_name``, ``sample``, ``exit_status``,
            ``num_events``, ``duration``, ``proposal``, ``uid``, or a key of the start
            document, with dots into nested mappings; the largest first with a ``-``
            before it. Runs without a value come last, equal ones the newest first.

        Raises
        ------
        ValueError
            No key, or one that cannot be searched.
        """
        self._check_whole("sorted_by")
        return self._like(_order=ordered_by(keys))

    def limit(self, number: int, *, skip: int = 0) -> Runs:
        """Return a page: at most ``number`` runs, after the first ``skip``.

        Raises
        ------
        ValueError
            A negative number.
        """
        if number < 0 or skip < 0:
            raise ValueError(f"a page has no negative size: {number}, skip={skip}")
        self._check_whole("limit")
        return self._like(_most=number, _skip=skip)

    def _check_whole(self, what: str) -> None:
        if self._most is not None:
            raise ValueError(f"{what}() of a page: call it before limit()")

    def distinct(self, key: str) -> dict[Any, int]:
        """Return the values that a key has in these runs, and how many runs have each.

        Parameters
        ----------
        key
            As for :meth:`sorted_by`, or ``tags`` or ``user``.

        Returns
        -------
        dict
            The most frequent first. A list comes as a tuple, a mapping as JSON text.
        """
        self._check_whole("distinct")
        with self._database.reading() as connection:
            return distinct_values(connection, key, self._conditions)

    def summaries(self) -> Iterator[dict[str, Any]]:
        """Yield the line of each run for a listing, a page of them at a time.

        The same as :meth:`Run.summary` of each, in a few queries for hundreds of runs.
        """
        for ids in self._pages():
            yield from summarize(self._database, self._journal, ids)

    # -------------------------------------------------------------- as a sequence

    def __len__(self) -> int:
        query = count_matching(self._conditions)
        with self._database.reading() as connection:
            count = connection.execute(query).scalar_one()
        count = max(0, count - self._skip)
        return count if self._most is None else min(count, self._most)

    def __bool__(self) -> bool:
        return bool(self._ids(limit=1))

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> list[Run]: ...

    def __getitem__(self, index: int | slice) -> Run | list[Run]:
        if isinstance(index, slice):
            if _is_beginning(index):
                # The first fifty of a million need not be counted.
                first = self._ids(offset=index.start or 0, limit=_size(index))
                return self._runs(first[:: index.step])
            start, stop, step = index.indices(len(self))
            if step < 0:
                return list(self)[index]
            ids = self._ids(offset=start, limit=max(0, stop - start))
            return self._runs(ids[::step])
        count = None if index >= 0 else len(self)
        offset = index if count is None else count + index
        found = self._runs(self._ids(offset=offset, limit=1)) if offset >= 0 else []
        if not found:
            raise IndexError(f"there are only {len(self)} runs, no number {index}")
        return found[0]

    def __iter__(self) -> Iterator[Run]:
        for ids in self._pages():
            yield from self._runs(ids)

    def _pages(self) -> Iterator[list[int]]:
        """Yield the numbers of the rows, each once whatever is recorded meanwhile."""
        if self._order or self._skip:
            # Numbers alone are small; another order may change under our feet.
            ids = self._ids()
            for start in range(0, len(ids), _PAGE):
                yield ids[start : start + _PAGE]
            return
        below: int | None = None
        left = self._most
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            ids = self._ids(limit=size, below=below)
            if ids:
                yield ids
            if len(ids) < size:
                return
            below = ids[-1]
            left = None if left is None else left - size

    def _ids(
        self, *, offset: int = 0, limit: int | None = None, below: int | None = None
    ) -> list[int]:
        """Return numbers of rows: indexes alone know them, mostly."""
        if self._most is not None:
            left = max(0, self._most - offset)
            limit = left if limit is None else min(limit, left)
        query = newest_first(self._conditions, order=self._order, below=below)
        query = query.offset(self._skip + offset).limit(limit)
        with self._database.reading() as connection:
            return list(connection.execute(query).scalars())

    def _runs(self, ids: Sequence[int]) -> list[Run]:
        uids: dict[int, str] = {}
        with self._database.reading() as connection:
            for start in range(0, len(ids), _PAGE):
                part = ids[start : start + _PAGE]
                query = select(_id, _uid).where(_id.in_(part))
                uids |= {row.id: row.uid for row in connection.execute(query)}
        return [self._run(uids[number]) for number in ids if number in uids]

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
        found = self._runs(self._ids(offset=number, limit=1))
        if not found:
            count = len(self)
            there = f"there are {count} runs" if count else "there is no run yet"
            raise RunNotFoundError(f"there is no run [{-number - 1}]: {there}")
        return found[0]

    def by_scan_id(self, scan_id: int) -> Run:
        """Return the newest run with a scan number.

        Raises
        ------
        RunNotFoundError
            There is none; the message says which there are.
        """
        runs = schema.runs
        if scan_id in _INT64:
            found = self._where(runs.c.scan_id == scan_id, limit=1)
            if found:
                return found[0]
        with self._database.reading() as connection:
            # Each is found at one end of an index, if it is asked for alone.
            first, last = (
                connection.execute(matching(self._conditions, end)).scalar()
                for end in (func.min(runs.c.scan_id), func.max(runs.c.scan_id))
            )
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
        exactly = self._where(_uid == uid, limit=1)
        if exactly:
            return exactly[0]
        begins = and_(_uid >= uid, _uid < uid + _LAST_CHARACTER)
        found = self._where(begins, limit=6)
        if len(found) == 1:
            return found[0]
        uids = [run.uid for run in found]
        if not uids:
            raise RunNotFoundError(f"there is no run whose uid begins with {uid!r}")
        more = " and more" if len(uids) > 5 else ""
        raise RunNotFoundError(
            f"{uid!r} is the beginning of several uids, give more of it: "
            f"{', '.join(uids[:5])}{more}"
        )

    def _where(self, condition: Condition, *, limit: int) -> list[Run]:
        found = Runs(self._database, self._journal, (*self._conditions, condition))
        return found._runs(found._ids(limit=limit))

    def __repr__(self) -> str:
        count = len(self)
        order = "sorted" if self._order else "newest first"
        return f"<{count} run{'' if count == 1 else 's'}, {order}>"


def _is_beginning(index: slice) -> bool:
    """Say whether a slice counts from the beginning and ends somewhere."""
    return (
        isinstance(index.stop, int)
        and (index.start is None or index.start >= 0)
        and index.stop >= 0
        and (index.step is None or index.step > 0)
    )


def _size(index: slice) -> int:
    return max(0, index.stop - (index.start or 0))


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
