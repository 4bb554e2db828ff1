"""Runs of databroker, of Tiled, and of whatever else has ``documents()``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from bluesky_beamtime.database.kinds import is_mapping
from bluesky_beamtime.errors import DocumentError, MissingExtraError, ServerError


def open_catalog(url: str) -> Any:
    """Return the catalogue of a Tiled server.

    Raises
    ------
    MissingExtraError
        Tiled's client is not installed.
    ServerError
        The server does not answer.
    """
    try:
        client: Any = importlib.import_module("tiled.client")
    except ImportError as error:
        raise MissingExtraError("reading from Tiled", "tiled", "tiled") from error
    try:
        return client.from_uri(url)
    except Exception as error:
        raise ServerError(f"{url} cannot be read: {error}") from error


def find_runs(catalog: Any) -> list[tuple[str, Any]]:
    """Return the runs of a catalogue with their uids, the oldest first.

    Parameters
    ----------
    catalog
        A run, a mapping of runs, or an iterable of runs.

    Raises
    ------
    DocumentError
        There is something in it that is no run.
    """
    if hasattr(catalog, "documents"):
        return [(_uid_of("", catalog), catalog)]
    if hasattr(catalog, "items"):
        found = [(_uid_of(str(key), run), run) for key, run in catalog.items()]
    else:
        found = [(_uid_of("", run), run) for run in catalog]
    for uid, run in found:
        if not hasattr(run, "documents"):
            raise DocumentError(f"{uid or run!r:.80} has no documents(): it is no run")
    return sorted(found, key=lambda pair: _time_of(pair[1]))


def _start(run: Any) -> Mapping[str, Any]:
    metadata: Any = getattr(run, "metadata", None)
    start: Any = metadata.get("start") if is_mapping(metadata) else None
    start = start or getattr(run, "start", None)
    return start if is_mapping(start) else {}


def _uid_of(key: str, run: Any) -> str:
    return str(_start(run).get("uid") or getattr(run, "uid", None) or key)


def _time_of(run: Any) -> float:
    time = _start(run).get("time")
    return float(time) if isinstance(time, (int, float)) else 0.0


def documents_of(run: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the documents of a run, external assets left where they are."""
    method = run.documents
    try:
        options = inspect.signature(method).parameters
    except (TypeError, ValueError):
        options = {}
    # databroker asks whether to load the files that documents refer to.
    yield from method(fill=False) if "fill" in options else method()
