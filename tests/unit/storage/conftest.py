"""What the tests of the frame store share."""

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
    Writer,
    ZarrWriter,
    clear_metadata,
    get_available_writers,
)


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
def frames() -> Callable[..., np.ndarray[Any, Any]]:
    """Return random frames of a dtype, the same at every run."""

    def make(
        count: int,
        shape: tuple[int, ...] = (4, 6),
        dtype: Any = "<u2",
        seed: int = 0,
    ) -> np.ndarray[Any, Any]:
        dtype = np.dtype(dtype)
        rng = np.random.default_rng(seed)
        if dtype.kind == "b":
            return rng.integers(0, 2, (count, *shape)).astype(dtype)
        if dtype.kind == "c":
            values = rng.normal(size=(2, count, *shape))
            return (values[0] + 1j * values[1]).astype(dtype)
        if dtype.kind == "f":
            return rng.normal(size=(count, *shape)).astype(dtype)
        info = np.iinfo(dtype)
        return rng.integers(
            info.min, info.max, (count, *shape), dtype.newbyteorder("="), endpoint=True
        ).astype(dtype)

    return make


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., tuple[Writer, list[FrameSink]]]:
    """Start an acquisition of a new ZarrWriter with sources of the given names."""
    count = 0

    def start(
        *names: str,
        dtype: Any = "<u2",
        shape: tuple[int, ...] = (4, 6),
        folder: str | Path = "store",
        writer: Writer | None = None,
        **options: Any,
    ) -> tuple[Writer, list[FrameSink]]:
        nonlocal count
        count += 1
        writer = writer or ZarrWriter.get(f"writer {count}", **options)
        writer.set_uri(str(tmp_path / folder))
        sinks = [writer.prepare(name, name, dtype, shape) for name in names]
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
