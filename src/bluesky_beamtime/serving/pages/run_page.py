"""What the page of one run shows."""

from __future__ import annotations

import json
from typing import Any

from bluesky_beamtime.database.streams import Stream
from bluesky_beamtime.errors import BeamtimeError
from bluesky_beamtime.serving.pages.html import run_line
from bluesky_beamtime.serving.run import RunNode, local_time

_MOST_CURVES = 12
_MOST_ROWS = 200


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
        "start": {key: _short(value) for key, value in start.items()},
        "notes": node.row.notes,
        "frames": node.row.frames,
        "streams": streams,
    }


def stream_facts(stream: Stream) -> dict[str, Any]:
    """Return what can be drawn of a stream: curves, frames, and its first rows."""
    try:
        dataset = stream.read()
    except BeamtimeError as error:
        return {"name": stream.name, "error": str(error), "curves": [], "frames": []}
    motors = [m for m in stream.run.start.get("motors") or () if m in dataset]
    x = motors[0] if motors else "seq_num"
    numbers = {
        str(name): variable
        for name, variable in dataset.data_vars.items()
        if variable.dtype.kind in "biuf"
    }
    curves = [
        name
        for name, variable in numbers.items()
        if variable.ndim == 1 and name not in motors and not name.endswith("_id")
    ]
    frames = [
        {"field": name, "shape": list(variable.shape), "rows": variable.shape[0]}
        for name, variable in numbers.items()
        if variable.ndim >= 3 and variable.shape[0]
    ]
    table = dataset[[str(n) for n, v in dataset.data_vars.items() if v.ndim == 1]].isel(
        time=slice(-_MOST_ROWS, None)
    )
    columns = ["seq_num", *map(str, table.data_vars)]
    rows = [
        [_cell(value) for value in row]
        for row in zip(*(table[name].values.tolist() for name in columns), strict=True)
    ]
    units = {name: str(dataset[name].attrs.get("units", "")) for name in columns[1:]}
    return {
        "name": stream.name,
        "events": int(dataset.sizes["time"]),
        "x": x,
        "curves": curves[:_MOST_CURVES] if dataset.sizes["time"] > 1 else [],
        "frames": frames,
        "columns": columns,
        "units": units,
        "rows": rows,
        "cut": int(dataset.sizes["time"]) > _MOST_ROWS,
    }


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(value: Any, longest: int = 400) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= longest else f"{text[:longest]}…"
