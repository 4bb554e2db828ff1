"""What a run looks like at the prompt and in a notebook."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.database.kinds import texts_in
from bluesky_beamtime.database.times import local_time
from bluesky_beamtime.errors import DocumentError, MissingExtraError

if TYPE_CHECKING:
    from bluesky_beamtime.database.runs import Run
    from bluesky_beamtime.database.streams import Stream

_PICTURE_INCHES = (3.2, 2.4)


def run_repr(run: Run) -> str:
    """Return one line: which run, of what, how it ended, what is in it."""
    what = " ".join(filter(None, (run.plan_name, _sample(run))))
    parts = [what, _when(run), _status(run)]
    counts = [f"{name} {run[name].num_events}" for name in run.stream_names]
    if counts:
        parts.append(f"events: {', '.join(counts)}")
    number = run.label.removeprefix("run ")
    return f"<Run {number}: {', '.join(filter(None, parts))}>"


def _sample(run: Run) -> str:
    sample = run.sample
    return "" if sample is None else f"of {sample.name}"


def _when(run: Run) -> str:
    return "" if run.time is None else local_time(run.time, "%Y-%m-%d %H:%M")


def _status(run: Run) -> str:
    status = run.exit_status or "running"
    return f"{status}, incomplete" if not run.complete else status


def run_html(run: Run) -> str:
    """Return a table of what one wants to know first, with a picture if possible."""
    facts = {
        "scan": run.label.removeprefix("run "),
        "plan": run.plan_name,
        "sample": _sample(run).removeprefix("of "),
        "began": _when(run),
        "status": _status(run),
        "uid": run.uid,
    }
    facts |= {
        f"stream {name}": f"{stream.num_events} events: {', '.join(stream.data_keys)}"
        for name, stream in run.streams.items()
    }
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(str(key))}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for key, value in facts.items()
        if value
    )
    picture = _picture(run)
    image = (
        "" if picture is None else f"<img alt='' src='data:image/png;base64,{picture}'>"
    )
    return f"<div style='display:flex;gap:1em'><table>{rows}</table>{image}</div>"


def stream_html(stream: Stream) -> str:
    """Return a table of a stream's fields: what they are, their units and shape."""
    head = ("field", "dtype", "units", "shape", "source")
    lines = [
        (
            name,
            key.get("dtype_numpy") or key.get("dtype"),
            key.get("units"),
            " × ".join(map(str, key.get("shape") or ())),
            key.get("source"),
        )
        for name, key in stream.data_keys.items()
    ]
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(str(c)) if c else ''}</td>" for c in line)
        + "</tr>"
        for line in lines
    )
    title = html.escape(
        f"{stream.run.label}, stream {stream.name!r}: {stream.num_events} events"
    )
    columns = "".join(f"<th>{name}</th>" for name in head)
    return f"<p>{title}</p><table><tr>{columns}</tr>{rows}</table>"


def _picture(run: Run) -> str | None:
    """Return a small PNG of the newest frame, or of the first curve."""
    if "primary" not in run:
        return None
    buffer = io.BytesIO()
    try:
        figure = _figure(_PICTURE_INCHES)
        draw(run["primary"], None, figure.subplots())
        figure.savefig(buffer, format="png", dpi=80)
    except Exception:
        # Nothing to draw, nothing to draw it with, or data that are damaged in a way
        # of their own: the table stands alone.
        return None
    return base64.b64encode(buffer.getvalue()).decode()


def _figure(inches: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plotting a run", "matplotlib", "plot") from error
    figure: Any = Figure(figsize=inches, layout="constrained")
    return figure


def plot_stream(stream: Stream, field: str | None, axes: Any) -> Any:
    """Draw a field and return the axes; see :meth:`Stream.plot`."""
    if axes is None:
        axes = _figure((6.4, 4.8)).subplots()
    draw(stream, field, axes)
    return axes


def draw(stream: Stream, field: str | None, axes: Any) -> None:
    """Draw the newest frame of a field, or its values against the first motor.

    Raises
    ------
    DocumentError
        There is nothing that can be drawn.
    """
    dataset = stream.read()
    drawable = [str(k) for k, v in dataset.data_vars.items() if v.dtype.kind in "biuf"]
    motors = [m for m in texts_in(stream.run.start.get("motors")) if m in drawable]
    if field is None:
        frames = [key for key in drawable if dataset[key].ndim in (3, 4)]
        curves = [k for k in drawable if dataset[k].ndim == 1 and k not in motors]
        field = next(iter([*frames, *curves]), None)
    if field is None or field not in drawable or not dataset.sizes["time"]:
        what = "field that can be drawn" if field is None else f"picture of {field!r}"
        raise DocumentError(f"{stream.run.label}, stream {stream.name!r}: no {what}")
    values = dataset[field]
    units = values.attrs.get("units")
    name = field if units is None else f"{field} ({units})"
    if values.ndim > 1:
        newest = values[-1]
        while newest.ndim > 2:
            newest = newest[0]
        if newest.ndim == 2:
            axes.imshow(newest.values)
        else:
            axes.plot(newest.values)
        axes.set_title(f"{name}, newest", fontsize="small")
        return
    x = motors[0] if motors and field not in motors else "seq_num"
    axes.plot(dataset[x].values, values.values, ".-")
    axes.set_xlabel(x, fontsize="small")
    axes.set_title(name, fontsize="small")
