"""From rows to grids."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bluesky_beamtime.database.grids import to_grid
from bluesky_beamtime.errors import DocumentError


def scan(
    shape: tuple[int, ...], snaking: tuple[bool, ...], count: int | None = None
) -> tuple[dict[str, Any], xr.Dataset]:
    """Return the start and data of a scan as bluesky's own cyclers would run it."""
    from bluesky.utils import snake_cyclers
    from cycler import cycler

    names = [f"m{number}" for number in range(len(shape))]
    axes = [np.linspace(10 * n, 10 * n + 1, size) for n, size in enumerate(shape)]
    cyclers = [cycler(name, axis) for name, axis in zip(names, axes, strict=True)]
    points = list(snake_cyclers(cyclers, snaking))[:count]
    data = {name: ("time", [point[name] for point in points]) for name in names}
    # A value that says where it belongs, and a frame that does.
    value = [
        sum(point[name] * 100**n for n, name in enumerate(names)) for point in points
    ]
    data["det"] = ("time", value)
    data["number"] = ("time", np.arange(len(points), dtype=np.int64))
    data["cam"] = (("time", "y"), np.stack([value, value], axis=1))
    dataset = xr.Dataset(
        data,
        {
            "time": ("time", 1000.0 + np.arange(len(points)), {"units": "s"}),
            "seq_num": ("time", 1 + np.arange(len(points))),
        },
        {"uid": "u"},
    )
    start = {
        "uid": "u",
        "shape": list(shape),
        "extents": [[axis[0], axis[-1]] for axis in axes],
        "snaking": list(snaking),
        "hints": {"dimensions": [[[name], "primary"] for name in names]},
    }
    return start, dataset


CASES = [
    (shape, snaking)
    for shape in [(4,), (2, 3), (3, 4, 2)]
    for snaking in itertools.product([False, True], repeat=len(shape))
    if not snaking[0]
]


@pytest.mark.parametrize(("shape", "snaking"), CASES)
def test_every_point_is_where_it_was_measured(
    shape: tuple[int, ...], snaking: tuple[bool, ...]
) -> None:
    start, dataset = scan(shape, snaking)
    grid = to_grid(start, "primary", dataset)
    names = [f"m{number}" for number in range(len(shape))]
    assert grid["det"].dims == tuple(names)
    assert grid["det"].shape == shape
    total: Any = 0
    for number, name in enumerate(names):
        np.testing.assert_allclose(
            grid[name], np.linspace(10 * number, 10 * number + 1, shape[number])
        )
        np.testing.assert_allclose(
            grid[f"{name}_readback"],
            xr.broadcast(grid[name], grid["det"])[0].transpose(*names),
        )
        total = total + grid[name] * 100**number
    np.testing.assert_allclose(grid["det"], total.transpose(*names))
    np.testing.assert_allclose(grid["cam"][..., 1], grid["det"])
    assert grid["number"].dtype == np.int64
    np.testing.assert_array_equal(grid["seq_num"], grid["number"] + 1)
    np.testing.assert_array_equal(grid["time"], grid["number"] + 1000.0)
    assert grid["time"].attrs == {"units": "s"}
    assert grid.attrs == {"uid": "u"}


@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_missing_is_nan(lazy: bool) -> None:
    start, dataset = scan((3, 4), (False, True), count=6)
    if lazy:
        dataset = dataset.chunk({"time": 2})
    grid = to_grid(start, "primary", dataset)
    # The second row runs backwards and was cut off after two points.
    assert np.isfinite(grid["det"]).values.tolist() == [
        [True] * 4,
        [False, False, True, True],
        [False] * 4,
    ]
    assert np.isfinite(grid["cam"]).sum() == 12
    assert grid["seq_num"].values.tolist() == [[1, 2, 3, 4], [0, 0, 6, 5], [0] * 4]
    np.testing.assert_allclose(grid["m0"], [0.0, 0.5, 1.0])
    np.testing.assert_allclose(grid["m1"], np.linspace(10, 11, 4))
    assert (type(grid["cam"].data).__module__.startswith("dask")) is lazy


def test_a_relative_scan_has_absolute_axes() -> None:
    start, dataset = scan((3, 2), (False, False), count=4)
    start["extents"] = [[-0.5, 0.5], [-5.0, -4.0]]
    grid = to_grid(start, "primary", dataset)
    np.testing.assert_allclose(grid["m0"], [0.0, 0.5, 1.0])
    np.testing.assert_allclose(grid["m1"], [10.0, 11.0])


