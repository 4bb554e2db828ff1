"""RunWriter: runs without a RunEngine, written by a few calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.run_by_hand import RunByHand, checked_metadata
from bluesky_beamtime.database.samples import SampleMetadata, upsert_sample
from bluesky_beamtime.database.writing_session import WritingSession
from bluesky_beamtime.errors import RunStateError


class RunWriter(WritingSession):
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
            given = checked_metadata(metadata)
            self._run = RunByHand.begin(
                database,
                plan_name,
                given,
                sample_id=self._sample_of(database, given),
                writer=None if self._writer_lock is None else self._writer_lock.name,
            )
            return self._run.uid

    def _sample_of(self, database: Database, metadata: Mapping[str, Any]) -> int | None:
        named = metadata.get("sample")
        if not named:
            return None if self._sample is None else self._sample.id
        sample = SampleMetadata.of(named)
        with database.writing() as connection:
            return upsert_sample(connection, sample)

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
            return self._opened_run().open_stream(name, data_keys)

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
            return self._opened_run().write_event(data, timestamps, stream, time)

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
            return self._opened_run().write_image(event_uid, field_name, image)
