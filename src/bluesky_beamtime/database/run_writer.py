"""RunWriter: runs without a RunEngine, written by a few calls."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike

from bluesky_beamtime.database.data_keys import complete_data_keys, describe_value
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.kinds import is_mapping
from bluesky_beamtime.database.liveness import WriterLock
from bluesky_beamtime.database.run_recorder import RunRecorder
from bluesky_beamtime.database.samples import (
    SampleMetadata,
    read_sample,
    upsert_sample,
)
from bluesky_beamtime.database.scan_ids import reserve_scan_id
from bluesky_beamtime.errors import (
    BeamtimeWarning,
    DatabaseWriteError,
    DocumentError,
    IntegrityError,
    RunStateError,
)
from bluesky_beamtime.storage import create_group

# The words of the event model, and those of older files.
_EXIT_WORDS = {
    "success": "success",
    "abort": "abort",
    "fail": "fail",
    "aborted": "abort",
    "failed": "fail",
}
_OWN_KEYS = ("uid", "time", "plan_name")


class RunWriter:
    """Writes runs into a beamtime by hand: without Bluesky, a RunEngine or devices.

    ::

        with RunWriter("2026-11-LaB6.db", SampleMetadata("LaB6")) as writer:
            writer.open_run("alignment", metadata={"operator": "Ada"})
            writer.open_stream("primary", {"x": {"units": "mm"}, "counts": {}})
            event = writer.write_event({"x": 1.5, "counts": 12})
            writer.write_image(event, "camera", frame)

    What it writes are the documents of the event model, in the tables in which a
    :class:`~bluesky_beamtime.Beamtime` records: each run reads back like any other,
    also while it is written.

    Parameters
    ----------
    db_path
        The file; made by :meth:`open` if it does not exist, in a folder that does.
    sample
        What is in the beam: a name, a mapping or a
        :class:`~bluesky_beamtime.database.SampleMetadata`. One whose ``id`` is set is
        taken as it is stored; another one is stored by :meth:`open`, by its name.
    durability
        ``"kill"``: what a call wrote survives the death of the process when it
        returns, and a power cut after 50 ms; ``"power"``: both at once.

    Attributes
    ----------
    db_path : pathlib.Path
        As given.

    Notes
    -----
    Thread-safe. One run at a time; for runs that overlap, use a writer for each:
    several of them, and Beamtimes, may write into one file.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str],
        sample: str | Mapping[str, Any] | SampleMetadata | None = None,
        *,
        durability: Literal["kill", "power"] = "kill",
    ) -> None:
        self.db_path = Path(db_path)
        self._sample = None if sample is None else SampleMetadata.of(sample)
        self._durability: Literal["kill", "power"] = durability
        self._lock = threading.RLock()
        self._database: Database | None = None
        self._writer_lock: WriterLock | None = None
        self._run: RunRecorder | None = None
        self._streams: dict[str, str] = {}
        self._current: str | None = None
        self._counts = Counter[str]()

    # -------------------------------------------------------------------- life cycle

    @property
    def is_open(self) -> bool:
        """Whether :meth:`open` was called, and :meth:`close` was not."""
        return self._database is not None

    @property
    def run_uid(self) -> str | None:
        """Uid of the run that is open, None if there is none."""
        return None if self._run is None else self._run.uid

    @property
    def sample(self) -> SampleMetadata | None:
        """What is in the beam; may be changed between runs."""
        return self._sample

    @sample.setter
    def sample(self, value: str | Mapping[str, Any] | SampleMetadata | None) -> None:
        sample = None if value is None else SampleMetadata.of(value)
        with self._lock:
            if self._database is not None and sample is not None:
                self._store_sample(self._database, sample)
            self._sample = sample

    def open(self) -> None:
        """Make the file and the store beside it, if need be, and store the sample.

        Raises
        ------
        RunStateError
            It is open already.
        BeamtimeFileError
            The file is damaged or no beamtime, or its folder is missing.
        IntegrityError
            The sample has an ``id`` that the file does not have.
        """
        with self._lock:
            if self._database is not None:
                raise RunStateError("RunWriter is already open")
            database = Database(self.db_path, durability=self._durability)
            lock: WriterLock | None = None
            try:
                create_group(database.store, sync=self._durability == "power")
                if self._sample is not None:
                    self._store_sample(database, self._sample)
                lock = _take_lock(database)
            except BaseException:
                database.close()
                raise
            self._database, self._writer_lock = database, lock

    @staticmethod
    def _store_sample(database: Database, sample: SampleMetadata) -> None:
        if sample.id is None:
            with database.writing() as connection:
                upsert_sample(connection, sample)
            return
        with database.reading() as connection:
            stored = read_sample(connection, sample.id)
        if stored is None:
            raise IntegrityError(
                f"{str(database.path)!r} has no sample with the id {sample.id}; leave "
                "the id out to store the sample by its name"
            )

    def close(self) -> None:
        """Bring everything to the disk and let go of the files; may be called again.

        A run that is still open ends as ``abort``.
        """
        with self._lock:
            if self._database is None:
                return
            try:
                if self._run is not None:
                    self.close_run(
                        exit_status="abort",
                        reason="the writer was closed during the run",
                    )
            finally:
                self._let_go()

    def _let_go(self) -> None:
        database, self._database = self._database, None
        lock, self._writer_lock = self._writer_lock, None
        run = self._run
        self._forget_run()
        try:
            if run is not None:
                with suppress(Exception):
                    run.close()
            if database is not None:
                database.close()
        finally:
            if lock is not None:
                lock.release()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run that is open, and close.

        It ends as ``success``; after an exception as ``fail``, with its text as the
        reason; after Ctrl-C or an exit as ``abort``.
        """
        with self._lock:
            try:
                if self._run is not None:
                    if error is None:
                        self.close_run()
                    else:
                        self._end_for(error)
            finally:
                self._let_go()

    def _end_for(self, error: BaseException) -> None:
        status = "fail" if isinstance(error, Exception) else "abort"
        text = str(error)
        reason = type(error).__name__ + (f": {text}" if text else "")
        # The exception on its way out says more than one about the end of the run.
        try:
            self.close_run(exit_status=status, reason=reason)
        except Exception as failure:
            error.add_note(f"the run could not be ended either: {failure}")

    # -------------------------------------------------------------------------- runs

    def open_run(
        self, plan_name: str, *, metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Begin a run and return its uid; it is committed.

        Parameters
        ----------
        plan_name
            What is measured, such as ``"alignment"``.
        metadata
            Everything else that the start document shall say. ``scan_id`` is the next
            scan number of the beamtime unless it is given; a ``sample`` is that of
            this run alone.

        Raises
        ------
        RunStateError
            The writer is not open, or a run is.
        DocumentError
            The metadata cannot be those of a start document.
        """
        with self._lock:
            database = self._opened()
            if self._run is not None:
                raise RunStateError(
                    f"the run {self._run.uid} is open; close_run() ends it. For runs "
                    "that overlap, use a RunWriter for each"
                )
            given = _check_metadata(metadata)
            sample_id = self._sample_of(database, given)
            if "scan_id" not in given:
                given["scan_id"] = reserve_scan_id(database)
            start = {
                "uid": str(uuid4()),
                "time": time.time(),
                "plan_name": plan_name,
                **given,
            }
            _validate("start", start)
            writer = None if self._writer_lock is None else self._writer_lock.name
            run = RunRecorder.insert(
                database, start, sample_id=sample_id, writer=writer
            )
            self._forget_run()
            self._run = run
            self._report(run)
            return run.uid

    def _sample_of(self, database: Database, metadata: Mapping[str, Any]) -> int | None:
        named = metadata.get("sample")
        if not named:
            return None if self._sample is None else self._sample.id
        sample = SampleMetadata.of(named)
        with database.writing() as connection:
            return upsert_sample(connection, sample)

    def close_run(self, *, exit_status: str = "success", reason: str = "") -> None:
        """End the run; it is committed.

        Parameters
        ----------
        exit_status
            ``success``, ``abort`` or ``fail``; also ``aborted`` and ``failed``, which
            are stored as those.
        reason
            Why, in words.

        Raises
        ------
        RunStateError
            The writer is not open, or there is no run.
        DocumentError
            Another exit status; the run goes on.
        """
        with self._lock:
            run = self._opened_run()
            word = _EXIT_WORDS.get(exit_status)
            if word is None:
                raise DocumentError(
                    f"a run ends as 'success', 'abort' or 'fail', not {exit_status!r}"
                )
            run.stop(
                {
                    "uid": str(uuid4()),
                    "time": time.time(),
                    "run_start": run.uid,
                    "exit_status": word,
                    "reason": reason,
                    "num_events": {
                        name: self._counts[uid] for name, uid in self._streams.items()
                    },
                }
            )
            self._forget_run()

    def _forget_run(self) -> None:
        self._run = self._current = None
        self._streams, self._counts = {}, Counter[str]()

    # ----------------------------------------------------------------------- streams

    def open_stream(self, name: str, data_keys: Mapping[str, Any]) -> str:
        """Begin a stream of the run and return its uid; it is committed.

        Events go to the stream that was opened last, unless they name another one.

        Parameters
        ----------
        name
            Such as ``"primary"``.
        data_keys
            What is known of each field: ``dtype``, ``shape``, ``units``, ``source`` and
            whatever else the event model has; what is left out is completed.

        Raises
        ------
        RunStateError
            The writer is not open, or there is no run.
        IntegrityError
            The run has a stream of that name.
        DocumentError
            The data keys cannot be those of a descriptor.
        """
        with self._lock:
            run = self._opened_run()
            if name in self._streams:
                raise IntegrityError(
                    f"run {run.uid} has a stream {name!r} already; "
                    f"write_event(..., stream={name!r}) adds to it"
                )
            uid = str(uuid4())
            descriptor = {
                "uid": uid,
                "time": time.time(),
                "run_start": run.uid,
                "name": name,
                "data_keys": complete_data_keys(data_keys),
                "object_keys": {},
                "configuration": {},
                "hints": {},
            }
            _validate("descriptor", descriptor)
            run.descriptor(descriptor)
            self._streams[name] = self._current = uid
            return uid

    def write_event(
        self,
        data: Mapping[str, Any],
        timestamps: Mapping[str, float] | None = None,
        *,
        stream: str | None = None,
        time: float | None = None,
    ) -> str:
        """Write one event and return its uid; it is committed.

        Parameters
        ----------
        data
            Numbers, text, lists, NumPy scalars; arrays go to the Zarr store. A field
            that the stream was opened without is described by its first value.
        timestamps
            When each value was measured, in seconds since 1970.
        stream
            Uid or name of a stream that was opened earlier; by default the last one.
        time
            When the event happened, in seconds since 1970; by default now.

        Raises
        ------
        RunStateError
            The writer is not open, or there is no run or no stream.
        DocumentError
            It cannot be an event; nothing was stored, no number was used up.
        """
        with self._lock:
            run = self._opened_run()
            uid = self._stream_uid(stream)
            if not is_mapping(data):
                raise DocumentError(
                    f"the data of an event are a mapping, not {data!r:.80}"
                )
            if timestamps is not None and not is_mapping(timestamps):
                raise DocumentError(
                    f"timestamps are a mapping by field, not {timestamps!r:.80}"
                )
            for field in data:
                if not isinstance(field, str):
                    raise DocumentError(f"the name of a field is text, not {field!r}")
            event_uid = str(uuid4())
            event = {
                "uid": event_uid,
                "time": _now() if time is None else time,
                "data": dict(data),
                "timestamps": dict(timestamps or {}),
                "seq_num": self._counts[uid] + 1,
                "filled": {},
                "descriptor": uid,
            }
            undescribed = [key for key in data if key not in run.data_keys[uid]]
            if undescribed:
                with self._opened().inserting():
                    run.event(event)
                    for field in undescribed:
                        run.describe_field(uid, field, describe_value(data[field]))
            else:
                run.event(event)
            self._counts[uid] += 1
            self._report(run)
            return event_uid

    def write_image(self, event_uid: str, field_name: str, image: ArrayLike) -> str:
        """Add an image to an event; readers see both when this returns.

        Parameters
        ----------
        event_uid
            What :meth:`write_event` returned, in this run.
        field_name
            Name under which the event has it.
        image
            Numbers in one or more dimensions: a line, a picture, a stack, with colours.
            Shape and dtype are those of the first one of this field and stream.

        Returns
        -------
        str
            Path of the array in the Zarr store, ``runs/<run uid>/<stream>/<field>``;
            row ``i`` along its first axis is the ``i``-th image.

        Raises
        ------
        RunStateError
            The writer is not open, or there is no run or no stream.
        IntegrityError
            The run has no such event, or the event has such a field.
        FrameMismatchError
            The field holds images of another dtype or shape.
        DocumentError
            It is no array of numbers. In every case nothing is changed.
        """
        with self._lock:
            run = self._opened_run()
            self._stream_uid(None)
            if not isinstance(field_name, str) or not field_name:
                raise DocumentError(f"an image needs a name, not {field_name!r}")
            array = np.asarray(image)
            return run.add_image(event_uid, field_name, array, describe_value(array))

    # ------------------------------------------------------------------------- state

    def _opened(self) -> Database:
        if self._database is None:
            raise RunStateError("RunWriter is not open")
        return self._database

    def _opened_run(self) -> RunRecorder:
        self._opened()
        if self._run is None:
            raise RunStateError("No open run")
        return self._run

    def _stream_uid(self, stream: str | None) -> str:
        if self._current is None:
            raise RunStateError("No open stream")
        if stream is None:
            return self._current
        if stream in self._streams.values():
            return stream
        uid = self._streams.get(stream)
        if uid is None:
            raise RunStateError(
                f"No open stream {stream!r}: the run has {', '.join(self._streams)}"
            )
        return uid

    @staticmethod
    def _report(run: RunRecorder) -> None:
        """Warn of what could not be kept as it was."""
        remarks, run.remarks = run.remarks, []
        if run.lost:
            objects, run.lost = run.lost, []
            remarks = [
                *remarks,
                f"{len(objects)} objects have no JSON form and are kept as text: "
                f"{'; '.join(objects[:3])}",
            ]
        for remark in remarks:
            # What was written is safe: a filter that raises must not say otherwise.
            with suppress(Warning):
                warnings.warn(f"run {run.uid}: {remark}", BeamtimeWarning, stacklevel=4)

    def __repr__(self) -> str:
        state = "closed" if not self.is_open else self.run_uid or "open"
        return f"<RunWriter {str(self.db_path)!r} {state}>"


def _now() -> float:
    return time.time()


def _take_lock(database: Database) -> WriterLock:
    try:
        return WriterLock(database.path)
    except OSError as error:
        raise DatabaseWriteError(
            f"cannot make a lock file beside {str(database.path)!r}: {error}",
            errno=error.errno,
            filename=error.filename,
        ) from error


def _check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not is_mapping(metadata):
        raise DocumentError(f"metadata are a mapping, not {metadata!r:.80}")
    for key in _OWN_KEYS:
        if key in metadata:
            raise DocumentError(
                f"{key!r} cannot be given in the metadata: a RunWriter makes its own; "
                "choose another name"
            )
    return dict(metadata)


def _validate(name: str, document: Mapping[str, Any]) -> None:
    """Refuse what is no document of the event model.

    Raises
    ------
    DocumentError
        It says what is wrong.
    """
    import event_model

    validators: Any = vars(event_model)["schema_validators"]
    try:
        validators[event_model.DocumentNames[name]].validate(document)
    except Exception as error:
        problem = str(getattr(error, "message", error)).splitlines()[0]
        raise DocumentError(
            f"this cannot be the {name} document of a run: {problem}"
        ) from error
