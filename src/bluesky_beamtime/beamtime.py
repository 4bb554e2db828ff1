"""Beamtime: the one object that users hold."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from bluesky_beamtime.database import facts, rawsql
from bluesky_beamtime.database.conditions import (
    Moment,
    make_conditions,
    words_in_metadata,
)
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.index_follower import IndexFollower
from bluesky_beamtime.database.integrity import VerifyReport, verify
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.metadata import Metadata
from bluesky_beamtime.database.migrating import Migration, migrate
from bluesky_beamtime.database.notes import Note, add_note, read_notes
from bluesky_beamtime.database.people import Person, all_people, one_or_several
from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.database.sample_book import Samples
from bluesky_beamtime.database.samples import SampleMetadata, upsert_sample
from bluesky_beamtime.database.scan_ids import reserve_scan_id
from bluesky_beamtime.database.schema import runs
from bluesky_beamtime.database.search import Runs, count_incomplete
from bluesky_beamtime.database.sizes import folder_size, human_size
from bluesky_beamtime.errors import BeamtimeError, ReadOnlyError, RunStateError
from bluesky_beamtime.plugins import load_plugin
from bluesky_beamtime.recording import (
    DocumentRecorder,
    RecoveryReport,
    acquisition_name,
    help_tiled_writer,
    label_interrupted,
    recover,
)
from bluesky_beamtime.recording.importing import (
    ImportReport,
    Progress,
    import_documents,
)
from bluesky_beamtime.recording.ingesting import DocumentSource, Ingest, IngestedRun
from bluesky_beamtime.recording.sources import open_source
from bluesky_beamtime.storage import FrameStore, create_group

if TYPE_CHECKING:
    import pandas as pd
    from bluesky import RunEngine
    from ophyd_async.core import PathProvider

    from bluesky_beamtime.database.replica import Following

# Summing up the files of thousands of runs must not make a prompt wait.
_PATIENCE = 0.3


class Beamtime:
    """Everything that a beamline measured: records it, lists it, finds it, reads it.

    ::

        beamtime = Beamtime("2026-11-LaB6.db", sample="LaB6")
        beamtime.attach(RE)
        camera = SimCamera(beamtime.frames)
        RE(count([camera], 10))
        beamtime[-1].primary.read()

    Documents and numbers go to the SQLite file ``x.db``, frames and arrays to the Zarr
    hierarchy ``x.zarr`` beside it; the folder may be moved as a whole.

    Parameters
    ----------
    path
        The file; made if it does not exist, in a folder that does. Or the URL of a
        PostgreSQL database, ``"postgresql://user@host/database"``: with ``mode="a"`` a
        file on this machine is recorded into as always, and the server follows it; with
        ``mode="r"`` the server is read.
    sample
        What is in the beam, see :attr:`sample`.
    mode
        ``"a"`` to record, ``"r"`` to read: nothing that is there is changed then.
    durability
        ``"kill"``: what was accepted survives the death of the process at once, and a
        power cut after 50 ms; ``"power"``: it survives both at once, and is slower.
    on_error
        What becomes of a document that cannot be stored. ``"journal"``: it goes with
        the rest of its run to ``x.journal.jsonl``, with a loud warning, and the plan
        goes on; ``"raise"``: the plan stops.
    frames
        With a server: URL of an object store, such as ``"s3://bucket/prefix"``, to
        which frames are copied for those who read from the server.
    spool
        With a server: the folder of the file that is recorded into; by default one
        below ``~/.local/state/bluesky-beamtime``.
    keep_local
        With ``frames``: whether frames stay here when they were copied, and compared.
    index
        An index over many beamtimes, which is told of every run; see :meth:`register`.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    mode : str
        As given.

    Raises
    ------
    BeamtimeFileError
        The path is no beamtime's, or there is another kind of file; it is not changed.
    NewerVersionError
        The file was written by a newer version of this package.

    Notes
    -----
    Usable from several threads. Several processes may read a beamtime while others
    record into it. Opening one for recording labels the runs that were cut off by a
    crash, and repairs their frames. It is a callback: ``RE.subscribe(beamtime)``
    records, and :meth:`attach` does a little more.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sample: str | Mapping[str, Any] | SampleMetadata | None = None,
        mode: Literal["a", "r"] = "a",
        durability: Literal["kill", "power"] = "kill",
        on_error: Literal["journal", "raise"] = "journal",
        frames: str | None = None,
        spool: str | os.PathLike[str] | None = None,
        keep_local: bool = True,
        index: str | os.PathLike[str] | None = None,
    ) -> None:
        self.mode: Literal["a", "r"] = mode
        self._sample: SampleMetadata | None = None
        self._frames: FrameStore | None = None
        self._attached: dict[int, tuple[RunEngine, int, Any]] = {}
        self._recorder: DocumentRecorder | None = None
        self._following: Following | None = None
        self._index: IndexFollower | None = None
        if isinstance(path, str) and path.startswith("postgres") and "://" in path:
            from bluesky_beamtime.database.replica import open_server

            opened = open_server(
                path,
                mode=mode,
                durability=durability,
                frames=frames,
                spool=spool,
                keep_local=keep_local,
            )
            self._database, self._journal = opened.database, opened.journal
            self._following = opened.following
        else:
            if frames is not None or spool is not None:
                raise ValueError(
                    "frames= and spool= are for a beamtime on a server; the frames of "
                    "a file are beside it, replicate_to() copies both"
                )
            self._database = Database(path, mode=mode, durability=durability)
            self._journal = JournalIndex(self._database.journal)
        try:
            self.path = self._database.path
            self._runs = Runs(self._database, self._journal)
            if mode == "a":
                self._begin_recording(on_error)
            if sample is not None:
                self.sample = sample
            if index is not None:
                self.register(index)
        except BaseException:
            self.close()
            raise

    def _begin_recording(self, on_error: Literal["journal", "raise"]) -> None:
        self._recorder = DocumentRecorder(self._database, on_error=on_error)
        power = self._database.durability == "power"
        create_group(self._database.store, sync=power)
        label_interrupted(self._database)
        if self._following is not None:
            self._follow(self._following, numbers=True)

    def _follow(self, following: Following, *, numbers: bool) -> None:
        self._following = following
        # Also when nobody closes this beamtime: the threads do not know it.
        self._stop_following = weakref.finalize(self, following.close)
        following.start(numbers=numbers)

    # -------------------------------------------------------------------- recording

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Record one document; it is safe when this returns.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        DatabaseWriteError
            Neither the database nor the journal could take it.
        BeamtimeError
            With ``on_error="raise"``: it could not be stored.
        """
        recorder = self._recorder
        if recorder is None:
            raise self._read_only("record")
        recorder(name, doc)
        if name == "start":
            help_tiled_writer()
        if self._index is not None and name in ("start", "stop"):
            self._index.notify()

    def attach(self, RE: RunEngine) -> None:
        """Record every run of a RunEngine, with scan numbers that go on.

        Subscribes to the documents, and makes :meth:`next_scan_id` the RunEngine's
        source of scan numbers. Attaching twice is attaching once.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("record")
        if id(RE) in self._attached:
            return
        engine: Any = RE  # its methods lack annotations
        token: int = engine.subscribe(self)
        self._attached[id(RE)] = (RE, token, engine.scan_id_source)
        engine.scan_id_source = self.next_scan_id

    def detach(self, RE: RunEngine) -> None:
        """Undo :meth:`attach`; nothing happens if it is not attached."""
        attached = self._attached.pop(id(RE), None)
        if attached is None:
            return
        engine: Any
        engine, token, source = attached
        engine.unsubscribe(token)
        if getattr(engine.scan_id_source, "__self__", None) is self:
            engine.scan_id_source = source

    def register(
        self,
        index: str | os.PathLike[str],
        *,
        researcher: str | int | None = None,
        label: str | None = None,
    ) -> None:
        """Tell an index of this beamtime and of its runs, from now on.

        A thread does that as runs begin and end: recording never waits for the index.
        While it cannot be written, for which there is one warning, nothing is lost: it
        is caught up later.

        Parameters
        ----------
        index
            File of the index, see :class:`~bluesky_beamtime.database.Index`; made if
            it does not exist, in a folder that does.
        researcher
            Whose beamtime it is: a name, or the number from
            :meth:`~bluesky_beamtime.database.IndexWriter.register_researcher`.
        label
            How the index shall call the beamtime; by default the name of its file
            without ``.db``.
        """
        if self._index is not None:
            self._index.close()
        self._index = IndexFollower(
            self._database, index, researcher=researcher, label=label
        )
        # Also when nobody closes this beamtime: the thread does not know it.
        weakref.finalize(self, self._index.close)

    def next_scan_id(self, md: Mapping[str, Any] | None = None) -> int:
        """Return a new scan number, for ``RE.scan_id_source``.

        It is larger than every number that was used in this beamtime, by any process
        and before any crash, and larger than ``md["scan_id"]``, the RunEngine's last
        one.

        Parameters
        ----------
        md
            The RunEngine's metadata.
        """
        recorder = self._recorder
        if recorder is None:
            raise self._read_only("number scans")
        last = (md or {}).get("scan_id", 0)
        if not isinstance(last, int) or isinstance(last, bool):
            last = 0
        try:
            if self._following is not None:
                last = self._following.at_least(last)
            return reserve_scan_id(self._database, last)
        except BeamtimeError as error:
            if recorder.on_error == "raise":
                raise
            # The documents of this run will go to the journal; its number is the
            # RunEngine's next one, which is what it would be without a beamtime.
            recorder.warn(f"no scan number could be reserved: {error}")
            return last + 1

    @property
    def sample(self) -> SampleMetadata | None:
        """What is in the beam; belongs to the runs that start from now on.

        Set it to a name, a mapping or a
        :class:`~bluesky_beamtime.database.SampleMetadata`. A sample is known by its
        name: what is given is added to what is known. A run whose metadata have a
        ``sample`` belongs to that one.
        """
        return self._sample

    @sample.setter
    def sample(self, value: str | Mapping[str, Any] | SampleMetadata | None) -> None:
        if self._recorder is None:
            raise self._read_only("change the sample")
        if value is None:
            self._sample = self._recorder.sample_id = None
            return
        sample = SampleMetadata.of(value)
        with self._database.writing() as connection:
            self._recorder.sample_id = upsert_sample(connection, sample)
        self._sample = sample

    @property
    def samples(self) -> Samples:
        """Every sample by its name, with what it was before it was changed.

        ``beamtime.samples["LaB6"].history``, ``beamtime.samples["LaB6"].runs``.
        """
        return Samples(self._database, self._journal)

    @property
    def md(self) -> Metadata:
        """Metadata that a RunEngine adds to every run, kept in the file.

        ``RE = RunEngine(beamtime.md)``: what is set is committed at once, survives a
        crash, and is shared by all processes. Its ``scan_id`` never goes back.
        """
        return Metadata(self._database)

    @property
    def proposal(self) -> str | None:
        """Number or name of the proposal; of the runs that start from now on.

        Kept in the file: it holds for every process that records there, until it is
        changed. A run whose metadata have a ``proposal`` belongs to that one.
        """
        with self._database.reading() as connection:
            return facts.read_proposal(connection)

    @proposal.setter
    def proposal(self, value: str | int | None) -> None:
        if self._recorder is None:
            raise self._read_only("change the proposal")
        with self._database.writing() as connection:
            facts.write_proposal(connection, value)

    @property
    def users(self) -> list[Person]:
        """Who measures; of the runs that start from now on.

        Set it to names, mappings or :class:`~bluesky_beamtime.database.Person` objects.
        Kept in the file, as :attr:`proposal` is. A run whose metadata have ``users`` or
        ``user`` belongs to those; an ``operator`` is added to them.
        """
        with self._database.reading() as connection:
            return facts.read_users(connection)

    @users.setter
    def users(
        self, value: Iterable[Person | Mapping[str, Any] | str] | Person | str | None
    ) -> None:
        if self._recorder is None:
            raise self._read_only("change the users")
        people = [Person.of(each) for each in one_or_several(value)]
        with self._database.writing() as connection:
            facts.write_users(connection, people)

    @property
    def people(self) -> list[Person]:
        """Everybody who took part in a run, or is a user."""
        with self._database.reading() as connection:
            return all_people(connection)

    def note(self, text: str, *, author: str | None = None) -> Note:
        """Write something down about the beamtime as a whole.

        Raises
        ------
        DocumentError
            There is no text.
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("take notes")
        with self._database.writing() as connection:
            return add_note(connection, text, author, None)

    @property
    def notes(self) -> list[Note]:
        """What was written down about the beamtime as a whole, the oldest first."""
        with self._database.reading() as connection:
            return read_notes(connection, None)

    @property
    def frames(self) -> FrameStore:
        """Where devices put their frames: one store for each run.

        Its folders are ``x.zarr/frames/<date>/<plan>_<scan number>``.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("write frames")
        if self._frames is None:
            self._frames = FrameStore(
                self._database.store / "frames",
                name=self._acquisition_name,
                durability=self._database.durability,
            )
        return self._frames

    @property
    def path_provider(self) -> PathProvider:
        """Where ophyd-async detectors that write files of their own put them.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("write files")
        from bluesky_beamtime.devices.paths import OphydPathProvider

        return OphydPathProvider(
            self._database.store / "frames", self._acquisition_name
        )

    def _acquisition_name(self) -> str | None:
        """Return the folder name of the run that is open, None if there is none."""
        recorder = self._recorder
        runs = recorder.open_runs if recorder is not None else []
        return acquisition_name(runs[-1].plan_name, runs[-1].scan_id) if runs else None

    def _read_only(self, what: str) -> ReadOnlyError:
        return ReadOnlyError(
            f"{str(self._database.path)!r} was opened with mode='r' and cannot {what}; "
            "open it with mode='a'"
        )

    # ----------------------------------------------------------------------- reading

    def __getitem__(self, key: int | str) -> Run:
        """Return a run by scan number, by age (``-1`` is the newest), or by uid.

        Raises
        ------
        RunNotFoundError
            There is no such run, or several begin with this uid.
        """
        if isinstance(key, str):
            return self._runs.by_uid(key)
        if isinstance(key, bool) or not hasattr(key, "__index__"):
            raise TypeError(
                "a run is found by its scan number, by -1 for the newest, or by the "
                f"beginning of its uid, not by {key!r}; list(beamtime) has them all"
            )
        number = int(key)
        if number < 0:
            return self._runs.newest(-number - 1)
        return self._runs.by_scan_id(number)

    def __len__(self) -> int:
        return len(self._runs)

    def __bool__(self) -> bool:
        # A beamtime without runs is still a beamtime.
        return True

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __contains__(self, uid: object) -> bool:
        return isinstance(uid, str) and bool(
            Runs(self._database, self._journal, [runs.c.uid == uid])
        )

    def search(
        self,
        *,
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
    ) -> Runs:
        """Return the runs that fulfil every condition, the newest first.

        Parameters
        ----------
        plan_name
            Name of the plan.
        sample
            Name of the sample.
        since, until
            When the run began: datetime, seconds since 1970, or ISO text; local time
            unless a zone is given. A date without a time means the whole day.
        text
            Stands somewhere in the values of the start document, in what was known of
            the sample, in the reason of the end, in tags, notes or names of people;
            upper or lower case. Uids are not searched.
        tags
            One or several; the run has all of them.
        starred
            Whether it has a star.
        proposal
            Number or name of the proposal.
        user
            Name, e-mail address or ORCID of somebody who took part.
        exit_status
            ``success``, ``abort``, ``fail`` or ``interrupted``.
        **metadata
            Values of the start document; ``**{"optics.energy": 12.0}`` looks into
            nested mappings.

        Returns
        -------
        Runs
            Has a length, can be iterated and sliced; asks the database anew each time.
            :meth:`~bluesky_beamtime.database.Runs.sorted_by` and
            :meth:`~bluesky_beamtime.database.Runs.limit` give order and pages.

        Raises
        ------
        ValueError, TypeError
            Nothing can be searched like that; the message says what can.
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
        conditions += words_in_metadata(metadata)
        return Runs(self._database, self._journal, conditions)

    def import_documents(
        self,
        source: Any,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ImportReport:
        """Store documents from elsewhere; those that are here already stay as they are.

        What was interrupted is gone on with by importing the same source again. A
        document that cannot be stored goes to the journal, with the place where it
        stands; the others are stored.

        Parameters
        ----------
        source
            A file, or a folder of files: JSON lines (``[name, document]`` as of
            suitcase-jsonl, or the journal of a beamtime) or msgpack (suitcase-msgpack);
            the URL of a Tiled server; a catalogue of databroker or Tiled, or anything
            else whose runs have ``documents()``; or ``(name, document)`` pairs.
        dry_run
            Say what would become of it, and change nothing.
        progress
            Called with what is being read, how much is read, and how much there is.

        Raises
        ------
        OSError
            A file cannot be read.
        DocumentError
            The source holds no documents.
        MissingExtraError
            The source is a Tiled server and ``tiled`` is not installed.
        ServerError
            The server cannot be read.
        DatabaseWriteError
            The disk is full.
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("import documents")
        return import_documents(
            self._database, source, dry_run=dry_run, progress=progress
        )

    def ingest(
        self,
        source: str | DocumentSource,
        *,
        on_run: Callable[[IngestedRun], None] | None = None,
    ) -> Ingest:
        """Return what records documents from a network, and notices what was lost.

        Parameters
        ----------
        source
            ``"zmq://host:port"`` of a bluesky proxy's outgoing side,
            ``"kafka://host:port/topic"``, or another source of messages.
        on_run
            Called for each run that has ended.

        Returns
        -------
        bluesky_beamtime.recording.Ingest
            Its ``run()`` records; ``close()`` it afterwards.

        Raises
        ------
        ServerError
            The address is none.
        MissingExtraError
            The package for the source is not installed.
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("record")
        opened = open_source(source) if isinstance(source, str) else source
        return Ingest(self._database, opened, on_run)

    def pack(self) -> int:
        """Copy the numbers of long runs that are over to columns, quick to read.

        This happens by itself when a run has stopped and no other has begun; it is for
        runs that were recorded otherwise. The rows of the events stay as they are, and
        are what is read where there are no columns.

        Returns
        -------
        int
            How many streams were packed.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        DatabaseError
            The database cannot be read or written.
        """
        if self._recorder is None:
            raise self._read_only("pack runs")
        return self._recorder.pack()

    def distinct(self, key: str) -> dict[Any, int]:
        """Return the values that a key has, and how many runs have each.

        ``beamtime.distinct("plan_name")`` is ``{"count": 12, "scan": 3}``; see
        :meth:`~bluesky_beamtime.database.Runs.distinct`, which the result of a search
        has too.
        """
        return self._runs.distinct(key)

    def summaries(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the lines of a listing of the newest runs, ready for JSON.

        Parameters
        ----------
        limit
            So many at most; all of them by default.
        """
        runs = self._runs if limit is None else self._runs.limit(limit)
        return list(runs.summaries())

    def sql(
        self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> pd.DataFrame:
        """Ask the database in SQL, on a connection that only reads.

        The tables are described in the reference; ``run_list`` and ``event_values`` are
        the easiest to begin with.

        Parameters
        ----------
        query
            One ``SELECT``.
        parameters
            Values for its ``?``, or a mapping for its ``:name``.

        Returns
        -------
        pandas.DataFrame
            A row for each row.

        Raises
        ------
        QueryError
            The query is wrong, or it would change something.
        """
        import pandas as pd

        answer = rawsql.ask(self._database, query, parameters)
        frame: Any = pd.DataFrame
        return frame.from_records(answer.rows, columns=answer.columns)

    # ----------------------------------------------------------------------- replica

    @property
    def replica(self) -> Following | None:
        """The server that follows this beamtime, None if none does.

        ``beamtime.replica.progress`` says how far it is behind,
        ``beamtime.replica.wait(60)`` waits until it is not.
        """
        return self._following

    def replicate_to(
        self, url: str, *, frames: str | None = None, keep_local: bool = True
    ) -> Following:
        """Have a PostgreSQL server follow this beamtime, from now until it is closed.

        All that is there is copied, and then what comes; each row once, whatever fails
        on the way. Nothing here waits for the server.

        Parameters
        ----------
        url
            Such as ``"postgresql://user@host/database"``.
        frames, keep_local
            As for :class:`Beamtime`.

        Returns
        -------
        Following
            What :attr:`replica` is from now on.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        RunStateError
            A server follows already.
        ServerError
            That is no URL of a PostgreSQL database.
        """
        if self._recorder is None:
            raise self._read_only("be followed")
        if self._following is not None:
            raise RunStateError(f"{self._following.server} follows already")
        from bluesky_beamtime.database.replica import Following, Server

        following = Following(
            self._database, Server.of(url), frames=frames, keep_local=keep_local
        )
        self._follow(following, numbers=False)
        return following

    # ----------------------------------------------------------------------- serving

    def tiled(self) -> Any:
        """Return a client of Tiled for this beamtime, without a server.

        Returns
        -------
        bluesky_tiled_plugins.clients.catalog_of_bluesky_runs.CatalogOfBlueskyRuns
            What ``tiled.client.from_uri`` gives for ``beamtime serve``.

        Raises
        ------
        MissingExtraError
            Tiled is not installed.
        """
        return load_plugin("bluesky_beamtime.serving", "tiled", "serve")(self._database)

    # -------------------------------------------------------------------- safe keeping

    def verify(
        self,
        *,
        quick: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> VerifyReport:
        """Check the file, every row, every frame, and whether they agree.

        Changes nothing; what is just being recorded is left out.

        Parameters
        ----------
        quick
            Leave out the checksums of frames, which take as long as reading them all.
        progress
            Called with what is being checked, how many are done, and how many there
            are.

        Returns
        -------
        VerifyReport
            ``report.ok`` and ``report.problems``, each with its place and next step.
        """
        return verify(self._database, quick=quick, progress=progress)

    def recover(
        self, *, progress: Callable[[str, int, int], None] | None = None
    ) -> RecoveryReport:
        """Put what is in the journal into the tables, and make the stores whole.

        Documents go to the place at which they were emitted. What is still malformed
        stays in the journal; what a live process records is left alone. Doing it again
        changes nothing.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        DatabaseError
            The database cannot take the documents now; they are in the journal still.
        """
        if self._recorder is None:
            raise self._read_only("be recovered")
        return recover(self._database, progress)

    @staticmethod
    def migrate(path: str | os.PathLike[str], *, backup: bool = True) -> Migration:
        """Bring a file of an older version up to date; opening never does.

        All of it or nothing, with a copy of the file as it was beside it; see
        :func:`bluesky_beamtime.database.migrate`.

        Raises
        ------
        BeamtimeFileError
            It cannot be brought up to date; nothing was changed.
        RunStateError
            A live process records into it; nothing was changed.
        """
        return migrate(path, backup=backup)

    # -------------------------------------------------------------------- life cycle

    def close(self) -> None:
        """Bring everything to the disk and let go of the files; may be called again.

        Documents that arrive afterwards are kept in the journal, with a warning.
        """
        for RE, _, _ in list(self._attached.values()):
            self.detach(RE)
        if self._recorder is not None:
            self._recorder.close()
        if self._index is not None:
            self._index.close()
        if self._following is not None:
            self._following.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        name = self._database.path.name.removesuffix(".db")
        if self._database.closed:
            return f"<Beamtime {name!r} closed>"
        count = len(self)
        parts = [f"{count} run{'' if count == 1 else 's'}"]
        incomplete = count_incomplete(self._database, self._journal)
        if incomplete:
            parts.append(f"{incomplete} incomplete")
        parts.append(self._size())
        if self._following is not None:
            parts.append(f"replica: {self._following.progress}")
        return f"<Beamtime {name!r} {', '.join(parts)}>"

    def _size(self) -> str:
        """Return what the files take on the disk, as people write it."""
        asked: Any = getattr(self._database, "size", None)
        if asked is not None:
            return human_size(asked())
        total, complete = folder_size(
            self._database.store, time.monotonic() + _PATIENCE
        )
        for path in (self.path, Path(f"{self.path}-wal"), self._database.journal):
            if path.exists():
                total += path.stat().st_size
        return ("" if complete else "over ") + human_size(total)