@pytest.mark.parametrize(
    ("said", "snaking"),
    [
        ({"snake_axes": "True"}, (False, True)),
        ({"snake_axes": True}, (False, True)),
        ({"snake_axes": "False"}, (False, False)),
        ({"snake_axes": "['m1']"}, (False, True)),
        ({"snake_axes": '[Motor(name="m1")]'}, (False, True)),
        ({"snake_axes": "['m10']"}, (False, False)),
        ({}, (False, False)),
    ],
)
def test_snaking_can_be_said_in_several_ways(
    said: dict[str, Any], snaking: tuple[bool, bool]
) -> None:
    start, dataset = scan((3, 3), snaking)
    del start["snaking"]
    start |= said
    grid = to_grid(start, "primary", dataset)
    np.testing.assert_allclose(grid["det"], grid["m0"] + grid["m1"] * 100)


def test_list_grid_says_its_snaking_inside_the_pattern() -> None:
    start, dataset = scan((3, 3), (False, True))
    del start["snaking"]
    start["plan_pattern_args"] = {"args": [], "snake_axes": "True"}
    grid = to_grid(start, "primary", dataset)
    np.testing.assert_allclose(grid["det"], grid["m0"] + grid["m1"] * 100)


def test_without_hints_the_motors_name_the_axes() -> None:
    start, dataset = scan((2, 3), (False, False))
    del start["hints"]
    start["motors"] = ["m0", "m1"]
    assert to_grid(start, "primary", dataset)["det"].dims == ("m0", "m1")
    del start["motors"]
    assert to_grid(start, "primary", dataset)["det"].dims == ("axis_0", "axis_1")


def test_several_motors_on_one_axis() -> None:
    start, dataset = scan((3, 2), (False, False))
    start["hints"]["dimensions"] = [[["m0", "number"], "primary"], [["m1"], "primary"]]
    grid = to_grid(start, "primary", dataset)
    assert grid["number"].dims == ("m0",)
    assert grid["number"].values.tolist() == [0.5, 2.5, 4.5]


def test_the_plan_says_where_its_axes_run_and_not_what_else_moves() -> None:
    start, dataset = scan((4,), (False,), 2)
    dataset["follower"] = ("time", [70.0, 71.0])
    start["hints"] = {"dimensions": [[["m0", "follower"], "primary"]]}
    grid = to_grid(start, "primary", dataset)
    np.testing.assert_allclose(grid["m0"], np.linspace(0, 1, 4))
    np.testing.assert_array_equal(grid["follower"], [70, 71, np.nan, np.nan])


def test_more_events_than_points_belong_to_none() -> None:
    """As of a plan that reads twice at each point."""
    start, dataset = scan((2, 3), (False, False))
    start["shape"] = [1, 3]
    with pytest.raises(DocumentError, match=r"6 events for the 3 points.*read\(\)"):
        to_grid(start, "primary", dataset)


def spiral(
    shape: tuple[int, int], begin: tuple[float, float] = (0.0, 0.0)
) -> tuple[dict[str, Any], xr.Dataset]:
    """Return the start and data of a square spiral of bluesky, perhaps relative."""
    from bluesky.plan_patterns import spiral_square_pattern

    (rows, columns), (y, x) = shape, begin
    steps = list(spiral_square_pattern("m1", "m0", 1, 2, 4, 3, columns, rows))
    random = np.random.default_rng(1).uniform(-0.05, 0.05, (2, len(steps)))
    m0 = np.array([step["m0"] for step in steps]) + y
    m1 = np.array([step["m1"] for step in steps]) + x
    dataset = xr.Dataset(
        {
            "m0": ("time", m0 + random[0] * 3 / max(rows - 1, 1)),
            "m1": ("time", m1 + random[1] * 4 / max(columns - 1, 1)),
            "det": ("time", 100 * m0 + m1),
        },
        {
            "time": ("time", 1000.0 + np.arange(len(steps))),
            "seq_num": ("time", 1 + np.arange(len(steps))),
        },
    )
    start = {
        "shape": list(shape),
        "extents": [[0.5, 3.5], [-1, 3]],
        "hints": {
            "dimensions": [[["m0"], "primary"], [["m1"], "primary"]],
            "gridding": "rectilinear_nonsequential",
        },
    }
    return start, dataset


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (3, 5), (6, 3), (4, 5)])
@pytest.mark.parametrize("begin", [(0.0, 0.0), (7.3, -9.8), (0.4, 80.0)])
def test_what_does_not_run_row_by_row_is_where_its_motors_were(
    shape: tuple[int, int], begin: tuple[float, float]
) -> None:
    """Of a relative scan too, whose extents are not where it was."""
    start, dataset = spiral(shape, begin)
    grid = to_grid(start, "primary", dataset)
    assert grid["measured"].all() and grid["det"].shape == shape
    y = np.linspace(0.5, 3.5, shape[0])[:, np.newaxis] + begin[0]
    x = np.linspace(-1, 3, shape[1]) + begin[1]
    np.testing.assert_allclose(grid["det"], 100 * y + x)
    assert np.unique(grid["seq_num"]).size == grid["seq_num"].size


