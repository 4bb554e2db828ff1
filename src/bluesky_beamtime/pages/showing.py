"""What a page can show of a stream: curves, frames, and its first rows."""

from __future__ import annotations

import json
from typing import Any

from bluesky_beamtime.database.kinds import mapping_in, texts_in
from bluesky_beamtime.database.streams import Stream
from bluesky_beamtime.errors import BeamtimeError
from bluesky_beamtime.pages.curves import scan_axis
from bluesky_beamtime.pages.readable import motors_of, read_readable, units_of

_MOST_CURVES = 12
_MOST_ROWS = 200


def stream_facts(stream: Stream) -> dict[str, Any]:
    """Return what can be drawn of a stream, hinted fields first, and its last rows.

    Returns
    -------
    dict
        ``name``, ``error`` (what cannot be read, empty if all can), ``events``, ``x``,
        ``curves``, ``frames``, ``columns``, ``units``, ``rows`` and ``cut`` (whether
        there are more rows).
    """
    facts: dict[str, Any] = {
        "name": stream.name,
        "error": "",
        "events": 0,
        "curves": [],
        "frames": [],
    }
    try:
        dataset, faults = read_readable(stream)
        axis = scan_axis(stream)
    except BeamtimeError as error:
        return facts | {"error": str(error)}
    facts["error"] = "; ".join(f"{key}: {fault}" for key, fault in faults.items())
    motors = [m for m in motors_of(stream.run) if m in dataset]
    numbers: dict[str, Any] = {
        str(name): variable
        for name, variable in dataset.data_vars.items()
        if variable.dtype.kind in "biuf"
    }
    curves = [
        name
        for name, variable in numbers.items()
        if variable.ndim == 1
        and name not in (*motors, axis)
        and not name.endswith("_id")
    ]
    hinted = hinted_fields(stream)
    curves.sort(key=lambda name: name not in hinted)
    events = int(dataset.sizes["time"])
    table = dataset[[str(n) for n, v in dataset.data_vars.items() if v.ndim == 1]]
    table = table.isel(time=slice(-_MOST_ROWS, None))
    columns = ["seq_num", *map(str, table.data_vars)]
    cells = zip(*(table[name].values.tolist() for name in columns), strict=True)
    return facts | {
        "events": events,
        "x": axis or "seq_num",
        "curves": curves[:_MOST_CURVES] if events > 1 else [],
        "frames": [
            {"field": name, "shape": list(variable.shape), "rows": variable.shape[0]}
            for name, variable in numbers.items()
            if variable.ndim >= 3 and variable.shape[0]
        ],
        "columns": columns,
        "units": {c: units_of(dataset[c]) for c in columns[1:]},
        "rows": [[_cell(value) for value in row] for row in cells],
        "cut": events > _MOST_ROWS,
    }


def hinted_fields(stream: Stream) -> set[str]:
    """Return the fields that the devices recommend for a plot."""
    fields: set[str] = set()
    for descriptor in stream.descriptors:
        for hint in mapping_in(descriptor.get("hints")).values():
            fields.update(texts_in(mapping_in(hint).get("fields")))
    return fields


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def shorten(value: Any, longest: int = 400) -> str:
    """Return a value as text that has its place in a line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= longest else f"{text[:longest]}…"
