"""Drawings of numbers as SVG, light enough for a thousand on a page.

They have no fonts and no colours of their own: on a page they take those of the page,
alone they follow the preference for a dark or a light screen.
"""

from __future__ import annotations

import base64
import math
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.streams import Stream
from bluesky_beamtime.errors import DocumentError, RunNotFoundError
from bluesky_beamtime.pages.pictures import array_png
from bluesky_beamtime.pages.readable import motors_of, read_fields, units_of

WIDTH, HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 24, 40
_MOST_MARKERS = 120
# More points than pixels: of each group the lowest and the highest is drawn.
_GROUPS = 400
_TINY = 1e-290

PLOT_STYLE = (
    ".plot text{font:11px system-ui,sans-serif;fill:#55606e;stroke:none}"
    ".plot .title{fill:#1d2430;font-size:12px;font-weight:600}"
    ".plot .grid{stroke:#8883;fill:none}.plot .edge{stroke:#8889;fill:none}"
    ".plot .curve{stroke:#0b6bcb;fill:none;stroke-width:1.4;stroke-linejoin:round}"
    ".plot .mark{fill:#0b6bcb}"
    "@media(prefers-color-scheme:dark){.plot text{fill:#a3adba}"
    ".plot .title{fill:#e4e8ee}.plot .curve{stroke:#6cb2ff}.plot .mark{fill:#6cb2ff}}"
)
"""What a page has to have in its style for drawings without their own."""

Floats = NDArray[np.float64]


def plot_svg(stream: Stream, field: str, x: str = "", *, alone: bool = True) -> str:
    """Return the values of a field as a drawing.

    A grid scan of two axes is a map; all else is a curve.

    Parameters
    ----------
    stream, field
        Whose values.
    x
        Field to draw them against; by default the axis that was scanned, else the
        number of the event.
    alone
        With a style of its own, for a file; else for a page that has
        :data:`PLOT_STYLE`.

    Raises
    ------
    RunNotFoundError
        There is no such field, or it has no numbers to draw.
    """
    drawn = None if x else _map_of(stream, field)
    if drawn is None:
        against = x or scan_axis(stream)
        fields = [field] if against in ("", "seq_num", "time") else [field, against]
        dataset = read_fields(stream, fields)
        values = dataset[field]
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise RunNotFoundError(f"the field {field!r} is no curve")
        drawn = draw_curve(
            np.asarray(dataset[against or "seq_num"].values, np.float64),
            np.asarray(values.values, np.float64),
            label_of(dataset[against or "seq_num"]),
            label_of(values),
        )
    return standing_alone(drawn) if alone else drawn


def standing_alone(drawing: str) -> str:
    """Return a drawing of a page as the content of a file."""
    root = '<svg xmlns="http://www.w3.org/2000/svg" '
    return drawing.replace("<svg ", root, 1).replace(
        ">", f"><style>{PLOT_STYLE}</style>", 1
    )


def scan_axis(stream: Stream) -> str:
    """Return the field of the fastest axis that a plan scanned; empty without one."""
    start = stream.run.start
    found: list[str] = []
    try:
        hints: Any = start.get("hints") or {}
        dimensions: list[tuple[list[str], str]] = hints.get("dimensions") or []
        for fields, name in dimensions:
            if name == stream.name:
                found = [field for field in fields if field in stream]
    except (AttributeError, TypeError, ValueError):
        # What a plan says there is for plots: a wrong word spoils no page.
        found = []
    found = found or [m for m in motors_of(stream.run) if m in stream][-1:]
    return found[0] if found and found[0] not in ("time", "seq_num") else ""


def label_of(values: Any) -> str:
    """Return the name of a variable, with its units."""
    units = units_of(values)
    name = "event" if values.name == "seq_num" else str(values.name)
    return f"{name} ({units})" if units else name


def _map_of(stream: Stream, field: str) -> str | None:
    """Return the drawing of a field over two axes, None if there are not two."""
    if not stream.run.start.get("shape"):
        return None
    try:
        values: Any = stream.to_grid([field])[field]
    except DocumentError:
        return None
    if values.ndim != 2 or values.dtype.kind not in "biuf" or 1 in values.shape:
        return None
    ends: list[Floats] = []
    labels: list[str] = []
    for axis in values.dims:
        coordinate = values[axis]
        ends.append(np.asarray(coordinate.values, np.float64))
        labels.append(label_of(coordinate))
    grid = np.asarray(values.values, np.float64)
    if not all(np.isfinite(end).all() for end in ends):
        return None
    return draw_map(grid, ends[1], ends[0], (labels[1], labels[0]), label_of(values))


# ------------------------------------------------------------------------------ drawing


def draw_curve(x: Floats, y: Floats, x_label: str, y_label: str) -> str:
    """Return ``y`` over ``x`` as SVG; points that are not finite are gaps."""
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        return _drawing("", y_label, x_label, "no finite values")
    across = _Axis(x[good], WIDTH - _RIGHT, _LEFT)
    up = _Axis(y[good], _TOP, HEIGHT - _BOTTOM)
    inside: list[str] = []
    for part in np.split(np.arange(x.size), np.flatnonzero(~good)):
        rows = part[good[part]]
        if rows.size > 1:
            rows = _thinned(y, rows)
            line = _points(across.places(x[rows]), up.places(y[rows]))
            inside.append(f'<polyline class="curve" points="{line}"/>')
    if good.sum() <= _MOST_MARKERS:
        for left, top in zip(across.places(x[good]), up.places(y[good]), strict=True):
            inside.append(f'<circle class="mark" cx="{left}" cy="{top}" r="2.2"/>')
    return _drawing(_ticks(across, up) + "".join(inside), y_label, x_label)


