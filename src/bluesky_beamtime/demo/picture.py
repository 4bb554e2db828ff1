"""One PNG of what the three scans of the tour saw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bluesky_beamtime.errors import MissingExtraError

if TYPE_CHECKING:
    from bluesky_beamtime.database import Run


def draw_picture(path: Path, step: Run, grid: Run, fly: Run) -> None:
    """Draw the rings, and what each scan measured, from what was recorded.

    Parameters
    ----------
    path
        The PNG to write.
    step, grid, fly
        The runs of the tour.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing a picture", "matplotlib", "plot") from error

    figure: Any = Figure(figsize=(10.4, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic([["cam1", "cam2", "grid"], ["step", "step", "fly"]])
    _rings(figure, panels["cam1"], step, "cam1")
    _rings(figure, panels["cam2"], step, "cam2")
    _step(panels["step"], step)
    _grid(figure, panels["grid"], grid)
    _fly(panels["fly"], fly)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _brightest(run: Run) -> int:
    return int(np.argmax(run.primary.read(["diode"])["diode"].values))


def _rings(figure: Any, axes: Any, run: Run, camera: str) -> None:
    from matplotlib.colors import LogNorm

    index = _brightest(run)
    frame = run.primary.read([camera])[camera][index].values
    image = axes.imshow(frame, norm=LogNorm(1, frame.max()), cmap="magma")
    # A pixel without a photon has no logarithm.
    image.set_cmap(image.cmap.with_extremes(bad=image.cmap(0.0)))
    height, width = frame.shape
    axes.set_title(f"{camera}: frame {index} of scan {run.scan_id}", fontsize=10)
    axes.set_xlabel(f"{width} × {height} pixels")
    axes.set_xticks([])
    axes.set_yticks([])
    figure.colorbar(image, ax=axes, shrink=0.85, label="photons")


def _step(axes: Any, run: Run) -> None:
    data = run.primary.read()
    x = data["x"].values
    for name, label in (("diode", "diode"), ("cam1", "cam1, all pixels")):
        values = data[name]
        total = values if values.ndim == 1 else values.sum(values.dims[1:])
        total = np.asarray(total.values, float)
        axes.plot(x, total / total.max(), "o-", ms=4, label=label)
    axes.set_title(f"scan {run.scan_id}: {run.plan_name}", fontsize=10)
    axes.set_xlabel("x (mm)")
    axes.set_ylabel("photons, of the largest")
    axes.set_ylim(0, 1.05)
    axes.legend(frameon=False, loc="upper left")


def _grid(figure: Any, axes: Any, run: Run) -> None:
    data = run.primary.read(["x", "y", "diode"])
    rows, columns = run.start["shape"]
    x, y, counts = (
        np.asarray(data[k].values).reshape(rows, columns) for k in ("x", "y", "diode")
    )
    mesh = axes.pcolormesh(x, y, counts, shading="nearest", cmap="viridis")
    axes.set_title(f"scan {run.scan_id}: {run.plan_name}", fontsize=10)
    axes.set_xlabel("x (mm)")
    axes.set_ylabel("y (mm)")
    figure.colorbar(mesh, ax=axes, shrink=0.85, label="diode, photons")


def _fly(axes: Any, run: Run) -> None:
    """Draw each frame where the motor last said it was, by the times of both."""
    data = run.primary.read()
    moving = run["x_monitor"].read()
    for camera in ("cam1", "cam2"):
        frames = data[camera]
        total = np.asarray(frames.sum(frames.dims[1:]).values, float)
        times = data[f"{camera}_time"].values
        last = np.searchsorted(moving["time"].values, times, side="right") - 1
        at = moving["x"].values[last.clip(0)]
        axes.plot(at, total / total.max(), ".", ms=3, label=camera)
    axes.set_title(f"scan {run.scan_id}: {run.plan_name}", fontsize=10)
    axes.set_xlabel("x (mm), on the fly")
    axes.set_ylim(0, 1.05)
    axes.legend(frameon=False, loc="lower center")
