"""What the tests of HDF5 files share."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.storage import (
    FrameSink,
    HDF5Writer,
    clear_metadata,
    get_available_writers,
)

Frames = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def clean_registries() -> Iterator[None]:
    """Leave no writer and no staged metadata to the next test."""
    clear_metadata()
    yield
    for by_name in get_available_writers().values():
        for name, writer in by_name.items():
            writer.abort()
            type(writer).release(name)
    clear_metadata()


@pytest.fixture
def frames() -> Callable[..., Frames]:
    """Return random frames of a dtype, the same at every run."""

    def make(
        count: int, shape: tuple[int, ...] = (4, 6), dtype: Any = "<u2", seed: int = 0
    ) -> Frames:
        dtype = np.dtype(dtype)
        rng = np.random.default_rng(seed)
        data = rng.bytes(count * int(np.prod(shape)) * dtype.itemsize)
        if dtype.kind == "b":
            return np.frombuffer(data, "u1").reshape(count, *shape) > 127
        if dtype.kind in "fc":
            numbers = rng.normal(size=(2, count, *shape))
            return (numbers[0] + (1j * numbers[1] if dtype.kind == "c" else 0)).astype(
                dtype
            )
        return np.frombuffer(data, dtype).reshape(count, *shape)

    return make


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., tuple[HDF5Writer, list[FrameSink]]]:
    """Start an acquisition of a new HDF5Writer with sources of the given names."""
    count = 0

    def start(
        *names: str,
        dtype: Any = "<u2",
        shape: tuple[int, ...] = (4, 6),
        folder: str | Path = "store",
        source: dict[str, Any] | None = None,
        **options: Any,
    ) -> tuple[HDF5Writer, list[FrameSink]]:
        nonlocal count
        count += 1
        writer = HDF5Writer.get(f"writer {count}", **options)
        writer.set_uri(str(tmp_path / folder))
        sinks = [writer.prepare(n, n, dtype, shape, **(source or {})) for n in names]
        writer.kickoff()
        return writer, sinks

    return start


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], Path]]:
    """Mount small disks in memory; skips where that is not allowed."""
    mounted: list[str] = []

    def mount(kibibytes: int) -> Path:
        folder = tempfile.mkdtemp(prefix="small-disk-")
        if shutil.which("mount") is None or os.geteuid() != 0:
            os.rmdir(folder)
            pytest.skip("mounting a small disk needs root and mount(8)")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", folder],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            os.rmdir(folder)
            pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
        mounted.append(folder)
        return Path(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)
        os.rmdir(folder)
