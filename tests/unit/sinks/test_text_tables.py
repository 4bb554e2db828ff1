"""CSV and JSON lines, D-22 to D-31."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import SinkError, SinkSchemaError, SinkWriteError
from bluesky_beamtime.sinks import CsvSink, DaqBlock, DaqReading, JsonlSink
from bluesky_beamtime.sinks.append_file import AppendFile

BLOCK = DaqBlock(device="d", channels=("a", "b"), data=np.ones((2, 3)))


def reading(number: int, **values: Any) -> DaqReading:
    return DaqReading(device="d", values={"n": number, **values}, t_mono_ns=number)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(params=[CsvSink, JsonlSink])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_D_23_D_30_blocks_are_refused_by_default(
    kind: Any, tmp_path: Path
) -> None:
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
        # An object of JSON is whole without its line end; a row of CSV may go on.
        least = len(whole) - (kind is JsonlSink)
        assert numbers == ([1, 2, 3] if size >= least else [1, 3])
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
        writev, left = os.writev, 10

        def write_till_full(descriptor: int, buffers: list[memoryview]) -> int:
            nonlocal left
            if not left:
                raise OSError(errno.ENOSPC, "No space left on device")
            done = writev(descriptor, [buffers[0][:left]])
            left -= done
            return done

        monkeypatch.setattr(os, "writev", write_till_full)
        with pytest.raises(SinkWriteError, match="No space left") as caught:
            await sink.write_many([reading(2), reading(3)])
        assert caught.value.errno == errno.ENOSPC
        assert sink.path.read_bytes() == before
        monkeypatch.undo()
        await sink.write_many(caught.value.records)
    text = sink.path.read_text()
    assert text.count("\n") == 3 + (kind is CsvSink)


async def test_a_file_of_another_kind_is_refused(kind: Any, tmp_path: Path) -> None:
    """D-22: append=True is for tables; nothing of the file is touched."""
    path = tmp_path / "x"
    content = b"\xff\xfe\x00 no table at all\n"
    path.write_bytes(content)
    with pytest.raises(SinkSchemaError, match="overwrite=True"):
        await kind(path, append=True).open()
    assert path.read_bytes() == content


async def test_D_43_a_new_column_on_a_full_disk_leaves_the_table_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-26, D-43: the wider copy takes its place with the new rows, or not at all."""
    async with CsvSink(tmp_path / "x.csv") as sink:
        await sink.write_many([reading(1)])
        before = sink.path.read_bytes()
        append = AppendFile.append
        for failing_call in (0, 1):
            calls = itertools.count()

            def fail(
                self: AppendFile, data: Any, calls: Any = calls, at: int = failing_call
            ) -> None:
                if next(calls) == at:
                    raise OSError(errno.ENOSPC, "No space left on device")
                append(self, data)

            monkeypatch.setattr(AppendFile, "append", fail)
            with pytest.raises(SinkWriteError, match="No space") as caught:
                await sink.write_many([reading(2, new=0.5)])
            assert caught.value.errno == errno.ENOSPC
            monkeypatch.undo()
            assert sink.path.read_bytes() == before
            assert list(tmp_path.iterdir()) == [sink.path]
        await sink.write_many([reading(3)])
        await sink.write_many([reading(4, new=0.5)])
    rows = read_csv(sink.path)
    assert list(rows[0]).count("new") == 1
    assert [(row["n"], row["new"]) for row in rows] == [
        ("1", ""),
        ("3", ""),
        ("4", "0.5"),
    ]


async def test_D_22_every_line_end_inside_of_a_text_is_quoted(tmp_path: Path) -> None:
    """D-22: a lone carriage return ends a row for readers of CSV, unless quoted."""
    texts = ["a\rb", "\r", "\r\n", "\n\r", 'a"\r,\n', "plain"]
    async with CsvSink(tmp_path / "x.csv") as sink:
        for number, text in enumerate(texts):
            await sink.write_many([reading(number, text=text)])
        await sink.write_many([reading(99, text="\r", **{"new\r\n": 1})])
    rows = read_csv(sink.path)
    assert [row["text"] for row in rows] == [*texts, "\r"]
    assert rows[-1]["new\r\n"] == "1"
    assert b"\r\n\n" not in sink.path.read_bytes()


async def test_D_43_a_new_column_beside_a_field_as_long_as_an_image(
    tmp_path: Path,
) -> None:
    """D-43: arrays of events are JSON text, longer than `csv` reads by default."""
    image = str([[0.5] * 400] * 400)
    async with CsvSink(tmp_path / "x.csv") as sink:
        await sink.write_many([reading(1, text=image)])
        await sink.write_many([reading(2, new=1)])
    first = sink.path.read_text().splitlines()[1]
    assert image in first
    assert first.endswith(",")


@pytest.mark.parametrize("kind", [CsvSink, JsonlSink])
async def test_D_27_no_row_of_another_program_is_cut_off(
    kind: Any, tmp_path: Path
) -> None:
    """D-27: append=True goes on after a last line without an end, and odd quotes."""
    path = tmp_path / "x"
    if kind is CsvSink:
        path.write_text('name,n\r\nwafer 12" a,1\r\nlast,2')
    else:
        path.write_text('{"name":"wafer","n":1}\n{"name":"last","n":2}')
    async with kind(path, append=True, schema="drop") as sink:
        await sink.write_many([reading(3)])
    text = path.read_text()
    assert "last" in text
    assert len(text.splitlines()) == 3 + (kind is CsvSink)
