"""Frames as PNG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.database.streams import Stream
from bluesky_beamtime.errors import BeamtimeError, DocumentError, RunNotFoundError
from bluesky_beamtime.pages.readable import motors_of, read_readable

# Percentiles that become black and white: hot pixels and beam stops do not count.
_DARKEST, _BRIGHTEST = 1.0, 99.7
_LARGEST = 1024
_THUMBNAIL = 96
# A polynomial for each of red, green and blue, fitted to the colours of viridis.
_VIRIDIS = (
    (0.274, 0.108, -0.327, -4.600, 6.204, 4.752, -5.432),
    (0.006, 1.396, 0.215, -5.758, 14.154, -13.749, 4.642),
    (0.333, 1.387, 0.092, -19.292, 56.656, -65.321, 26.272),
)


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
    StorageError
        The frame is missing or damaged.
    """
    values = _frames(stream, field)
    if len(values.shape) < 3:
        raise RunNotFoundError(f"the field {field!r} holds no frames")
    if not -values.shape[0] <= row < values.shape[0]:
        raise IndexError(f"{field!r} has {values.shape[0]} frames, no number {row}")
    frame = np.asarray(values[row])
    while frame.ndim > 2 and not (frame.ndim == 3 and frame.shape[-1] in (3, 4)):
        frame = frame[0]
    return array_png(frame, largest=largest)


def _frames(stream: Stream, field: str) -> Any:
    try:
        # One frame is read, where a Dataset would read its neighbours too.
        return stream.frames(field)
    except DocumentError:
        return stream.read([field])[field]


def array_png(frame: NDArray[Any], *, largest: int = _LARGEST) -> bytes:
    """Return a frame, ``(y, x)`` or ``(y, x, colour)``, as a PNG."""
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
    return _encoded(image)


def _encoded(image: Any) -> bytes:
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
    from numpy.polynomial.polynomial import polyval

    shades = np.linspace(0, 1, 256)
    colours = np.stack([polyval(shades, each) for each in _VIRIDIS], axis=1)
    return (np.clip(colours, 0, 1) * 255).astype(np.uint8).tobytes()


def thumbnail_png(run: Run) -> bytes:
    """Return a small picture of a run: its middle frame, else its first curve.

    Raises
    ------
    RunNotFoundError
        There is nothing to show.
    """
    for stream in sorted(run.streams.values(), key=lambda s: s.name != "primary"):
        try:
            dataset, _ = read_readable(stream)
        except BeamtimeError:
            continue
        numbers = [
            (str(name), variable)
            for name, variable in dataset.data_vars.items()
            if variable.dtype.kind in "biufc" and variable.shape[0]
        ]
        for name, variable in numbers:
            if variable.ndim >= 3:
                try:
                    middle = variable.shape[0] // 2
                    return frame_png(stream, name, middle, largest=_THUMBNAIL)
                except BeamtimeError:
                    continue
        motors = motors_of(run)
        for name, variable in numbers:
            curve = variable.ndim == 1 and variable.shape[0] > 1
            if curve and variable.dtype.kind != "c" and name not in motors:
                return _sparkline(np.asarray(variable.values, np.float64))
    raise RunNotFoundError(f"{run.label} has nothing to show")


def _sparkline(values: NDArray[np.float64]) -> bytes:
    """Draw a curve without axes, at twice its size for smooth edges."""
    from PIL import Image, ImageDraw

    side, margin = 2 * _THUMBNAIL, 8
    values = values[np.isfinite(values)]
    step = max(1, values.size // side)
    values = values[::step]
    image: Any = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    if values.size > 1:
        # Halves: the span of what is nearly infinite is infinite.
        low = float(values.min()) / 2
        span = float(values.max()) / 2 - low or 1.0
        x = np.linspace(margin, side - margin, values.size)
        y = (side - margin) - (values / 2 - low) / span * (side - 2 * margin)
        points = list(zip(x.tolist(), y.tolist(), strict=True))
        ImageDraw.Draw(image).line(points, fill=(31, 119, 180, 255), width=4)
    return _encoded(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS))
