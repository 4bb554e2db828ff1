"""Pages and bulk documents, taken apart into single documents.

What is stored are events and datums. A page is the same information transposed, so that
nothing is lost; the order of the top-level keys of a page has no meaning for its
events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from bluesky_beamtime.errors import DocumentError

if TYPE_CHECKING:
    from bluesky_beamtime.database.run_recorder import RunRecorder

Document = dict[str, Any]

_EVENTS = frozenset({"event_page", "bulk_events"})
PAGES = frozenset({"event_page", "datum_page", "bulk_events", "bulk_datum"})


def store(run: RunRecorder, name: str, doc: Mapping[str, Any]) -> None:
    """Store any document of a run, but its start.

    Raises
    ------
    DocumentError
        It is malformed; nothing of it was stored.
    """
    if name not in PAGES:
        getattr(run, name)(doc)
        return
    singles = [single for _, single in unpack(name, doc)]
    if name not in _EVENTS:
        run.datums(singles)
        return
    for event in singles:
        if event["descriptor"] not in run.data_keys:
            raise DocumentError("an event for a stream of another run")
    run.events(singles)


def unpack(name: str, doc: Mapping[str, Any]) -> Iterator[tuple[str, Document]]:
    """Yield the events or datums of a page or bulk document, in their order.

    Raises
    ------
    DocumentError
        Columns are missing or their lengths differ. Raised before the first document.
    """
    if name == "event_page":
        yield from _event_page(doc)
    elif name == "datum_page":
        yield from _datum_page(doc)
    elif name == "bulk_events":
        for events in doc.values():
            for event in events:
                yield "event", event
    elif name == "bulk_datum":
        ids, kwargs = doc["datum_ids"], doc["datum_kwarg_list"]
        _check_lengths(name, len(ids), {"datum_kwarg_list": kwargs})
        more = _more(doc, "resource", "datum_ids", "datum_kwarg_list")
        for datum_id, datum_kwargs in zip(ids, kwargs, strict=True):
            yield (
                "datum",
                {
                    **more,
                    "resource": doc["resource"],
                    "datum_kwargs": datum_kwargs,
                    "datum_id": datum_id,
                },
            )
    else:
        raise DocumentError(f"{name!r} is not a page")


def _event_page(doc: Mapping[str, Any]) -> Iterator[tuple[str, Document]]:
    uids = doc["uid"]
    count = len(uids)
    rows = ("uid", "time", "seq_num")
    tables = {key: doc.get(key, {}) for key in ("data", "timestamps", "filled")}
    _check_lengths("event_page", count, {key: doc[key] for key in rows})
    for key, table in tables.items():
        _check_lengths(f"event_page {key!r}", count, table)
    more = _more(doc, *tables, *rows, "descriptor")
    for number in range(count):
        yield (
            "event",
            {
                "uid": uids[number],
                "time": doc["time"][number],
                "data": _row(tables["data"], number),
                "timestamps": _row(tables["timestamps"], number),
                "seq_num": doc["seq_num"][number],
                "filled": _row(tables["filled"], number),
                "descriptor": doc["descriptor"],
                **more,
            },
        )


def _datum_page(doc: Mapping[str, Any]) -> Iterator[tuple[str, Document]]:
    ids = doc["datum_id"]
    kwargs = doc["datum_kwargs"]
    _check_lengths("datum_page", len(ids), kwargs)
    more = _more(doc, "resource", "datum_id", "datum_kwargs")
    for number, datum_id in enumerate(ids):
        yield (
            "datum",
            {
                "resource": doc["resource"],
                "datum_kwargs": _row(kwargs, number),
                "datum_id": datum_id,
                **more,
            },
        )


def _more(doc: Mapping[str, Any], *known: str) -> Document:
    """Return what is no column nor table of columns: it holds for every row."""
    return {key: value for key, value in doc.items() if key not in known}


def _row(table: Mapping[str, Sequence[Any]], number: int) -> Document:
    return {key: column[number] for key, column in table.items()}


def _check_lengths(what: str, count: int, columns: Mapping[str, Any]) -> None:
    for key, column in columns.items():
        if len(cast("Sequence[Any]", column)) != count:
            raise DocumentError(
                f"{what}: the column {key!r} has {len(column)} rows, expected {count}"
            )
