"""A beamtime as Tiled's catalogue of runs: searched, sorted and paged in SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import HTTPException
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects import sqlite
from tiled.queries import QueryValueError
from tiled.server.core import NoEntry
from tiled.structures.container import ContainerStructure
from tiled.structures.core import Spec, StructureFamily

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.fulltext import (
    count_matching,
    matching,
    number_among,
)
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.serving.distinct import distinct
from bluesky_beamtime.serving.queries import (
    AnyCondition,
    conditions_of,
    full_key,
    place,
)
from bluesky_beamtime.serving.recent_counts import RecentCounts
from bluesky_beamtime.serving.run import RunNode
from bluesky_beamtime.serving.run_rows import as_int64, fetch_runs
from bluesky_beamtime.serving.searching import searching
from bluesky_beamtime.serving.subscriptions import Unsubscribable

Sorting = tuple[tuple[str, int], ...]
T = TypeVar("T")

_AS_RECORDED: Sorting = (("_", 1),)
_BY_AGE = ("", "_")


class RunCatalog(Unsubscribable):
    """The runs of one beamtime, as the server of Tiled wants to see a container.

    Nothing is copied or kept: each request asks the database, so that runs that are
    going on are there, and grow. The queries of Tiled become SQL.

    Parameters
    ----------
    database
        The beamtime; may be open for recording at the same time.
    name
        What it is called; by default the name of the file without ``.db``.
    conditions, sorting
        Of a catalogue that was narrowed or sorted.
    counts
        Shared by the catalogues of one server.

    Notes
    -----
    Coroutines do their SQL in threads; any number may run at once.
    """

    structure_family = StructureFamily.container
    specs: Sequence[Spec] = (Spec("CatalogOfBlueskyRuns", version="3.0"),)
    # A page of runs may be out of date as soon as it is sent.
    must_revalidate = True
    # Tiled asks these of the root of a tree when there is an access policy.
    node = SimpleNamespace(parent=None)
    access_tags = None

    def __init__(
        self,
        database: Database,
        *,
        name: str | None = None,
        conditions: Sequence[AnyCondition] = (),
        sorting: Sorting = _AS_RECORDED,
        counts: RecentCounts | None = None,
    ) -> None:
        self.database = database
        self.name = name or database.path.name.removesuffix(".db")
        self._journal = JournalIndex(database.journal)
        self._conditions = tuple(conditions)
        self._sorting = sorting
        self._counts = counts or RecentCounts()

    def metadata(self) -> dict[str, Any]:
        """Return what is said of the beamtime as a whole."""
        return {"beamtime": {"name": self.name, "available": True}}

    def structure(self) -> ContainerStructure:
        """Return the structure, without the keys: there may be a million."""
        return ContainerStructure(keys=[])

    @property
    def sorting(self) -> list[tuple[str, int]]:
        """By what the runs are sorted; ``_``: as they were recorded."""
        return list(self._sorting)

    # ----------------------------------------------------------------- narrowing

    def search(self, query: Any) -> RunCatalog:
        """Return the catalogue of the runs that fulfil a query of Tiled.

        Raises
        ------
        QueryValueError
            The query makes no sense for runs.
        """
        return RunCatalog(
            self.database,
            name=self.name,
            conditions=(*self._conditions, *conditions_of(query)),
            sorting=self._sorting,
            counts=self._counts,
        )

    def sort(self, sorting: Sequence[tuple[str, int]]) -> RunCatalog:
        """Return the catalogue in another order.

        Parameters
        ----------
        sorting
            Keys of the metadata, or ``_`` for the order of recording, each with 1 or
            -1.

        Raises
        ------
        HTTPException
            Runs are not sorted by such a key; Tiled takes nothing else for an answer
            of 400.
        """
        try:
            for key, _ in sorting:
                if key not in _BY_AGE:
                    _sort_column(key)
        except QueryValueError as error:
            raise HTTPException(400, str(error)) from error
        return RunCatalog(
            self.database,
            name=self.name,
            conditions=self._conditions,
            sorting=tuple((key, direction) for key, direction in sorting),
            counts=self._counts,
        )

    def _order(self) -> list[ColumnElement[Any]]:
        order: list[ColumnElement[Any]] = []
        for key, direction in (*self._sorting, ("_", self._last_direction)):
            by_age = key in _BY_AGE
            column = self._number if by_age else _sort_column(key)
            order.append(column.desc() if direction < 0 else column.asc())
            if by_age:
                # No two are equal; with more the index of texts would sort them all.
                break
        return order

    @property
    def _last_direction(self) -> int:
        return self._sorting[-1][1] if self._sorting else 1

    @property
    def _number(self) -> ColumnElement[int]:
        """The numbers of the runs, in which they were recorded."""
        return number_among(self._conditions)

    @property
    def _by_age(self) -> int:
        """1 or -1 if the runs are in the order of their rows, 0 if they are not."""
        first = self._sorting[0] if self._sorting else _AS_RECORDED[0]
        return first[1] if first[0] in _BY_AGE else 0

    # ------------------------------------------------------------------- lengths

    async def exact_len(self) -> int:
        """Return how many runs there are."""
        return await _in_thread(self._count)

    async def lbound_len(self, threshold: int) -> int:
        """Return how many runs there are, or ``threshold`` + 1 if there are more."""
        return await _in_thread(lambda: self._count(threshold + 1))

    async def approx_len(self) -> int:
        """Return how many runs there are, or were when the last page was asked for."""
        return await _in_thread(lambda: self._counts.of(self._question(), self._count))

    def _question(self) -> str:
        asked = count_matching(self._conditions).compile(dialect=sqlite.dialect())
        return f"{self.database.path} {asked} {sorted(asked.params.items())!r}"

    def _count(self, limit: int | None = None) -> int:
        if limit is None:
            query = count_matching(self._conditions)
        else:
            some = matching(self._conditions, self._number).limit(limit)
            query = select(func.count()).select_from(some.subquery())
        with searching(self.database) as connection:
            return connection.execute(query).scalar_one()

    # --------------------------------------------------------------------- pages

    async def lookup_adapter(self, segments: Sequence[str]) -> Any:
        """Return the node at a path below.

        Raises
        ------
        NoEntry
            There is none.
        """
        uid, *rest = segments
        nodes = await _in_thread(lambda: self._nodes([schema.runs.c.uid == uid]))
        if not nodes:
            raise NoEntry(segments)
        (run,) = nodes
        return await run.lookup_adapter(rest) if rest else run

    async def keys_range(self, offset: int = 0, limit: int | None = None) -> list[str]:
        """Return uids of runs."""
        rows = await _in_thread(
            lambda: self._uids([], limit=limit, offset=as_int64(offset))
        )
        return [uid for _, uid in rows]

    async def items_range(
        self, offset: int = 0, limit: int | None = None
    ) -> list[tuple[str, RunNode]]:
        """Return runs with their uids."""
        runs = await _in_thread(
            lambda: self._nodes([], limit=limit, offset=as_int64(offset))
        )
        return [(run.uid, run) for run in runs]

    async def keys_page(
        self, cursor: int | None, limit: int
    ) -> tuple[list[str], int | None]:
        """Return uids of runs after a cursor, and the cursor of the next page."""
        after = self._after(cursor)
        rows = await _in_thread(lambda: self._uids(after, limit=limit + 1))
        more = len(rows) > limit and limit > 0 and self._by_age
        return [uid for _, uid in rows[:limit]], rows[limit - 1][0] if more else None

    async def items_page(
        self, cursor: int | None, limit: int
    ) -> tuple[list[tuple[str, RunNode]], int | None]:
        """Return runs with their uids after a cursor, and the cursor of the next page.

        A cursor is the number of a run's row; it stays where it is while runs are
        added, and finds its page without counting through those before it.
        """
        after = self._after(cursor)
        runs = await _in_thread(lambda: self._nodes(after, limit=limit + 1))
        more = len(runs) > limit
        runs = runs[:limit]
        following = runs[-1].row_id if more and runs and self._by_age else None
        return [(run.uid, run) for run in runs], following

    def _after(self, cursor: int | None) -> list[AnyCondition]:
        if cursor is None:
            return []
        number, last = self._number, as_int64(cursor)
        return [number > last if self._by_age > 0 else number < last]

    async def cursor_for_offset(self, offset: int) -> int | None:
        """Return the cursor of the page that begins at ``offset``, None if unknown."""
        if not offset or not self._by_age:
            return None
        return await _in_thread(lambda: self._id_at(as_int64(offset - 1)))

    def _id_at(self, offset: int) -> int | None:
        query = matching(self._conditions, self._number)
        query = query.order_by(*self._order()).offset(offset).limit(1)
        with searching(self.database) as connection:
            found = connection.execute(query).scalar()
            if found is not None:
                return found
            # Beyond the end: a cursor that nothing follows.
            last = func.max if self._by_age > 0 else func.min
            end = connection.execute(select(last(schema.runs.c.id))).scalar()
        return end if self._by_age > 0 else 0

    def _nodes(
        self,
        conditions: Sequence[AnyCondition],
        *,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[RunNode]:
        rows = fetch_runs(
            self.database,
            (*self._conditions, *conditions),
            self._order(),
            limit=limit,
            offset=offset,
        )
        return [RunNode(self.database, self._journal, row) for row in rows]

    def _uids(
        self,
        conditions: Sequence[AnyCondition],
        *,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[tuple[int, str]]:
        """Return numbers and uids of runs, which is all that a list of keys needs."""
        every = (*self._conditions, *conditions)
        query = matching(every, self._number, schema.runs.c.uid)
        query = query.order_by(*self._order()).limit(limit).offset(offset)
        with searching(self.database) as connection:
            return [(number, uid) for number, uid in connection.execute(query)]

    async def get_distinct(
        self,
        metadata: Sequence[str] | None,
        structure_families: bool,
        specs: bool,
        counts: bool,
    ) -> dict[str, Any]:
        """Return the values that keys of the metadata have, in Tiled's form."""
        return await _in_thread(
            lambda: distinct(
                self.database,
                self._conditions,
                metadata or (),
                structure_families=structure_families,
                specs=specs,
                counts=counts,
            )
        )

    def __repr__(self) -> str:
        return f"<RunCatalog of {str(self.database.path)!r}>"


def _sort_column(key: str) -> ColumnElement[Any]:
    key = full_key(key)
    columns = {
        "start.uid": schema.runs.c.uid,
        "start.time": schema.runs.c.time_start,
        "start.scan_id": schema.runs.c.scan_id,
        "start.plan_name": schema.runs.c.plan_name,
    }
    return columns[key] if key in columns else place(key).value


async def _in_thread(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)


__all__ = ["QueryValueError", "RunCatalog"]
