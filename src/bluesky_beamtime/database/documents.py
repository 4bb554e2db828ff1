"""Rows back into documents, in the order in which they were emitted."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ColumnElement, Row, Select, func, select, union_all

from bluesky_beamtime.database import resource_places, schema, uris
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import ArrayReference, encode
from bluesky_beamtime.database.references import length_of, open_referenced

if TYPE_CHECKING:
    from bluesky_beamtime.database.engine import Database

Document = dict[str, Any]
NamedDocument = tuple[str, Document]

# The orders in which event-model composes these documents. A document in another order,
# or with other keys, says so in the column "rest".
EVENT_KEYS = ("uid", "time", "data", "timestamps", "seq_num", "filled", "descriptor")
STREAM_DATUM_KEYS = ("stream_resource", "uid", "seq_nums", "indices", "descriptor")
DATUM_KEYS = ("resource", "datum_kwargs", "datum_id")

_PAGE = 1000


def pack_rest(
    document: Mapping[str, Any], usual: Sequence[str], inexact: Mapping[str, Any]
) -> str | None:
    """Return what the columns of a row cannot hold, None if there is nothing.

    Parameters
    ----------
    document
        The document.
    usual
        The keys that have columns, in their usual order.
    inexact
        Values of such keys that their columns do not hold exactly.
    """
    keys = list(document)
    if not inexact and keys == list(usual):
        return None
    known = set(usual)
    values = {key: document[key] for key in keys if key not in known} | dict(inexact)
    return encode({"keys": keys, "values": values})


def unpack_rest(document: Document, rest: str | None) -> Document:
    """Return the document whose columns are ``document`` and whose rest is ``rest``."""
    if rest is None:
        return document
    more = decode(rest)
    document |= more["values"]
    return {key: document[key] for key in more["keys"]}


class DocumentReader:
    """Reads the documents of one run.

    Parameters
    ----------
    database
        The database.
    run_uid
        The run.
    original
        Give places as they were emitted, even if the folder has moved since.
    """

    def __init__(
        self, database: Database, run_uid: str, *, original: bool = False
    ) -> None:
        self._database = database
        self._run_uid = run_uid
        self._original = original
        self._arrays: dict[str, Any] = {}

    def __iter__(self) -> Iterator[NamedDocument]:
        """Yield the documents that are there now, also of a run that is still going.

        Rows are read a thousand at a time and no transaction stays open in between, so
        that a slow reader does not hold anybody up.
        """
        # The run first: if it has stopped by now, all its documents are there.
        with self._database.reading() as connection:
            run = connection.execute(
                select(schema.runs).where(schema.runs.c.uid == self._run_uid)
            ).one()
        last = last_ordinal(self._database, self._run_uid)
        yield "start", decode(run.start)
        sources = [
            self._rows(
                "descriptor", schema.streams, self._in_run(schema.streams), last
            ),
            self._rows(
                "stream_resource",
                schema.stream_resources,
                self._in_run(schema.stream_resources),
                last,
            ),
            self._rows(
                "resource", schema.resources, self._in_run(schema.resources), last
            ),
            self._rows("datum", schema.datums, self._of_resources(), last),
        ]
        for uid in self._stream_uids():
            for name, table in (
                ("event", schema.events),
                ("stream_datum", schema.stream_datums),
            ):
                condition = table.c.stream_uid == uid
                sources.append(self._rows(name, table, condition, last))
        for _, _, name, row in heapq.merge(*sources, key=lambda item: item[:2]):
            yield name, getattr(self, f"_{name}")(row)
        if run.stop is not None:
            yield "stop", decode(run.stop)

    # ------------------------------------------------------------------------- rows

    def _in_run(self, table: Any) -> ColumnElement[bool]:
        return table.c.run_uid == self._run_uid

    def _of_resources(self) -> ColumnElement[bool]:
        mine = select(schema.resources.c.uid).where(
            schema.resources.c.run_uid == self._run_uid
        )
        return schema.datums.c.resource.in_(mine)

    def _stream_uids(self) -> list[str]:
        with self._database.reading() as connection:
            query = select(schema.streams.c.uid).where(self._in_run(schema.streams))
            return list(connection.execute(query).scalars())

    def _rows(
        self, name: str, table: Any, condition: ColumnElement[bool], last: int
    ) -> Iterator[tuple[int, int, str, Row[Any]]]:
        """Yield rows up to the last ordinal, keyed by ordinal and their order in it."""
        after = -1
        query: Select[Any] = (
            select(table).where(condition, table.c.ordinal <= last).limit(_PAGE)
        )
        query = query.order_by(table.c.ordinal)
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(query.where(table.c.ordinal > after)).all()
            for number, row in enumerate(rows):
                yield row.ordinal, number, name, row
            if len(rows) < _PAGE:
                return
            after = rows[-1].ordinal

    # -------------------------------------------------------------------- documents

    def _descriptor(self, row: Row[Any]) -> Document:
        return decode(row.descriptor)

    def _event(self, row: Row[Any]) -> Document:
        document = {
            "uid": row.uid,
            "time": row.time,
            "data": self.load_arrays(decode(row.data)),
            "timestamps": decode(row.timestamps),
            "seq_num": row.seq_num,
            "filled": decode(row.filled),
            "descriptor": row.stream_uid,
        }
        return unpack_rest(document, row.rest)

    def _stream_resource(self, row: Row[Any]) -> Document:
        document = decode(row.document)
        if not self._original:
            document["uri"] = uris.from_stored(
                row.uri, document["uri"], self._database.folder
            )
        return document

    def _stream_datum(self, row: Row[Any]) -> Document:
        document = {
            "stream_resource": row.stream_resource,
            "uid": row.uid,
            "seq_nums": {"start": row.seq_start, "stop": row.seq_stop},
            "indices": {"start": row.indices_start, "stop": row.indices_stop},
            "descriptor": row.stream_uid,
        }
        return unpack_rest(document, row.rest)

    def _resource(self, row: Row[Any]) -> Document:
        document = decode(row.document)
        if not self._original:
            stored = row.root, row.resource_path
            resource_places.follow(document, stored, self._database.folder)
        return document

    def _datum(self, row: Row[Any]) -> Document:
        document = {
            "resource": row.resource,
            "datum_kwargs": decode(row.datum_kwargs),
            "datum_id": row.datum_id,
        }
        return unpack_rest(document, row.rest)

    def load_arrays(self, data: Document) -> Document:
        """Return the data of an event with its arrays, read from the Zarr store.

        Raises
        ------
        StoreReadError
            An array is not there any more, or is damaged.
        """
        for key, value in data.items():
            if type(value) is ArrayReference:
                data[key] = self._load(value)
        return data

    def _load(self, reference: ArrayReference) -> np.ndarray[Any, Any]:
        frames = self._arrays.get(reference.path)
        if frames is None or reference.index >= length_of(frames):
            frames = open_referenced(self._database.store, reference.path)
            self._arrays[reference.path] = frames
        return frames[reference.index].astype(reference.dtype, copy=False)


def last_ordinal(database: Database, run_uid: str) -> int:
    """Return the ordinal of the newest document of a run, 0 if there is only its start.

    One statement sees one moment: every document up to this one is there.
    """
    s = schema
    mine = select(s.streams.c.uid).where(s.streams.c.run_uid == run_uid)
    resources = select(s.resources.c.uid).where(s.resources.c.run_uid == run_uid)
    newest = union_all(
        *(
            select(func.max(table.c.ordinal).label("ordinal")).where(
                table.c.run_uid == run_uid
            )
            for table in (s.streams, s.stream_resources, s.resources)
        ),
        *(
            select(func.max(table.c.ordinal)).where(table.c.stream_uid.in_(mine))
            for table in (s.events, s.stream_datums)
        ),
        select(func.max(s.datums.c.ordinal)).where(s.datums.c.resource.in_(resources)),
    ).subquery()
    with database.reading() as connection:
        found = connection.execute(select(func.max(newest.c.ordinal))).scalar()
    return 0 if found is None else int(found)
