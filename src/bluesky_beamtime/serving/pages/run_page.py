"""What the page of one run shows."""

from __future__ import annotations

from typing import Any

from bluesky_beamtime.pages import shorten, stream_facts
from bluesky_beamtime.serving.pages.html import run_line
from bluesky_beamtime.serving.run import RunNode, local_time


def run_facts(node: RunNode) -> dict[str, Any]:
    """Return the values for the template of a run's page."""
    metadata = node.metadata()
    start: dict[str, Any] = metadata["start"]
    stop: dict[str, Any] = metadata["stop"] or {}
    streams = [stream_facts(node.run[name]) for name in node.row.streams]
    return {
        "line": run_line(node),
        "status": node.status,
        "live": node.status == "running",
        "ended": local_time(stop.get("time")),
        "reason": stop.get("reason", ""),
        "start": {key: shorten(value) for key, value in start.items()},
        "notes": node.row.notes,
        "frames": node.row.frames,
        "streams": streams,
    }
