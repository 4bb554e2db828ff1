"""One run: what it was, how it ended, and its data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from sqlalchemy import Row, func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.accounting import (
    Account,
    Timing,
    frame_accounts,
    frame_timing,
)
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.handed_out_run import HandedOutRun
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.liveness import is_alive
from bluesky_beamtime.database.marked_run import MarkedRun
from bluesky_beamtime.database.people import Person, people_of_run
from bluesky_beamtime.database.samples import SampleMetadata, sample_at
from bluesky_beamtime.database.streams import Stream
from bluesky_beamtime.database.summaries import summarize
from bluesky_beamtime.errors import RunNotFoundError


class Run(MarkedRun, HandedOutRun):
    """One run of a beamtime; its streams are attributes and items.

    ``run.primary``, ``run["primary"]`` and ``"primary" in run`` are those of the stream
    ``primary``; a stream whose name is also one of the attributes below, such as
    ``notes``, is an item only. Everything is read when it is asked for: the same object
    follows a run that is still going on, from any thread and in any process.

    Parameters
    ----------
    database
        The database.
    uid
        Uid of a run that is there.
    journal
        Which runs have documents in the journal.

    Attributes
    ----------
    uid : str
        Uid of the run.
    database : Database
        Where it is.
    """

    def __init__(self, database: Database, uid: str, journal: JournalIndex) -> None:
        self.database = database
        self.uid = uid
        self._journal = journal
        self._final: Row[Any] | None = None
        self._start: dict[str, Any] | None = None

    def _row(self) -> Row[Any]:
        if self._final is not None:
            return self._final
        query = select(schema.runs).where(schema.runs.c.uid == self.uid)
        with self.database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise RunNotFoundError(f"run {self.uid} is not there any more")
        if row.stop is not None:
            # Nothing changes any more.
            self._final = row
        return row

    # ----------------------------------------------------------------------- what

    @property
    def scan_id(self) -> int | None:
        """Scan number."""
        return self._row().scan_id

    @property
    def plan_name(self) -> str | None:
        """Name of the plan."""
        return self._row().plan_name

    @property
    def time(self) -> float | None:
        """When it began, seconds since 1970."""
        return self._row().time_start

    @property
    def label(self) -> str:
        """``"run 214"``, or the beginning of the uid for a run without a number."""
        scan_id = self.scan_id
        return f"run {self.uid[:8] if scan_id is None else scan_id}"

    @property
    def start(self) -> dict[str, Any]:
        """The RunStart document."""
        start = self._start
        if start is None:
            start = self._start = decode(self._row().start)
        # A copy: what callers do to it must not change the run.
        return {**start}

    @property
    def stop(self) -> dict[str, Any] | None:
        """The RunStop document; None while the run goes on, and if it was cut off."""
        text = self._row().stop
        return None if text is None else decode(text)

    @property
    def metadata(self) -> dict[str, Any]:
        """The start document without what every run has."""
        return decode(self._row().metadata)

    @property
    def sample(self) -> SampleMetadata | None:
        """The sample as it was when the run began.

        What was said of it later is in ``beamtime.samples``.
        """
        row = self._row()
        if row.sample_id is None:
            return None
        with self.database.reading() as connection:
            return sample_at(connection, row.sample_id, row.time_start)

    @property
    def proposal(self) -> str | None:
        """Number or name of the proposal."""
        return self._row().proposal

    @property
    def people(self) -> list[Person]:
        """Who took part, with their roles."""
        with self.database.reading() as connection:
            return people_of_run(connection, self.uid)

    # ------------------------------------------------------------------- how it went

    @property
    def exit_status(self) -> str | None:
        """``success``, ``abort``, ``fail``; None while it goes on.

        ``interrupted`` if the process that recorded it ended before the run did.
        """
        row = self._row()
        if row.exit_status is None and not is_alive(self.database.folder, row.writer):
            return "interrupted"
        return row.exit_status

    @property
    def complete(self) -> bool:
        """Whether every document of the run is here, as far as it got.

        False for a run that was interrupted, and for one that has documents in the
        journal.
        """
        return self.exit_status != "interrupted" and not self.in_journal

    @property
    def in_journal(self) -> bool:
        """Whether documents of the run are in the journal instead of the database."""
        return self.uid in self._journal.runs()

    @property
    def num_events(self) -> int:
        """Events of all streams so far."""
        row = self._row()
        if row.num_events is not None:
            return row.num_events
        mine = select(schema.streams.c.uid).where(schema.streams.c.run_uid == self.uid)
        query = select(func.count()).where(schema.events.c.stream_uid.in_(mine))
        with self.database.reading() as connection:
            return connection.execute(query).scalar_one()

    @property
    def accounting(self) -> dict[str, Account]:
        """What became of the frames of each camera.

        ``{key: {expected, received, dropped, late, written}}``; None where nobody
        counted.
        """
        return frame_accounts(self.database, self.uid)

    @property
    def frame_timing(self) -> dict[str, Timing]:
        """How each camera has spent its time, of those that know it.

        ``{key: {live_time, span, storage_time, dead_time}}``, in seconds: exposed, from
        the beginning of the first exposure to the end of the last one of each
        acquisition, and held up by storing. ``dead_time`` is the share of the span, 0
        to 1, in which no exposure that arrived was being taken; None if the exposure is
        not known.
        """
        return frame_timing(self.database, self.uid)

    def summary(self) -> dict[str, Any]:
        """Return the line of a listing: plain values, ready for JSON."""
        return summarize(self.database, self._journal, [self._row().id])[0]

    # ----------------------------------------------------------------------- the data

    @property
    def stream_names(self) -> list[str]:
        """Names of the streams, in the order in which they began."""
        table = schema.streams
        query = (
            select(table.c.name)
            .where(table.c.run_uid == self.uid)
            .order_by(table.c.ordinal)
        )
        with self.database.reading() as connection:
            return list(dict.fromkeys(connection.execute(query).scalars()))

    @property
    def streams(self) -> dict[str, Stream]:
        """The streams by name."""
        return {name: Stream(self, name) for name in self.stream_names}

    def plot(self, field: str | None = None, *, axes: Any = None) -> Any:
        """Draw a field of the stream ``primary``; see :meth:`Stream.plot`."""
        return self["primary"].plot(field, axes=axes)

    def __getitem__(self, name: str) -> Stream:
        names = self.stream_names
        if name in names:
            return Stream(self, name)
        raise RunNotFoundError(
            f"{self.label} has no stream {name!r}"
            + (f"; it has {', '.join(names)}" if names else ", nor any other yet")
        )

    def __getattr__(self, name: str) -> Stream:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except RunNotFoundError as error:
            raise AttributeError(str(error), name=name, obj=self) from None

    def __contains__(self, name: object) -> bool:
        return name in self.stream_names

    def __iter__(self) -> Iterator[str]:
        return iter(self.stream_names)

    def __len__(self) -> int:
        return len(self.stream_names)

    def __bool__(self) -> bool:
        # A run without streams is still a run.
        return True

    def __dir__(self) -> list[str]:
        names = [name for name in self.stream_names if name.isidentifier()]
        return [*cast("list[str]", super().__dir__()), *names]

    def _ipython_key_completions_(self) -> list[str]:
        return self.stream_names

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Run)
            and other.uid == self.uid
            and other.database.path == self.database.path
        )

    def __hash__(self) -> int:
        return hash((self.uid, self.database.path))

    def __repr__(self) -> str:
        from bluesky_beamtime.database.display import run_repr

        return run_repr(self)

    def _repr_html_(self) -> str:
        from bluesky_beamtime.database.display import run_html

        return run_html(self)