def draw_map(
    grid: Floats, x: Floats, y: Floats, labels: tuple[str, str], title: str
) -> str:
    """Return a grid of values, ``(y, x)``, as SVG: colours over two axes."""
    # Pixels have their middle where the axis has its value.
    x_half, y_half = (np.diff(end).mean() / 2 for end in (x, y))
    across = _Axis(np.array([x[0] - x_half, x[-1] + x_half]), WIDTH - _RIGHT, _LEFT)
    up = _Axis(np.array([y[0] - y_half, y[-1] + y_half]), _TOP, HEIGHT - _BOTTOM)
    across.tighten()
    up.tighten()
    pixels = grid[:: 1 if y_half < 0 else -1, :: 1 if x_half >= 0 else -1]
    picture = base64.b64encode(array_png(pixels)).decode()
    image = (
        f'<image x="{_LEFT}" y="{_TOP}" width="{WIDTH - _LEFT - _RIGHT}" '
        f'height="{HEIGHT - _TOP - _BOTTOM}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{picture}"/>'
    )
    finite = grid[np.isfinite(grid)]
    span = f", {finite.min():.4g} to {finite.max():.4g}" if finite.size else ""
    inside = image + _ticks(across, up, lines=False)
    return _drawing(inside, f"{title}{span}", *labels)


def _drawing(inside: str, title: str, x_label: str, y_label: str = "") -> str:
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    half = (_TOP + HEIGHT - _BOTTOM) / 2
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"{inside}"
        f'<text class="title" x="{_LEFT}" y="15">{_cut(title)}</text>'
        f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{_cut(x_label)}'
        f'</text><text transform="translate(12 {half}) rotate(-90)" '
        f'text-anchor="middle">{_cut(y_label)}</text></svg>'
    )


def _cut(text: str, most: int = 56) -> str:
    # Control characters are not allowed in XML, in no form.
    text = "".join(c if c.isprintable() else "�" for c in text)
    return escape(text if len(text) <= most else f"{text[: most - 1]}…")


def _thinned(y: Floats, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    if rows.size <= 4 * _GROUPS:
        return rows
    kept: list[int] = [int(rows[0])]
    for group in np.array_split(rows, _GROUPS):
        ends = (int(group[y[group].argmin()]), int(group[y[group].argmax()]))
        kept += sorted(set(ends))
    return np.array([*kept, int(rows[-1])], np.intp)


def _points(left: Floats, top: Floats) -> str:
    return " ".join(f"{x},{y}" for x, y in zip(left, top, strict=True))


def _ticks(across: _Axis, up: _Axis, *, lines: bool = True) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts: list[str] = []
    for value, place in across.ticks():
        parts.append(
            f'<path class="grid" d="M{place} {bottom}V{_TOP if lines else bottom}"/>'
            f'<text x="{place}" y="{bottom + 14}" text-anchor="middle">{value}</text>'
        )
    for value, place in up.ticks():
        parts.append(
            f'<path class="grid" d="M{_LEFT} {place}H{right if lines else _LEFT}"/>'
            f'<text x="{_LEFT - 5}" y="{place + 4}" text-anchor="end">{value}</text>'
        )
    frame = f'<path class="edge" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>'
    return "".join(parts) + frame


class _Axis:
    """One direction of a drawing: from values to pixels, and its round numbers."""

    def __init__(self, values: Floats, end: int, begin: int) -> None:
        self.low, self.high = float(values.min()), float(values.max())
        if not math.isfinite(self.high - self.low):
            self.low, self.high = self.low / 4, self.high / 4
        self._begin, self._end = begin, end
        span = self.high - self.low
        size = max(abs(self.low), abs(self.high))
        # One value alone, or several that pixels cannot tell apart.
        alone = size if size > _TINY else 1.0
        pad = 0.04 * span if span > max(size * 1e-12, _TINY) else alone
        self._pad = pad
        self.low, self.high = self.low - pad, self.high + pad

    def tighten(self) -> None:
        """Leave no room beyond the outermost values."""
        self.low, self.high = self.low + self._pad, self.high - self._pad

    def places(self, values: Floats) -> Floats:
        """Return pixels, one decimal."""
        share = (values - self.low) / (self.high - self.low)
        return np.round(self._begin + share * (self._end - self._begin), 1)

    def ticks(self) -> list[tuple[str, float]]:
        """Return round numbers with their pixels."""
        span = self.high - self.low
        raw = span / 7
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * f for f in (1, 2, 5, 10) if unit * f >= raw * 0.999)
        first = math.ceil(self.low / step)
        numbers = [n * step for n in range(first, first + 12) if n * step <= self.high]
        texts = [_number(0.0 if abs(n) < step / 2 else n, step) for n in numbers]
        places = self.places(np.array(numbers, np.float64)).tolist()
        return list(zip(texts, places, strict=True))


def _number(value: float, step: float) -> str:
    """Return a number with the digits that tell it from one a step away."""
    size = abs(value)
    if not size:
        return "0"
    if 1e-4 <= size < 1e6 and step >= 1e-6:
        return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
    digits = max(0, math.floor(math.log10(size)) - math.floor(math.log10(step) + 1e-9))
    mantissa, _, exponent = f"{value:.{min(digits, 15)}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
