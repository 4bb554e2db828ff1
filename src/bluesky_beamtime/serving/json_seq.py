"""The documents of a run as a JSON text sequence (RFC 7464), a page at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bluesky_beamtime.serving.untyped import serialization_registry

if TYPE_CHECKING:
    from bluesky_beamtime.serving.run import RunNode

MEDIA_TYPE = "application/json-seq"
# Of documents. One chunk per document would take a second for each thousand.
_PAGE = 1000


def register() -> None:
    """Make runs exportable as :data:`MEDIA_TYPE` from servers in this process."""
    serialization_registry.register("BlueskyRun", MEDIA_TYPE, export)


async def export(
    media_type: str, run: RunNode, metadata: Any, filter_for_access: Any
) -> Iterator[bytes]:
    """Return the documents of a run, in the order in which they were emitted.

    Non-finite numbers are written as ``NaN`` and ``Infinity``, which clients in Python
    read. A legacy Datum becomes a page of one, which is what clients know.
    """
    await filter_for_access(run)
    return _pages(run)


def _pages(run: RunNode) -> Iterator[bytes]:
    documents = iter(run.run.documents())
    while page := list(islice(documents, _PAGE)):
        yield b"".join(_record(name, document) for name, document in page)


def _record(name: str, document: dict[str, Any]) -> bytes:
    if name == "datum":
        name, document = "datum_page", _as_page(document)
    text = json.dumps({"name": name, "doc": document}, default=_plain)
    return f"\x1e{text}\n".encode()


def _as_page(datum: dict[str, Any]) -> dict[str, Any]:
    arguments = datum["datum_kwargs"]
    return {
        "resource": datum["resource"],
        "datum_id": [datum["datum_id"]],
        "datum_kwargs": {key: [value] for key, value in arguments.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return cast("np.ndarray[Any, Any]", value).tolist()
    if isinstance(value, np.generic):
        return cast("np.generic[Any]", value).item()
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, (bytes, bytearray)):
        return value.decode("latin-1")
    return str(value)