def test_part_of_a_spiral_is_a_part_of_its_grid() -> None:
    start, dataset = spiral((3, 5))
    grid = to_grid(start, "primary", dataset.isel(time=slice(0, 4)))
    assert int(grid["measured"].sum()) == 4 and bool(grid["measured"][1, 2])
    np.testing.assert_allclose(grid["m0"], [0.5, 2, 3.5], atol=0.1)
    np.testing.assert_allclose(grid["m1"], [-1, 0, 1, 2, 3], atol=0.1)
    none = to_grid(start, "primary", dataset.isel(time=slice(0, 0)))
    assert not none["measured"].any()


def change(start: Any, dataset: Any, **said: Any) -> tuple[Any, Any]:
    return {**start, **said}, dataset


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda s, d: change(s, d, extents=None), "no 'extents'"),
        (lambda s, d: change(s, d, extents=[[0.5, 3.5], None]), "axis 1 was"),
        (lambda s, d: (s, d.drop_vars("m1")), "axis 1 was"),
        (lambda s, d: change(s, d, extents=[[0.5, 3.5], [-1, 2.5]]), "axis 1 are not"),
        (lambda s, d: (s, d.assign(m0=d["m0"] * 2)), "axis 0 are not"),
        (lambda s, d: (s, d.assign(m0=d["m0"].where(d["seq_num"] > 1))), "axis 0 was"),
        (lambda s, d: (s, d.isel(time=[0, 1, 1])), "events 2 and 3 are at the same"),
        # Begun elsewhere, and ended before it was at all points.
        (lambda s, d: (s, d.isel(time=[0, 1]) + 10), "axis 0 were visited is not"),
    ],
)
def test_what_may_be_elsewhere_is_not_put_into_a_grid(spoil: Any, why: str) -> None:
    start, dataset = spoil(*spiral((3, 4)))
    with pytest.raises(DocumentError, match=rf"row by row.*{why}.*use read"):
        to_grid(start, "primary", dataset)


def test_what_is_no_grid_says_so() -> None:
    start, dataset = scan((2, 3), (False, False))
    with pytest.raises(DocumentError, match="'baseline' does not belong"):
        to_grid(start, "baseline", dataset)
    for shape in (None, "ab", [2, None], [0]):
        start["shape"] = shape
        with pytest.raises(DocumentError, match=r"no grid scan.*use read"):
            to_grid(start, "primary", dataset)


def test_an_empty_scan_is_an_empty_grid() -> None:
    start, dataset = scan((2, 3), (False, False), count=1)
    grid = to_grid(start, "primary", dataset.isel(time=slice(0, 0)))
    assert np.isnan(grid["det"]).all()
    np.testing.assert_allclose(grid["m1"], [10.0, 10.5, 11.0])


@pytest.mark.parametrize(("fill", "dtype"), [(-1, np.int64), (0.5, np.float64)])
def test_missing_points_hold_what_is_asked_for(fill: Any, dtype: Any) -> None:
    start, dataset = scan((3, 4), (False, True), count=5)
    grid = to_grid(start, "primary", dataset, fill=fill)
    assert grid["number"].dtype == dtype
    measured = grid["measured"].values
    assert int(measured.sum()) == 5
    assert set(grid["number"].values[~measured].tolist()) == {fill}
    assert sorted(grid["number"].values[measured].tolist()) == [0, 1, 2, 3, 4]
    assert np.isnan(grid["time"].values[~measured]).all()
    default = to_grid(start, "primary", dataset)
    np.testing.assert_array_equal(default["measured"], measured)
    assert np.isnan(default["number"].values[~measured]).all()


def test_nan_is_no_integer() -> None:
    start, dataset = scan((4,), (False,), count=2)
    grid = to_grid(start, "primary", dataset, fill=float("nan"))
    assert grid["number"].dtype == np.float64
    assert np.isnan(grid["number"].values[2:]).all()
