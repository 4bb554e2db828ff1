"""What ``flush`` and ``close`` bring to the device, so that a power cut leaves it.

Not the cut itself: which files the operating system was asked to write out, and that
each was asked for after its last byte.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.sinks import (
    CsvSink,
    DaqBlock,
    DaqReading,
    JsonlSink,
    ParquetSink,
    RawCountsSink,
    SqliteSink,
)

CODES = np.ones((1, 3), "i2")
BLOCK = DaqBlock(device="d", channels=("a",), data=CODES, raw_codes=CODES)
FILES = [CsvSink, JsonlSink, ParquetSink, RawCountsSink]
Synced = Callable[[], dict[Path, int]]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    """Give which files were written out, and how large each was then."""
    files: dict[Path, int] = {}
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        files[name] = os.fstat(descriptor).st_size

    monkeypatch.setattr(os, "fsync", note)
    return lambda: files


async def write(sink: Any, number: int) -> None:
    if isinstance(sink, RawCountsSink):
        await sink.write_raw(BLOCK)
    else:
        await sink.write_many([DaqReading(device="d", values={"n": number})])


@pytest.mark.parametrize("kind", FILES)
async def test_D_28_D_77_flush_writes_out_the_file_and_its_name(
    kind: Any, tmp_path: Path, synced: Synced
) -> None:
    """D-28, D-36, D-77: after the last byte, and the folder that knows the name."""
    async with kind(tmp_path / "x") as sink:
        for number in range(3):
            await write(sink, number)
            await sink.flush()
            paths = sink.parts if kind is ParquetSink else [sink.path]
            assert paths
            for path in paths:
                assert synced()[path] == path.stat().st_size
            assert tmp_path in synced()


@pytest.mark.parametrize("kind", FILES)
async def test_D_28_D_41_close_writes_out_the_file_and_its_name(
    kind: Any, tmp_path: Path, synced: Synced
) -> None:
    """D-28, D-41, D-77: without a flush before; for Parquet before its parts go."""
    async with kind(tmp_path / "x") as sink:
        await write(sink, 1)
    sizes = {path.name: size for path, size in synced().items()}
    # A Parquet file is written out under the name that it has before it is finished.
    assert (tmp_path / "x").stat().st_size in sizes.values()
    assert tmp_path in synced()


async def test_D_43_a_wider_copy_is_written_out_before_it_takes_its_place(
    tmp_path: Path, synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-43: else a power cut could leave an empty file where rows were."""
    replace = Path.replace
    seen: list[int] = []

    def check(self: Path, target: Path) -> Path:
        seen.append(self.stat().st_size)
        assert synced()[self] == seen[-1]
        return replace(self, target)

    async with CsvSink(tmp_path / "x.csv") as sink:
        await write(sink, 1)
        monkeypatch.setattr(Path, "replace", check)
        await sink.write_many([DaqReading(device="d", values={"n": 2, "new": 3})])
    assert len(seen) == 1


async def test_D_45_flush_of_sqlite_beside_a_reader_writes_out_its_log(
    tmp_path: Path, synced: Synced
) -> None:
    """D-45: who reads what is older keeps the log from being put into the file."""
    path = tmp_path / "x.db"
    async with SqliteSink(path, busy_timeout_ms=0) as sink:
        await write(sink, 1)
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM readings").fetchone() == (1,)
            await write(sink, 2)
            await sink.flush()
            log = Path(f"{path}-wal")
            assert synced()[log] == log.stat().st_size
        await write(sink, 3)
        await sink.flush()
        # With nobody in the way all of it is in the file itself.
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as alone:
            assert alone.execute("SELECT count(*) FROM readings").fetchone() == (3,)
