"""The documents of one run, one after the other, into the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import func, select

from bluesky_beamtime.database import rows, schema, statements
from bluesky_beamtime.database.accounting import try_to_store_accounts
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.documents import last_ordinal
from bluesky_beamtime.database.duplicates import check_same
from bluesky_beamtime.database.encoding import encode, encode_plain
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.event_arrays import EventArrays, ImageRef
from bluesky_beamtime.database.facts import store_facts
from bluesky_beamtime.database.masked import is_masked, without_mask
from bluesky_beamtime.database.references import load_referenced
from bluesky_beamtime.database.texts import store_text
from bluesky_beamtime.errors import DocumentError, IntegrityError

Document = Mapping[str, Any]

_UPDATE_STOP = (
    "UPDATE runs SET time_stop = ?, exit_status = ?, num_events = ?, stop = ?, "
    "stop_ordinal = ? WHERE uid = ? AND stop IS NULL"
)
_UPDATE_DATA = "UPDATE events SET data = ? WHERE uid = ?"
_UPDATE_DESCRIPTOR = "UPDATE streams SET data_keys = ?, descriptor = ? WHERE uid = ?"
# Where a document stands that came before, by the statement that would have stored it.
_ORDINALS = {
    statements.INSERT_STREAM: "SELECT ordinal FROM streams WHERE uid = ?",
    statements.INSERT_EVENT: "SELECT ordinal FROM events WHERE uid = ?",
    statements.INSERT_STREAM_RESOURCE: (
        "SELECT ordinal FROM stream_resources WHERE uid = ?"
    ),
    statements.INSERT_STREAM_DATUM: "SELECT ordinal FROM stream_datums WHERE uid = ?",
    statements.INSERT_RESOURCE: "SELECT ordinal FROM resources WHERE uid = ?",
    statements.INSERT_DATUM: "SELECT ordinal FROM datums WHERE datum_id = ?",
}


class RunRecorder:
    """Stores the documents of one run, whose start is stored already.

    Every method commits before it returns, and raises
    :class:`~bluesky_beamtime.errors.DocumentError` for a document that is malformed;
    the ordinal is used up only by what was stored. Not thread-safe: the
    :class:`~bluesky_beamtime.recording.DocumentRecorder` calls one method at a time.

    Attributes
    ----------
    uid, plan_name, scan_id
        Those of the run.
    ordinal : int
        Place of the next document among those of the run.
    in_journal : bool
        Whether a document could not be stored, so that the rest goes to the journal
        too.
    lost : list of str
        What could only be kept as text, and arrays without their mask; the caller
        reports and clears it.
    remarks : list of str
        What else is wrong with the start document, though it is stored.
    """

    def __init__(self, database: Database, start: Document) -> None:
        self._database = database
        self.uid = rows.text_of(start, "uid")
        self.plan_name = start.get("plan_name")
        self.scan_id = start.get("scan_id")
        self.ordinal = 1
        self.in_journal = False
        self.lost: list[str] = []
        self.remarks: list[str] = []
        self.data_keys: dict[str, Mapping[str, Any]] = {}
        self._names: dict[str, str] = {}
        self._events = 0
        self._arrays: EventArrays | None = None

    @classmethod
    def insert(
        cls,
        database: Database,
        start: Document,
        *,
        sample_id: int | None,
        writer: str | None,
    ) -> RunRecorder:
        """Store a RunStart and return the recorder of its run.

        A run that is there already is gone on with.
        """
        run = cls(database, start)
        row = rows.run_row(start, sample_id, writer, run.lost)
        with database.inserting() as cursor:
            cursor.execute(statements.INSERT_RUN, row)
            known = cursor.rowcount == 0
            if not known:
                for tag in rows.tags_of(start):
                    cursor.execute(statements.INSERT_TAG, (run.uid, tag))
                with database.writing() as connection:
                    run.remarks = store_facts(connection, run.uid, start)
        if known:
            run.check_same_start(start)
            run._catch_up()
        return run

    def check_same_start(self, start: Document) -> None:
        """Raise unless this is the start document of the run.

        Raises
        ------
        DocumentError
            It has the uid of the run, and says something else.
        """
        query = "SELECT start FROM runs WHERE uid = ?"
        with self._database.inserting() as cursor:
            stored = cursor.execute(query, (self.uid,)).fetchone()
        if stored is not None and stored[0] != encode(start):
            raise DocumentError(
                f"run {self.uid} has another start document already; this is a second"
            )

    @classmethod
    def resume(cls, database: Database, run_uid: str) -> RunRecorder | None:
        """Return the recorder of a run that is in the database, None if it is not."""
        query = select(schema.runs.c.start).where(schema.runs.c.uid == run_uid)
        with database.reading() as connection:
            start = connection.execute(query).scalar()
        if start is None:
            return None
        run = cls(database, decode(start))
        run._catch_up()
        return run

    def _catch_up(self) -> None:
        """Learn what is stored of this run already."""
        streams = schema.streams
        query = select(streams.c.uid, streams.c.name, streams.c.data_keys).where(
            streams.c.run_uid == self.uid
        )
        with self._database.reading() as connection:
            for uid, name, data_keys in connection.execute(query):
                self._names[uid] = name
                self.data_keys[uid] = decode(data_keys)
            self._events = connection.execute(
                select(func.count())
                .select_from(schema.events)
                .where(schema.events.c.stream_uid.in_(list(self._names)))
            ).scalar_one()
        self.ordinal = last_ordinal(self._database, self.uid) + 1

    @property
    def num_events(self) -> int:
        """Events that are stored."""
        return self._events

    # ------------------------------------------------------------------- documents

    def descriptor(self, doc: Document) -> None:
        """Store an EventDescriptor."""
        row = rows.stream_row(doc, self.ordinal, self.lost)
        self._insert(statements.INSERT_STREAM, row)
        uid = rows.text_of(doc, "uid")
        self._names[uid] = rows.stream_name(doc)
        self.data_keys[uid] = rows.mapping_of(doc, "data_keys")

    def event(self, doc: Document) -> None:
        """Store an Event, after its arrays."""
        text = encode_plain(doc["data"])
        if text is not None and isinstance(doc["data"], dict):
            row = rows.event_row(doc, text, self.ordinal)
            self._events += self._insert(statements.INSERT_EVENT, row)
            return
        self.events([doc])

    def events(self, docs: Iterable[Document]) -> None:
        """Store several Events, all of them or none."""
        ordinal, added = self.ordinal, 0
        # Arrays go to the store outside the transaction: other writers need not wait.
        prepared = [self._prepare(doc) for doc in docs]
        with self._database.inserting() as cursor:
            for doc, (text, images) in prepared:
                row = rows.event_row(doc, text, ordinal)
                cursor.execute(statements.INSERT_EVENT, row)
                if cursor.rowcount > 0:
                    ordinal += 1
                    added += 1
                    _insert_images(cursor, row[0], images)
                else:
                    ordinal = self._after(cursor, statements.INSERT_EVENT, row, ordinal)
        self.ordinal = ordinal
        self._events += added

    def _prepare(self, doc: Document) -> tuple[Document, tuple[str, list[ImageRef]]]:
        data = rows.mapping_of(doc, "data")
        if any(is_masked(value) for value in data.values()):
            data = {key: without_mask(v, self.lost) for key, v in data.items()}
        images: list[ImageRef] = []
        if any(EventArrays.takes(value) for value in data.values()):
            # Look at the row first: a malformed event must not leave its arrays behind,
            # nor one that is stored already.
            rows.event_row(doc, "", 0)
            if not self._is_stored(rows.text_of(doc, "uid")):
                stream = rows.text_of(doc, "descriptor")
                stored = self._arrays_of_run().write(
                    self._names[stream], data, self.data_keys[stream]
                )
                data, images = stored.data, stored.images
        return doc, (encode(data, self.lost), images)

    def add_image(
        self,
        event_uid: str,
        field: str,
        image: np.ndarray[Any, Any],
        data_key: Mapping[str, Any],
    ) -> str:
        """Add an array to an event that is stored; return where in the store it is.

        Parameters
        ----------
        event_uid
            An event of this run.
        field
            Name under which the event's data will have it.
        image
            Numbers in one or more dimensions, like those that the field of this stream
            has already.
        data_key
            Describes the field, if the stream's descriptor does not.

        Raises
        ------
        IntegrityError
            The run has no such event, or the event has such a field.
        FrameMismatchError
            The field holds arrays of another dtype or shape.
        DocumentError
            It is no array of numbers. In every case nothing is changed.
        """
        if not EventArrays.takes(image):
            raise DocumentError(
                "an image is a NumPy array of numbers with one dimension or more, not "
                f"{image.dtype} of shape {image.shape}"
            )
        with self._database.inserting() as cursor:
            stream_uid = self._stream_of(cursor, event_uid, field)[0]
        name = self._names[stream_uid]
        described = self.data_keys[stream_uid].get(field)
        units = None if described is None else described.get("units")
        # Other writers need not wait while it goes to the store.
        reference, row = self._arrays_of_run().write_fitting(name, field, image, units)
        with self._database.inserting() as cursor:
            _, text = self._stream_of(cursor, event_uid, field)
            data = encode({**decode(text), field: reference})
            cursor.execute(_UPDATE_DATA, (data, event_uid))
            _insert_images(cursor, event_uid, [row])
            if described is None:
                self.describe_field(stream_uid, field, data_key)
        return reference.path

    def _stream_of(
        self, cursor: sqlite3.Cursor, event_uid: str, field: str
    ) -> tuple[str, str]:
        """Return an event's stream and data, if an image may be added to it."""
        query = "SELECT stream_uid, data FROM events WHERE uid = ?"
        found = cursor.execute(query, (event_uid,)).fetchone()
        if found is None or found[0] not in self._names:
            raise IntegrityError(
                f"run {self.uid} has no event {event_uid!r}; write_event() returns "
                "the uid of the event that an image belongs to"
            )
        if field in decode(found[1]):
            raise IntegrityError(
                f"the event {event_uid} has a value for {field!r} already; write "
                "another event, or give the image another name"
            )
        return found

    def describe_field(
        self, stream_uid: str, field: str, data_key: Mapping[str, Any]
    ) -> None:
        """Add a field to a stream that was described without it."""
        query = "SELECT descriptor FROM streams WHERE uid = ?"
        with self._database.inserting() as cursor:
            (text,) = cursor.execute(query, (stream_uid,)).fetchone()
            descriptor = decode(text)
            data_keys = {**descriptor["data_keys"], field: dict(data_key)}
            descriptor["data_keys"] = data_keys
            values = (encode(data_keys), encode(descriptor), stream_uid)
            cursor.execute(_UPDATE_DESCRIPTOR, values)
        self.data_keys[stream_uid] = data_keys

    def _is_stored(self, event_uid: str) -> bool:
        with self._database.inserting() as cursor:
            query = _ORDINALS[statements.INSERT_EVENT]
            return cursor.execute(query, (event_uid,)).fetchone() is not None

    def _arrays_of_run(self) -> EventArrays:
        if self._arrays is None:
            power = self._database.durability == "power"
            self._arrays = EventArrays(self._database.store, self.uid, power=power)
            if not power:
                self._database.also_sync(self._arrays.sync)
        return self._arrays

    def stream_resource(self, doc: Document) -> None:
        """Store a StreamResource."""
        row = rows.stream_resource_row(
            doc, self.uid, self.ordinal, self._database.folder
        )
        self._insert(statements.INSERT_STREAM_RESOURCE, row)

    def stream_datum(self, doc: Document) -> None:
        """Store a StreamDatum."""
        row = rows.stream_datum_row(doc, self.ordinal)
        self._insert(statements.INSERT_STREAM_DATUM, row)

    def resource(self, doc: Document) -> None:
        """Store a legacy Resource."""
        row = rows.resource_row(doc, self.uid, self.ordinal, self._database.folder)
        self._insert(statements.INSERT_RESOURCE, row)

    def datum(self, doc: Document) -> None:
        """Store a legacy Datum."""
        self._insert(statements.INSERT_DATUM, rows.datum_row(doc, self.ordinal))

    def datums(self, docs: Iterable[Document]) -> None:
        """Store several Datums, all of them or none."""
        ordinal = self.ordinal
        with self._database.inserting() as cursor:
            for doc in docs:
                row = rows.datum_row(doc, ordinal)
                cursor.execute(statements.INSERT_DATUM, row)
                if cursor.rowcount > 0:
                    ordinal += 1
                else:
                    ordinal = self._after(cursor, statements.INSERT_DATUM, row, ordinal)
        self.ordinal = ordinal

    def stop(self, doc: Document) -> None:
        """Store the RunStop; the run is over."""
        rows.text_of(doc, "uid")
        values = rows.stop_values(doc, self._events, self.ordinal, self.lost)
        self.close()
        with self._database.inserting() as cursor:
            cursor.execute(_UPDATE_STOP, (*values, self.uid))
            if cursor.rowcount == 0:
                self._check_same_stop(cursor, doc)
            elif doc.get("reason"):
                with self._database.writing() as connection:
                    store_text(connection, self.uid)
        try_to_store_accounts(self._database, self.uid)

    def _check_same_stop(self, cursor: sqlite3.Cursor, doc: Document) -> None:
        query = "SELECT stop FROM runs WHERE uid = ?"
        stored = cursor.execute(query, (self.uid,)).fetchone()
        if stored is not None and stored[0] != encode(doc):
            raise DocumentError(
                f"run {self.uid} has stopped already; this is a second stop document"
            )

    def _insert(self, sql: str, row: rows.Row) -> bool:
        """Store one row; say whether it was not there before."""
        if self._database.insert(sql, row):
            self.ordinal += 1
            return True
        with self._database.inserting() as cursor:
            self.ordinal = self._after(cursor, sql, row, self.ordinal)
        return False

    def _after(
        self, cursor: sqlite3.Cursor, sql: str, row: rows.Row, ordinal: int
    ) -> int:
        """Return the ordinal of what comes after a document that was there before.

        Somebody else may have recorded this run so far.

        Raises
        ------
        DocumentError
            What is there with this uid says something else.
        """
        check_same(cursor, sql, row, partial(load_referenced, self._database.store))
        found = cursor.execute(_ORDINALS[sql], row[:1]).fetchone()
        return ordinal if found is None else max(ordinal, found[0] + 1)

    # ------------------------------------------------------------------ life cycle

    def close(self) -> None:
        """Close the arrays of events; may be called again.

        Raises
        ------
        StoreWriteError
            The disk refused to take what was not synced yet.
        """
        arrays, self._arrays = self._arrays, None
        if arrays is not None:
            with suppress(Exception):
                self._database.forget_sync(arrays.sync)
            arrays.close()


def _insert_images(
    cursor: sqlite3.Cursor, event_uid: str, images: list[ImageRef]
) -> None:
    for image in images:
        cursor.execute(statements.INSERT_IMAGE_REF, (event_uid, *image))
