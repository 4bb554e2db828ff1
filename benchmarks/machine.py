"""What a figure was measured on: the kind of machine, never its name."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "bluesky-beamtime",
    "numpy",
    "zarr",
    "h5py",
    "tensorstore",
    "acquire-zarr",
    "bluesky",
    "ophyd-async",
    "tiled",
)


def describe() -> dict[str, Any]:
    """Return the date, the cores, the versions and how busy the machine is now."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(_memory() / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "versions": versions,
        "load_before": round(os.getloadavg()[0], 1),
    }


def finished(machine: dict[str, Any]) -> dict[str, Any]:
    """Return the description with the load at the end, which includes our own."""
    return {**machine, "load_after": round(os.getloadavg()[0], 1)}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
