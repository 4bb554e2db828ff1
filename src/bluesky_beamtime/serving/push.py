"""Runs of a beamtime into a server of Tiled elsewhere, each exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

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
    last. What an interruption left unfinished is taken away and sent anew, so that
    pushing again goes on where it stopped. Frames stay where they are: the server has
    to see the beamtime's folder, and be allowed to read it.
    """
    report = PushReport()
    for run in runs:
        if run.stop is None and run.exit_status is None:
            report.unfinished.append(run.uid)
            continue
        try:
            new = _push_one(run, client)
        except Exception as error:
            if _is_refusal(error):
                raise ServingError(
                    f"the server does not take runs: {error}; check its address, "
                    "and that the key may write"
                ) from error
            report.failed[run.uid] = f"{type(error).__name__}: {error}"
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
        if found.metadata.get("stop") or run.stop is None:
            return False
        client.delete_contents(run.uid, recursive=True, external_only=True)
    write: Any = TiledWriter(client)
    for name, document in run.documents():
        write(name, document)
    return True


def _find(client: Any, uid: str) -> Any:
    try:
        return client[uid]
    except KeyError:
        return None


def _is_refusal(error: Exception) -> bool:
    import httpx

    if isinstance(error, httpx.TransportError):
        return True
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None) in (401, 403)
