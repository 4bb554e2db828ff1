"""Runs of a beamtime into a server of Tiled elsewhere, each exactly once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import httpx

from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.errors import ServingError


@dataclass
class PushReport:
    """What became of the runs that were pushed."""

    pushed: list[str] = field(default_factory=list[str])
    """Uids of the runs that are there now."""
    present: list[str] = field(default_factory=list[str])
    """Uids of those that were there before."""
    unfinished: list[str] = field(default_factory=list[str])
    """Uids of those that are still going on, for the next time."""
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """What was wrong with others, by uid."""

    @property
    def ok(self) -> bool:
        """Whether every run that has ended is there."""
        return not self.failed


def push(
    runs: Iterable[Run],
    client: Any,
    *,
    progress: Callable[[Run], object] | None = None,
) -> PushReport:
    """Replay runs into a catalogue of Tiled, oldest first.

    Parameters
    ----------
    runs
        The runs.
    client
        A client of Tiled for the catalogue that takes them, such as
        ``tiled.client.from_uri(url)``.
    progress
        Called with each run that was dealt with.

    Returns
    -------
    PushReport
        What became of each.

    Raises
    ------
    ServingError
        The server cannot be reached, or does not let this client write.

    Notes
    -----
    A run is complete there when its metadata hold its stop document: that is written
    last. A run that a crash cut off has none; its metadata say
    ``beamtime.status: interrupted`` instead. What an interruption of the push left
    unfinished is taken away and sent anew, so that pushing again goes on where it
    stopped. Frames stay where they are: the server has to see the beamtime's folder,
    and be allowed to read it. One process at a time may push to a server.
    """
    report = PushReport()
    key = _key_of(client)
    for run in runs:
        if run.stop is None and run.exit_status is None:
            report.unfinished.append(run.uid)
            continue
        try:
            new = _push_one(run, client)
        except Exception as error:
            if _is_refusal(error):
                reason = hide(f"{type(error).__name__}: {error}", key)
                raise ServingError(
                    f"the server does not take runs: {reason}; check its address, "
                    "and that the key may write"
                ) from None
            report.failed[run.uid] = hide(f"{type(error).__name__}: {error}", key)
        else:
            (report.pushed if new else report.present).append(run.uid)
        if progress is not None:
            progress(run)
    return report


def _push_one(run: Run, client: Any) -> bool:
    """Send one run; return False if it is there already."""
    from bluesky_tiled_plugins import TiledWriter

    from bluesky_beamtime.serving import consolidator

    consolidator.register()
    found = _find(client, run.uid)
    if found is not None:
        if _is_complete(found.metadata, run):
            return False
        # What the server holds of it, tables included; frames are no possession of its.
        client.delete_contents(run.uid, recursive=True, external_only=False)
    write: Any = TiledWriter(client)
    for name, document in run.documents():
        write(name, document)
    if run.stop is None:
        _end_interrupted(run, client, write)
    return True


def _is_complete(metadata: Any, run: Run) -> bool:
    stop = metadata.get("stop")
    if run.stop is not None:
        return bool(stop) and stop["uid"] == run.stop["uid"]
    return not stop and metadata.get("beamtime", {}).get("status") == "interrupted"


def _end_interrupted(run: Run, client: Any, write: Any) -> None:
    """Have the writer hand over what it holds, of a run without a stop document.

    It does so at a stop document alone, so that it gets one for a moment; a push that
    ends just then is repeated, since no run of ours has a stop of that uid.
    """
    from tiled.client import DELETE_KEY

    stop: dict[str, Any] = {
        "uid": str(uuid.uuid4()),
        "run_start": run.uid,
        "time": time.time(),
        "exit_status": "abort",
        "reason": "interrupted",
        "num_events": {},
    }
    write("stop", stop)
    client[run.uid].update_metadata(
        {"stop": DELETE_KEY, "beamtime": {"status": "interrupted"}}, drop_revision=True
    )


def _find(client: Any, uid: str) -> Any:
    try:
        return client[uid]
    except KeyError:
        return None


def connect(url: str, api_key: str | None = None) -> Any:
    """Return a client of a server of Tiled.

    Parameters
    ----------
    url
        Address, with or without the key.
    api_key
        The key.

    Raises
    ------
    ServingError
        Nobody answers there, or the key is not right; the key is not in its text.
    """
    import tiled.client
    from tiled.client import context as contexts

    address = httpx.URL(url)
    key = api_key or address.params.get("api_key")
    address = address.copy_remove_param("api_key")
    clients: Any = tiled.client  # they have no annotations
    context: Any = None
    try:
        make = cast("Any", contexts).Context.from_any_uri
        context, parts = make(str(address), api_key=key)
        return clients.from_context(context, node_path_parts=parts)
    except Exception as error:
        if context is not None:
            context.close()
        reason = hide(f"{type(error).__name__}: {error}", key)
        raise ServingError(
            f"cannot connect to {str(address)!r}: {reason}; check the address "
            "(it ends with /api/v1) and the key"
        ) from None


def _key_of(client: Any) -> str | None:
    return getattr(client.context, "api_key", None)


def hide(text: str, key: str | None) -> str:
    """Return a text without a key."""
    return text.replace(key, "…") if key else text


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, httpx.TransportError):
        return True
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None) in (401, 403)
