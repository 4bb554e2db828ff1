"""CSV and JSON lines, D-22 to D-31."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import SinkError, SinkSchemaError, SinkWriteError
from bluesky_beamtime.sinks import CsvSink, DaqBlock, DaqReading, JsonlSink

BLOCK = DaqBlock(device="d", channels=("a", "b"), data=np.ones((2, 3)))


def reading(number: int, **values: Any) -> DaqReading:
    return DaqReading(device="d", values={"n": number, **values}, t_mono_ns=number)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(params=[CsvSink, JsonlSink])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_D_23_blocks_are_refused_by_default(kind: Any, tmp_path: Path) -> None:
    """D-23, D-30: before anything else is looked at, and nothing is written."""
    sink = kind(tmp_path / "x")
    with pytest.raises(SinkError, match="accept_blocks=True") as caught:
        await sink.write(BLOCK)
    assert str(caught.value).startswith(f"{kind.__name__} refuses blocks by default")
    assert caught.value.records == [BLOCK]
    async with sink:
        with pytest.raises(SinkError, match="accept_blocks=True"):
            await sink.write(BLOCK)
    assert sink.path.read_bytes() == b""


async def test_D_24_blocks_that_are_accepted_are_a_row_per_sample(
    kind: Any, tmp_path: Path
) -> None:
    """D-24, D-31: channels times samples."""
    async with kind(tmp_path / "x", accept_blocks=True) as sink:
        await sink.write(BLOCK)
    lines = sink.path.read_text().splitlines()
    assert len(lines) == 6 + (kind is CsvSink)


async def test_D_26_columns_stay_aligned(tmp_path: Path) -> None:
    """D-26: whatever order and names later rows have."""
    async with CsvSink(tmp_path / "x.csv") as sink:
        await sink.write_many([reading(1, a=1, b=2)])
        await sink.write_many([DaqReading(device="d", values={"b": 4, "a": 3})])
        await sink.write_many([DaqReading(device="d", values={"c": 5})])
    found = [(row["a"], row["b"], row["c"]) for row in read_csv(sink.path)]
    assert found == [("1", "2", ""), ("3", "4", ""), ("", "", "5")]


async def test_D_27_opened_again_it_goes_on_under_one_header(tmp_path: Path) -> None:
    """D-27: nothing is cut off, no second header, no row without one."""
    sink = CsvSink(tmp_path / "x.csv")
    for number in range(3):
        async with sink:
            await sink.write_many([reading(number)])
    assert [row["n"] for row in read_csv(sink.path)] == ["0", "1", "2"]


async def test_D_28_what_was_written_can_be_read_before_close(
    kind: Any, tmp_path: Path
) -> None:
    """D-28: it is with the operating system when the call returns."""
    async with kind(tmp_path / "x") as sink:
        for number in range(3):
            await sink.write_many([reading(number)])
            lines = sink.path.read_text().splitlines()
            assert len(lines) == number + 1 + (kind is CsvSink)
        await sink.flush()


async def test_D_28_a_torn_tail_is_cut_off(kind: Any, tmp_path: Path) -> None:
    """D-28: at every byte where a killed process may have stopped."""
    path = tmp_path / "whole"
    async with kind(path) as sink:
        await sink.write_many([reading(1, text='a "quoted"\nline,\n')])
        first = path.stat().st_size
        await sink.write_many([reading(2, text="x\ny")])
    whole = path.read_bytes()
    for size in range(first, len(whole) + 1):
        torn = tmp_path / "torn"
        torn.write_bytes(whole[:size])
        async with kind(torn, append=True) as sink:
            await sink.write_many([reading(3, text='"')])
        if kind is CsvSink:
            rows: list[Any] = read_csv(torn)
        else:
            rows = [json.loads(line) for line in torn.read_text().splitlines()]
        numbers = [int(row["n"]) for row in rows]
        assert numbers == ([1, 2, 3] if size == len(whole) else [1, 3])
        assert rows[0]["text"] == 'a "quoted"\nline,\n'


async def test_D_29_every_line_is_valid_json(tmp_path: Path) -> None:
    """D-29: NaN is tagged, integers have all their digits."""
    values = {"nan": float("nan"), "inf": float("-inf"), "big": 2**200, "text": "ü\n"}
    async with JsonlSink(tmp_path / "x.jsonl") as sink:
        await sink.write_many([DaqReading(device="d", values=values)])

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    (line,) = sink.path.read_text(encoding="utf-8").splitlines()
    row = json.loads(line, parse_constant=refuse)
    assert row["nan"] == {"$float": "nan"}
    assert row["inf"] == {"$float": "-inf"}
    assert row["big"] == 2**200
    assert row["text"] == "ü\n"


async def test_a_full_disk_leaves_whole_rows_and_the_sink_good(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-28, D-49: the error carries the readings, which can be written again."""
    async with kind(tmp_path / "x") as sink:
        await sink.write_many([reading(1)])
        before = sink.path.read_bytes()
        file = sink._file._file

        class Full:
            def __init__(self) -> None:
                self.left = 10

            def write(self, data: Any) -> int:
                if not self.left:
                    raise OSError(errno.ENOSPC, "No space left on device")
                done = file.write(data[: self.left])
                self.left -= done
                return done

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        monkeypatch.setattr(sink._file, "_file", Full())
        with pytest.raises(SinkWriteError, match="No space left") as caught:
            await sink.write_many([reading(2), reading(3)])
        assert caught.value.errno == errno.ENOSPC
        assert sink.path.read_bytes() == before
        monkeypatch.undo()
        await sink.write_many(caught.value.records)
    text = sink.path.read_text()
    assert text.count("\n") == 3 + (kind is CsvSink)


async def test_text_that_utf8_cannot_hold_is_refused_whole(
    kind: Any, tmp_path: Path
) -> None:
    """D-49: half of a batch is worse than none."""
    async with kind(tmp_path / "x") as sink:
        await sink.write_many([reading(1, text="a")])
        with pytest.raises(SinkWriteError, match="surrogate"):
            await sink.write_many([reading(2, text="b"), reading(3, text="\ud800")])
        await sink.write_many([reading(4, text="c")])
    assert [("2," in line) for line in sink.path.read_text().splitlines()].count(
        True
    ) == 0


async def test_a_file_of_another_kind_is_refused(kind: Any, tmp_path: Path) -> None:
    """D-22: append=True is for tables; nothing of the file is touched."""
    path = tmp_path / "x"
    content = b"\xff\xfe\x00 no table at all\n"
    path.write_bytes(content)
    with pytest.raises(SinkSchemaError, match="overwrite=True"):
        await kind(path, append=True).open()
    assert path.read_bytes() == content
