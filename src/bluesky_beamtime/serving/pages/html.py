"""Templates, and what they show of a run."""

from __future__ import annotations

from functools import cache
from typing import Any

from bluesky_beamtime.pages import environment
from bluesky_beamtime.serving.run import RunNode


@cache
def _environment() -> Any:
    return environment("bluesky_beamtime.serving.pages", "serve")


def render(template: str, **values: Any) -> str:
    """Return a page."""
    return _environment().get_template(template).render(**values)


def run_line(node: RunNode) -> dict[str, Any]:
    """Return the line of a run in the list."""
    metadata = node.metadata()
    start = metadata["start"]
    return {
        "row_id": node.row_id,
        "uid": node.uid,
        "scan_id": start.get("scan_id"),
        "plan": start.get("plan_name", ""),
        "sample": node.row.sample or "",
        "began": metadata["beamtime"]["began"] or "",
        "status": node.status,
        "tags": node.row.tags,
        "starred": node.row.starred,
        "streams": node.row.streams,
        "events": node.run.num_events,
    }
