"""Drawings of numbers: valid, light, and with round numbers at their axes."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from bluesky_beamtime.pages.curves import draw_curve, draw_map, standing_alone

SVG = "{http://www.w3.org/2000/svg}"


def parsed(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(standing_alone(drawing))


def texts(drawing: str) -> list[str]:
    return [each.text or "" for each in parsed(drawing).iter(f"{SVG}text")]


def test_points_are_where_their_values_are() -> None:
    x, y = np.array([0.0, 1.0, 2.0]), np.array([10.0, 30.0, 20.0])
    root = parsed(draw_curve(x, y, "x (mm)", "diode (counts)"))
    (line,) = root.iter(f"{SVG}polyline")
    points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0])
    # Down is up in SVG.
    height = points[0][1] - points[1][1]
    assert points[0][1] - points[2][1] == pytest.approx(height / 2, abs=0.1)
    assert len(list(root.iter(f"{SVG}circle"))) == 3


def test_labels_are_escaped_and_cut() -> None:
    values = np.arange(3.0)
    drawing = draw_curve(values, values, "</svg><script>", "y" * 500 + "\0\x1b")
    assert "<script" not in drawing
    found = texts(drawing)
    assert "</svg><script>" in found
    assert max(map(len, found)) < 60


@pytest.mark.parametrize(
    "values",
    [
        [np.nan, np.nan],
        [np.nan, 1.0, np.inf, 2.0, -np.inf],
        [7.0, 7.0, 7.0],
        [0.0, 0.0],
        [1e308, -1e308],
        [5e-324, 0.0],
        [1e16, 1e16 + 2],
        [3.0],
        [],
        [-1.5e9, 2.5e9],
    ],
    ids=str,
)
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    y = np.array(values, np.float64)
    for x in (np.arange(y.size, dtype=np.float64), y):
        drawing = draw_curve(x, y, "x", "y")
        parsed(drawing)
        assert not re.search(r"\b(nan|inf)\b", drawing)


def test_gaps_stay_gaps() -> None:
    y = np.array([1.0, 2.0, np.nan, 3.0, 4.0])
    root = parsed(draw_curve(np.arange(5.0), y, "x", "y"))
    assert len(list(root.iter(f"{SVG}polyline"))) == 2


def test_a_million_points_are_light_and_keep_their_peak() -> None:
    y = np.zeros(1_000_000)
    y[123_456] = 1.0
    drawing = draw_curve(np.arange(y.size, dtype=np.float64), y, "x", "y")
    assert len(drawing) < 40_000
    (line,) = parsed(drawing).iter(f"{SVG}polyline")
    tops = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert min(tops) < max(tops) - 100


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 5017, {"0", "1000", "5000"}),
        (-3, 3, {"-3", "0", "2"}),
        (0, 1, {"0", "0.2", "1.0"}),
        (1e-9, 5e-9, {"1e-9", "5e-9"}),
        (1700000000, 1700000100, {"1.70000002e9", "1.70000010e9"}),
    ],
)
def test_numbers_at_the_axes_are_round(
    low: float, high: float, expected: set[str]
) -> None:
    y = np.linspace(low, high, 11)
    found = texts(draw_curve(np.arange(11.0), y, "x", "y"))
    assert expected <= set(found), found


def test_map_has_its_axes_and_its_range() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    drawing = draw_map(
        grid, np.arange(4.0), np.arange(3.0), ("x (mm)", "y (mm)"), "diode"
    )
    assert {"x (mm)", "y (mm)", "diode, 0 to 11"} <= set(texts(drawing))
    assert "data:image/png;base64," in drawing


def test_alone_a_drawing_has_its_style() -> None:
    drawing = draw_curve(np.arange(3.0), np.arange(3.0), "x", "y")
    assert "<style>" not in drawing
    assert "prefers-color-scheme:dark" in standing_alone(drawing)
