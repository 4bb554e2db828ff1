"""What importing costs, and what it must not bring along."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each of them costs 0.1 to 1 s, or may not be installed.
HEAVY = (
    *("xarray", "dask", "matplotlib", "zarr", "h5py", "p4p", "pandas", "IPython"),
    *("qtpy", "PySide6", "PyQt5", "PyQt6"),
)
FRAMEWORK = ("bluesky", "ophyd_async", "event_model")

LIGHT_MODULES = {
    "bluesky_beamtime": (*HEAVY, *FRAMEWORK, "sqlalchemy", "rich"),
    "bluesky_beamtime.cli": (*HEAVY, *FRAMEWORK, "sqlalchemy", "numpy"),
    "bluesky_beamtime.storage": (*HEAVY, *FRAMEWORK),
    "bluesky_beamtime.sinks": (*HEAVY, *FRAMEWORK, "pyarrow", "asyncpg", "sqlalchemy"),
    "bluesky_beamtime.database": (*HEAVY, *FRAMEWORK),
    "bluesky_beamtime.recording": (*HEAVY, *FRAMEWORK),
    "bluesky_beamtime.beamtime": (*HEAVY, *FRAMEWORK),
    "bluesky_beamtime.exports": (*HEAVY, *FRAMEWORK),
    "bluesky_beamtime.devices": HEAVY,
    "bluesky_beamtime.plans": HEAVY,
    "bluesky_beamtime.demo": HEAVY,
    "bluesky_beamtime.doctor": (*HEAVY, *FRAMEWORK),
}


def run(script: str) -> str:
    # A traceback is worth more than the exit status.
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_import_is_free_of_warnings_and_of_heavy_packages(module: str) -> None:
    loaded = run(f"import sys, {module}; print(*sys.modules)").split()
    assert [name for name in LIGHT_MODULES[module] if name in loaded] == []


def test_the_heavy_packages_have_these_names() -> None:
    """Keeps the test above able to fail."""
    loaded = run(
        "import sys, xarray, dask.array, zarr, bluesky, ophyd_async.core, event_model,"
        " sqlalchemy, rich; print(*sys.modules)"
    ).split()
    assert {"xarray", "dask", "zarr", "pandas", *FRAMEWORK} <= set(loaded)


def test_public_names_are_there() -> None:
    import bluesky_beamtime

    for name in ("Beamtime", "Run", "Stream", "BeamtimeError", "__version__"):
        assert name in dir(bluesky_beamtime)
        assert getattr(bluesky_beamtime, name) is not None
    with pytest.raises(AttributeError, match="Beamtim"):
        bluesky_beamtime.Beamtim  # noqa: B018  asking for it is the test
