"""StreamResource and StreamDatum documents for the frames of a sink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from bluesky_beamtime.storage.sink import FrameSink
from bluesky_beamtime.storage.source import SourceInfo

StreamDoc = tuple[str, dict[str, Any]]


def stream_resource_doc(
    sink: FrameSink, uid: str, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the StreamResource of a sink.

    Parameters
    ----------
    sink
        The sink; its URI is that of the array, which stock readers open.
    uid
        Uid of the document.
    parameters
        More parameters, beside those that the format needs.
    """
    return {
        "data_key": sink.data_key,
        "mimetype": sink.mimetype,
        "parameters": {**sink.parameters, **(parameters or {})},
        "uid": uid,
        "uri": sink.uri,
    }


def stream_datum_doc(resource_uid: str, start: int, stop: int) -> dict[str, Any]:
    """Return a StreamDatum for rows ``start`` to ``stop``.

    The empty descriptor and the sequence numbers 0 to 0 are what the RunEngine expects
    of a device: it fills in its own.
    """
    return {
        "descriptor": "",
        "indices": {"start": start, "stop": stop},
        "seq_nums": {"start": 0, "stop": 0},
        "stream_resource": resource_uid,
        "uid": f"{resource_uid}/{start}",
    }


def stream_docs(sink: FrameSink, source: SourceInfo, stop: int) -> Iterator[StreamDoc]:
    """Yield what was not yet announced of a source, up to row ``stop``.

    The source remembers each document as it is handed out, so that it does not matter
    where a caller stops.
    """
    with source.lock:
        start = source.collection_counter
        if stop <= start:
            return
        uid = source.stream_resource_uid
        resource = not source.resource_sent
        source.resource_sent = True
    if resource:
        yield "stream_resource", stream_resource_doc(sink, uid)
    with source.lock:
        # Read again: another caller may have announced rows while this one waited.
        start = source.collection_counter
        if source.stream_resource_uid != uid or stop <= start:
            return
        source.collection_counter = stop
    yield "stream_datum", stream_datum_doc(uid, start, stop)


def quote_name(name: str) -> str:
    """Return a name that can stand as one folder, however hostile it is.

    Names that may stand stay as they are. Everything else is percent-encoded, and a
    name that is too long keeps its beginning and gets a hash.
    """
    from hashlib import sha256

    safe = quote(
        name, safe=" !#$&'()+,;=@[]{}~", encoding="utf-8", errors="surrogatepass"
    )
    if safe.startswith((".", "__")):
        safe = f"%{ord(safe[0]):02X}{safe[1:]}"
    if not safe:
        safe = "%00"
    if safe == "zarr.json":
        safe = "zarr%2Ejson"
    if len(safe) > 120:
        safe = f"{safe[:100]}~{sha256(safe.encode()).hexdigest()[:16]}"
    return safe
