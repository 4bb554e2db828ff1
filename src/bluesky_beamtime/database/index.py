"""Index: the runs of many beamtimes found by one search, disks absent or not."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from sqlalchemy import (
    Connection,
    column,
    create_engine,
    or_,
    select,
    table,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.conditions import Condition, Moment, make_conditions
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.failures import translate
from bluesky_beamtime.database.fulltext import count_matching, newest_first
from bluesky_beamtime.database.index_entries import bring_up_to_date
from bluesky_beamtime.database.index_tables import connect_to_index
from bluesky_beamtime.database.index_writer import IndexWriter
from bluesky_beamtime.database.indexed_run import IndexedRun
from bluesky_beamtime.database.people import Person
from bluesky_beamtime.database.samples import SampleMetadata
from bluesky_beamtime.errors import BeamtimeError, BeamtimeFileError
from bluesky_beamtime.sqlite_locks import first_bytes

_PAGE = 200

_runs_index = table(
    "runs_index",
    *map(
        column,
        (
            *("id", "uid", "researcher_id", "beamtime_id", "plan_name", "sample_name"),
            *("scan_id", "time_start", "time_stop", "exit_status", "num_events"),
            *("tags", "proposal", "starred"),
        ),
    ),
)
_beamtimes = table(
    "beamtimes", *map(column, ("id", "label", "db_path", "researcher_id"))
)
_researchers = table("researchers", *map(column, ("id", "name", "email", "orcid")))


class IndexedRuns(Sequence[IndexedRun]):
    """Runs of an index that fulfil some conditions, the last begun first.

    Has a length, can be iterated, indexed and sliced; asks the index anew at each use,
    and needs none of the beamtimes.
    """

    def __init__(self, index: Index, conditions: Sequence[Condition] = ()) -> None:
        self._index = index
        self._conditions = tuple(conditions)

    def __len__(self) -> int:
        with self._index.reading() as connection:
            query = count_matching(self._conditions)
            return int(connection.execute(query).scalar_one())

    def __bool__(self) -> bool:
        return bool(self._ids(limit=1))

    @overload
    def __getitem__(self, index: int) -> IndexedRun: ...

    @overload
    def __getitem__(self, index: slice) -> list[IndexedRun]: ...

    def __getitem__(self, index: int | slice) -> IndexedRun | list[IndexedRun]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step < 0:
                return list(self)[index]
            ids = self._ids(offset=start, limit=max(0, stop - start))
            return self._rows(ids[::step])
        offset = index if index >= 0 else len(self) + index
        found = self._rows(self._ids(offset=offset, limit=1)) if offset >= 0 else []
        if not found:
            raise IndexError(f"there are only {len(self)} runs, no number {index}")
        return found[0]

    def __iter__(self) -> Iterator[IndexedRun]:
        # Numbers alone are small, and each run comes once whatever is added meanwhile.
        ids = self._ids()
        for start in range(0, len(ids), _PAGE):
            yield from self._rows(ids[start : start + _PAGE])

    def _ids(self, *, offset: int = 0, limit: int | None = None) -> list[int]:
        order = [schema.runs.c.time_start.desc()]
        query = newest_first(self._conditions, order=order)
        query = query.offset(offset).limit(limit)
        with self._index.reading() as connection:
            return list(connection.execute(query).scalars())

    def _rows(self, ids: Sequence[int]) -> list[IndexedRun]:
        found: dict[int, IndexedRun] = {}
        for start in range(0, len(ids), _PAGE):
            query = (
                select(
                    _runs_index,
                    _beamtimes.c.label.label("beamtime"),
                    _beamtimes.c.db_path,
                    _researchers.c.name.label("researcher"),
                )
                .select_from(
                    _runs_index.join(
                        _beamtimes, _beamtimes.c.id == _runs_index.c.beamtime_id
                    ).outerjoin(
                        _researchers, _researchers.c.id == _runs_index.c.researcher_id
                    )
                )
                .where(_runs_index.c.id.in_(ids[start : start + _PAGE]))
            )
            with self._index.reading() as connection:
                for row in connection.execute(query):
                    found[row.id] = IndexedRun.of_row(row)
        return [found[number] for number in ids if number in found]

    def __repr__(self) -> str:
        count = len(self)
        return f"<{count} run{'' if count == 1 else 's'} of an index, newest first>"


class Index:
    """One search over many beamtimes.

    ::

        index = Index("~/beamtimes.index")
        index.refresh("/data/2026")
        for row in index.search(sample="LaB6", since="2026-01-01"):
            print(row.beamtime, row.scan_id, row.available)
        index.search(text="powder")[0].open().primary.read()

    Parameters
    ----------
    path
        File of the index, which need not be there yet.

    Notes
    -----
    Usable from several threads, while others write.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self._engine = create_engine(
            "sqlite://",
            creator=lambda: connect_to_index(self.path),
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
        )

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Lend a connection that reads.

        Raises
        ------
        BeamtimeFileError, NewerVersionError
            There is no index, or none that this version knows.
        """
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            original: Any = error.orig
            if isinstance(original, BeamtimeError):
                raise original from None
            raise translate(original, self.path) from error

    def search(
        self,
        *,
        researcher: str | None = None,
        beamtime: str | os.PathLike[str] | None = None,
        plan_name: str | None = None,
        sample: str | SampleMetadata | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        text: str | None = None,
        tags: str | Iterable[str] | None = None,
        starred: bool | None = None,
        proposal: str | int | None = None,
        user: str | Person | None = None,
        exit_status: str | None = None,
        **metadata: Any,
    ) -> IndexedRuns:
        """Return the runs that fulfil every condition, the last begun first.

        Parameters
        ----------
        researcher
            Whose beamtime it is: name, email or ORCID iD.
        beamtime
            Label or file of the beamtime.
        plan_name, sample, since, until, text, tags, starred, proposal, user
            As in :meth:`bluesky_beamtime.Beamtime.search`.
        exit_status, **metadata
            As there.

        Returns
        -------
        IndexedRuns
            Lazy, has a length, can be iterated and sliced.
        """
        conditions = make_conditions(
            plan_name=plan_name,
            sample=sample,
            since=since,
            until=until,
            text=text,
            tags=tags,
            starred=starred,
            proposal=proposal,
            user=user,
            exit_status=exit_status,
            metadata=metadata,
        )
        if researcher is not None:
            conditions.append(_of_researcher(researcher))
        if beamtime is not None:
            conditions.append(_of_beamtime(beamtime))
        return IndexedRuns(self, conditions)

    def refresh(
        self,
        path: str | os.PathLike[str],
        *,
        researcher: int | None = None,
        label: str | None = None,
    ) -> dict[Path, int | BeamtimeError]:
        """Tell the index of a beamtime, or of all of them below a folder.

        May be repeated: what is known already is brought up to date, tags that were
        added to old runs included. The beamtimes are only read.

        Parameters
        ----------
        path
            File of a beamtime, or a folder.
        researcher
            Number of the researcher, from :meth:`IndexWriter.register_researcher`.
        label
            How to call the beamtime; by default its name without ``.db``.

        Returns
        -------
        dict
            Of each beamtime how many runs it has, or the error for which it could not
            be read; files that are no beamtimes are left out.

        Raises
        ------
        BeamtimeFileError
            ``path`` is not there, or it is a file and no beamtime.
        """
        root = Path(path).expanduser().resolve()
        writer = IndexWriter(self.path)
        if not root.is_dir():
            return {root: _refresh_one(writer, root, researcher, label)}
        found: dict[Path, int | BeamtimeError] = {}
        for file in _files_below(root, besides=self.path.resolve()):
            try:
                found[file] = _refresh_one(writer, file, researcher, label)
            except BeamtimeFileError as error:
                if _may_be_beamtime(file):
                    found[file] = error
            except BeamtimeError as error:
                found[file] = error
        if not found:
            writer.ensure_schema()
        return found

    def __len__(self) -> int:
        return len(self.search())

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Index {str(self.path)!r}>"


def _of_researcher(researcher: str) -> Condition:
    known = (_researchers.c.name, _researchers.c.email, _researchers.c.orcid)
    whose = select(_researchers.c.id).where(or_(*(c == researcher for c in known)))
    mine = select(_runs_index.c.id).where(_runs_index.c.researcher_id.in_(whose))
    return schema.runs.c.id.in_(mine)


def _of_beamtime(beamtime: str | os.PathLike[str]) -> Condition:
    file = str(Path(beamtime).expanduser().resolve())
    meant = or_(_beamtimes.c.label == str(beamtime), _beamtimes.c.db_path == file)
    which = select(_beamtimes.c.id).where(meant)
    of_it = select(_runs_index.c.id).where(_runs_index.c.beamtime_id.in_(which))
    return schema.runs.c.id.in_(of_it)


def _refresh_one(
    writer: IndexWriter, file: Path, researcher: int | None, label: str | None
) -> int:
    database = Database(file, mode="r")
    try:
        name = file.name.removesuffix(".db") if label is None else label
        number = writer.register_beamtime(researcher, name, file)
        return bring_up_to_date(writer, database, number, anew=True)
    finally:
        database.close()


def _files_below(root: Path, besides: Path) -> Iterator[Path]:
    """Yield the files that may be beamtimes, without a look into stores of frames."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if not name.endswith(".zarr") and not name.startswith(".")
        )
        for name in sorted(files):
            file = Path(folder, name)
            if name.endswith(".db") and file.resolve() != besides:
                yield file.resolve()


def _may_be_beamtime(file: Path) -> bool:
    """Say whether a file that cannot be opened says of itself that it is a beamtime."""
    try:
        header = first_bytes(file, 72)
    except OSError:
        return True
    return header[68:72] == schema.APPLICATION_ID.to_bytes(4, "big")
