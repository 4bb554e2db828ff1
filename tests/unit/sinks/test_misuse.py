"""What is said to whoever hands a sink the wrong thing: what, where, next step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import SinkWriteError
from bluesky_beamtime.sinks import (
    CsvSink,
    DaqBlock,
    DaqReading,
    InMemorySink,
    JsonlSink,
    ParquetSink,
    PostgresConfig,
    PostgresSink,
    RawCountsSink,
    SinkSubscriber,
    SqliteSink,
    pipe,
    pipe_blocks,
)

READING = DaqReading(device="d", values={"a": 1})
BLOCK = DaqBlock(device="d", channels=("a",), data=np.ones((1, 2)))
FILES = [CsvSink, JsonlSink, ParquetSink, SqliteSink]


def make(kind: Any, path: Path) -> Any:
    if kind is InMemorySink:
        return kind()
    if kind is PostgresSink:
        return kind(PostgresConfig(host="127.0.0.1"))
    options = {"accept_blocks": True} if kind in (CsvSink, JsonlSink) else {}
    return kind(path / "x", **options)


@pytest.mark.parametrize("kind", [*FILES, InMemorySink, PostgresSink])
async def test_D_01_what_is_no_reading_is_refused_by_its_name(
    kind: Any, tmp_path: Path
) -> None:
    """D-01, D-05: one reading, a block, a mapping; nothing is written, nor opened."""
    sink = make(kind, tmp_path)
    name = kind.__name__
    with pytest.raises(TypeError, match=rf"{name}.*write_many\(\[reading\]\)"):
        await sink.write_many(READING)
    with pytest.raises(TypeError, match=rf"{name}.*write\(block\)"):
        await sink.write_many(BLOCK)
    with pytest.raises(TypeError, match=rf"{name}.*not dict.*DaqReading\(device="):
        await sink.write_many([READING, {"a": 1}])
    with pytest.raises(TypeError, match=rf"{name}.write takes a DaqBlock"):
        await sink.write(READING)
    assert list(tmp_path.iterdir()) == []


async def test_D_01_what_is_no_block_has_no_raw_codes(tmp_path: Path) -> None:
    """D-01, D-71: in both ways in."""
    sink = RawCountsSink(tmp_path / "x")
    with pytest.raises(TypeError, match="write_raw takes a DaqBlock"):
        await sink.write_raw(READING)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="write_raw_nowait takes a DaqBlock"):
        sink.write_raw_nowait(READING)  # type: ignore[arg-type]
    for value in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError), match=r"file_metadata.*JSON"):
            RawCountsSink(tmp_path / "x", file_metadata={"a": value})


@pytest.mark.parametrize("kind", [*FILES, InMemorySink, PostgresSink, RawCountsSink])
def test_D_02_with_alone_says_async_with(kind: Any, tmp_path: Path) -> None:
    """D-02: and where it can be written."""
    match = rf"async with {kind.__name__}.*asyncio.run"
    with pytest.raises(TypeError, match=match), make(kind, tmp_path):
        pass


@pytest.mark.parametrize("kind", [*FILES, RawCountsSink])
@pytest.mark.parametrize("options", [{}, {"append": True}, {"overwrite": True}])
async def test_D_22_a_folder_is_no_file(
    kind: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    """D-22: append=True and overwrite=True would not help."""
    with pytest.raises(SinkWriteError, match="is a folder; give") as caught:
        await kind(tmp_path, **options).open()
    assert "error.records" not in str(caught.value)
    assert "append" not in str(caught.value)


async def test_D_22_what_cannot_be_opened_speaks_of_no_records(tmp_path: Path) -> None:
    """D-22: there are none yet."""
    (tmp_path / "file").write_text("")
    for kind in FILES:
        with pytest.raises(SinkWriteError, match="then try again") as caught:
            await kind(tmp_path / "file" / "x").open()
        assert "error.records" not in str(caught.value)


async def test_D_14_D_21_pipes_take_sinks_of_what_they_carry(tmp_path: Path) -> None:
    """D-14, D-21: not the stream, not a class, not a sink of raw codes."""
    raw: Any = RawCountsSink(tmp_path / "x")
    for sink, match in (
        ([READING], "pipe.*not list"),
        (raw, "pipe.*not RawCountsSink"),
        (CsvSink, r"pipe.*CsvSink\(…\)"),
    ):
        with pytest.raises(TypeError, match=match):
            await pipe([READING], sink)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=match):
            await pipe_blocks([BLOCK], sink)  # type: ignore[arg-type]


def test_D_01_a_subscriber_that_would_do_nothing_is_refused(tmp_path: Path) -> None:
    """D-01: a path, a class, a sink of raw codes."""
    wrong: list[Any] = [RawCountsSink(tmp_path / "x"), tmp_path / "x.csv", CsvSink]
    for sink in wrong:
        with pytest.raises(TypeError, match="SinkSubscriber takes a sink"):
            SinkSubscriber(sink)
