"""Frames as PNG and curves as SVG."""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.database.streams import Stream
from bluesky_beamtime.errors import BeamtimeError, RunNotFoundError

# Percentiles that become black and white: hot pixels and beam stops do not count.
_DARKEST, _BRIGHTEST = 1.0, 99.7
_LARGEST = 1024
_THUMBNAIL = 96


def frame_png(
    stream: Stream, field: str, row: int, *, largest: int = _LARGEST
) -> bytes:
    """Return one frame as a picture with a contrast that shows something.

    Parameters
    ----------
    stream, field
        Whose frames.
    row
        Which event; negative from the end.
    largest
        Pixels of the longer side, at most; larger frames are thinned out.

    Raises
    ------
    IndexError
        There is no such row.
    RunNotFoundError
        There is no such field, or it holds no frames.
    """
    values = stream.read([field])[field]
    if values.ndim < 3:
        raise RunNotFoundError(f"the field {field!r} holds no frames")
    if not -values.shape[0] <= row < values.shape[0]:
        raise IndexError(f"{field!r} has {values.shape[0]} frames, no number {row}")
    frame = np.asarray(values[row].values)
    while frame.ndim > 2 and not (frame.ndim == 3 and frame.shape[-1] in (3, 4)):
        frame = frame[0]
    return _png(frame, largest)


def _png(frame: NDArray[Any], largest: int) -> bytes:
    from PIL import Image

    step = max(1, -(-max(frame.shape[:2]) // largest))
    frame = frame[::step, ::step]
    image: Any = Image.fromarray(_to_bytes(frame))
    if frame.ndim == 2:
        image.putpalette(_palette())
    smallest = min(256, largest)
    if max(image.size) < smallest:
        factor = smallest // max(image.size)
        if factor > 1:
            size = (image.size[0] * factor, image.size[1] * factor)
            image = image.resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _to_bytes(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a frame in 8 bits, from its dark to its bright percentile."""
    if frame.dtype == np.uint8 and frame.ndim == 3:
        return frame
    values = np.abs(frame) if frame.dtype.kind == "c" else frame
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(finite, (_DARKEST, _BRIGHTEST))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    scaled = (values - low) / ((high - low) or 1.0)
    scaled = np.nan_to_num(np.clip(scaled, 0, 1), nan=0.0)
    return (scaled * 255).astype(np.uint8)


def _palette() -> bytes:
    from matplotlib import colormaps

    colours: Any = colormaps["viridis"](np.arange(256), bytes=True)
    return cast("NDArray[np.uint8]", colours)[:, :3].tobytes()


def curve_svg(stream: Stream, field: str, x: str) -> bytes:
    """Return the values of a field against another as a drawing.

    Raises
    ------
    RunNotFoundError
        There is no such field, or it has no numbers to draw.
    """
    from matplotlib.figure import Figure

    fields = [field] if x in ("", "seq_num", "time") else [field, x]
    dataset = stream.read(fields)
    values = dataset[field]
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise RunNotFoundError(f"the field {field!r} is no curve")
    against = dataset[x or "seq_num"]
    figure: Any = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    marker = "." if values.size <= 300 else None
    axes.plot(against.values, values.values, marker=marker, lw=1)
    axes.set_xlabel(_label(against), fontsize="small")
    axes.set_ylabel(_label(values), fontsize="small")
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def _label(values: Any) -> str:
    units = values.attrs.get("units")
    return f"{values.name} ({units})" if units else str(values.name)


def thumbnail_png(run: Run) -> bytes:
    """Return a small picture of a run: its newest frame, else its first curve.

    Raises
    ------
    RunNotFoundError
        There is nothing to show.
    """
    for stream in sorted(run.streams.values(), key=lambda s: s.name != "primary"):
        try:
            dataset = stream.read()
        except BeamtimeError:
            continue
        numbers = [
            (str(name), variable)
            for name, variable in dataset.data_vars.items()
            if variable.dtype.kind in "biuf" and variable.shape[0]
        ]
        for name, variable in numbers:
            if variable.ndim >= 3:
                return frame_png(stream, name, -1, largest=_THUMBNAIL)
        for name, variable in numbers:
            motors = run.start.get("motors") or ()
            if variable.ndim == 1 and variable.shape[0] > 1 and name not in motors:
                return _sparkline(np.asarray(variable.values, np.float64))
    raise RunNotFoundError(f"{run.label} has nothing to show")


def _sparkline(values: NDArray[np.float64]) -> bytes:
    from matplotlib.figure import Figure

    inches = _THUMBNAIL / 96
    figure: Any = Figure(figsize=(inches, inches), dpi=96)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    axes.plot(values, lw=1)
    axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
