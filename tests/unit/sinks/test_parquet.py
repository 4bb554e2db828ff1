"""Rows in Parquet, D-32 to D-42."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest

from bluesky_beamtime.errors import (
    MissingExtraError,
    SinkDependencyError,
    SinkSchemaError,
    SinkWriteError,
)
from bluesky_beamtime.sinks import DaqBlock, DaqReading, ParquetSink, block_to_rows


def reading(number: int, **values: Any) -> DaqReading:
    return DaqReading(device="d", values={"n": number, **values}, t_mono_ns=number)


def block(number: int = 0, dtype: str = "f8", count: int = 4) -> DaqBlock:
    return DaqBlock(
        device="d",
        channels=("a", "b"),
        data=np.arange(2 * count, dtype=dtype).reshape(2, count),
        block_index=number,
        first_sample_index=number * count,
        block_period_ns=1000,
        t_mono_ns=0,
        units={"a": "V"},
    )


def values(path: Path, name: str) -> list[Any]:
    return pq.read_table(path).column(name).to_pylist()


async def test_D_32_one_file_with_the_codec_asked_for(tmp_path: Path) -> None:
    """D-32: in a folder that is made; nothing else is left beside it."""
    path = tmp_path / "new" / "x.parquet"
    async with ParquetSink(path) as sink:
        await sink.write_many([reading(1)])
        await sink.write_many([reading(2)])
    assert [p.name for p in path.parent.iterdir()] == ["x.parquet"]
    metadata = pq.read_metadata(path)
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    async with ParquetSink(tmp_path / "y.parquet", compression="none") as sink:
        await sink.write_many([reading(1)])
    assert pq.read_metadata(sink.path).row_group(0).column(0).compression == (
        "UNCOMPRESSED"
    )


async def test_D_32_nothing_written_is_an_empty_table(tmp_path: Path) -> None:
    """D-32: a file that can be read, not none."""
    async with ParquetSink(tmp_path / "x.parquet") as sink:
        pass
    table = pq.read_table(sink.path)
    assert table.num_rows == 0
    assert table.column_names[0] == "device"
    # It decided nothing.
    async with ParquetSink(sink.path, append=True) as sink:
        await sink.write(block())
    assert pq.read_table(sink.path).num_rows == 8


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"row_group_size": 0}, "row_group_size must be >= 1 if set, got 0"),
        ({"compression": "zip"}, "compression='zip'"),
        ({"schema": "x"}, "schema='x'"),
    ],
)
def test_D_33_wrong_options_are_refused_at_once(
    options: dict[str, Any], text: str, tmp_path: Path
) -> None:
    """D-33: before anything is opened."""
    with pytest.raises(ValueError, match=text):
        ParquetSink(tmp_path / "x.parquet", **options)


async def test_D_34_without_pyarrow_open_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-34: making the sink needs nothing."""
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    sink = ParquetSink(tmp_path / "x.parquet")
    with pytest.raises(
        SinkDependencyError, match=r"pip install 'bluesky-beamtime\[parquet\]'"
    ) as caught:
        await sink.open()
    assert isinstance(caught.value, MissingExtraError)
    assert not sink.is_open


async def test_D_35_each_block_is_a_row_group(tmp_path: Path) -> None:
    """D-35: readings are gathered, so that a file is no heap of tiny groups."""
    async with ParquetSink(tmp_path / "b.parquet") as sink:
        for number in range(5):
            await sink.write(block(number))
    metadata = pq.read_metadata(sink.path)
    assert metadata.num_row_groups == 5
    assert metadata.row_group(0).num_rows == 8
    rows = pq.read_table(sink.path).to_pylist()
    wanted = [row for n in range(5) for row in block_to_rows(block(n))]
    for name in ("channel", "sample_index", "t_mono_ns", "value", "unit"):
        assert [row[name] for row in rows] == [row[name] for row in wanted]
    async with ParquetSink(tmp_path / "r.parquet") as sink:
        for number in range(50):
            await sink.write_many([reading(number)])
    assert pq.read_metadata(sink.path).num_row_groups == 1
    async with ParquetSink(tmp_path / "s.parquet", row_group_size=3) as sink:
        for number in range(5):
            await sink.write_many([reading(number), reading(number)])
    metadata = pq.read_metadata(sink.path)
    assert max(metadata.row_group(n).num_rows for n in range(4)) <= 3
    assert metadata.num_rows == 10


async def test_D_36_every_finished_write_can_be_read_at_once(tmp_path: Path) -> None:
    """D-36: the parts are whole files; what a dead process left is taken up."""
    sink = ParquetSink(tmp_path / "x.parquet")
    await sink.open()
    for number in range(5):
        await sink.write(block(number))
        assert [p.name for p in sink.parts] == [
            f"x.part-{n:05d}.parquet" for n in range(1, number + 2)
        ]
        assert sum(pq.read_metadata(p).num_rows for p in sink.parts) == 8 * number + 8
    await sink.flush()
    # As after a kill: nobody closes it.
    sink._end_worker()
    sink._parts.unlock()
    with pytest.raises(SinkWriteError, match=r"part-00001.*append=True"):
        await ParquetSink(tmp_path / "x.parquet").open()
    async with ParquetSink(tmp_path / "x.parquet", append=True) as sink:
        await sink.write(block(5))
    assert values(sink.path, "sample_index") == [
        4 * n + k for n in range(6) for _ in "ab" for k in range(4)
    ]
    assert len(list(tmp_path.iterdir())) == 1


async def test_D_35_few_readings_go_on_in_the_last_part(tmp_path: Path) -> None:
    """D-35, D-36: a call for each reading does not make a file for each."""

    def parts() -> list[tuple[str, list[int]]]:
        found = sorted(tmp_path.glob("x.part-*.parquet"))
        return [(path.name[7:12], values(path, "n")) for path in found]

    whole = list(range(200)), list(range(200, 400)), list(range(400, 600))
    async with ParquetSink(tmp_path / "x.parquet") as sink:
        for numbers in whole:
            await sink.write_many([reading(n) for n in numbers])
            # At every moment each row is there once.
            there = [n for _, rows in parts() for n in rows]
            assert there == list(range(numbers[-1] + 1))
        assert [len(rows) for _, rows in parts()] == [600]
        await sink.write_many([reading(600)])
        await sink.write_many([reading(601)])
        await sink.write_many([reading(602, new="text")])
        await sink.write_many([reading(603, new="text")])
        assert parts()[1:] == [("00002", [600, 601]), ("00003", [602, 603])]
        before = [path.stat().st_ino for path in sink.parts]
        await sink.flush()
        await sink.write_many([reading(604, new="text")])
        # What was on the device was not touched.
        assert [path.stat().st_ino for path in sink.parts][:3] == before
        assert parts()[3:] == [("00004", [604])]
        # As if it were killed now, and taken up.
        kept = {path: path.read_bytes() for path in sink.parts}
    assert values(sink.path, "n") == list(range(605))
    assert list(tmp_path.iterdir()) == [sink.path]
    sink.path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)
    async with ParquetSink(sink.path, append=True) as sink:
        await sink.write_many([reading(605)])
        assert parts()[4:] == [("00005", [605])]
    assert values(sink.path, "n") == list(range(606))


def write_half(path: Path, content: Any) -> int:
    """Write as to a disk that is full then."""
    with path.open("wb") as file:
        file.write(b"PAR1 half")
    raise OSError(28, "No space left on device")


async def test_D_35_a_part_that_cannot_go_on_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-36: a full disk while it is written anew; nothing is lost, or there twice."""
    async with ParquetSink(tmp_path / "x.parquet") as sink:
        await sink.write_many([reading(1)])

        monkeypatch.setattr(Path, "write_bytes", write_half)
        with pytest.raises(SinkWriteError, match="No space"):
            await sink.write_many([reading(2)])
        monkeypatch.undo()
        assert [values(path, "n") for path in sink.parts] == [[1]]
        await sink.write_many([reading(3)])
        assert [values(path, "n") for path in sink.parts] == [[1, 3]]
    assert values(sink.path, "n") == [1, 3]


async def test_D_36_killed_between_one_file_and_no_parts_leaves_nothing_twice(
    tmp_path: Path,
) -> None:
    """D-36: the file knows which parts it holds."""
    kept: dict[str, bytes] = {}
    async with ParquetSink(tmp_path / "x.parquet") as sink:
        await sink.write_many([reading(1)])
        await sink.write_many([reading(2)])
        kept = {path.name: path.read_bytes() for path in sink.parts}
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)
    async with ParquetSink(tmp_path / "x.parquet", append=True) as sink:
        await sink.write_many([reading(3)])
    assert values(sink.path, "n") == [1, 2, 3]
    # A part that the file does not hold is another matter.
    (tmp_path / "x.part-00009.parquet").write_bytes(
        (tmp_path / "x.parquet").read_bytes()
    )
    async with ParquetSink(tmp_path / "x.parquet", append=True):
        pass
    assert values(sink.path, "n") == [1, 2, 3, 1, 2, 3]


async def test_D_37_readings_and_blocks_do_not_mix(tmp_path: Path) -> None:
    """D-37: and the file says which of them it has."""
    async with ParquetSink(tmp_path / "x.parquet") as sink:
        assert sink.shape is None
        await sink.write_many([reading(1)])
        assert sink.shape == "readings"
        with pytest.raises(
            SinkSchemaError, match="ParquetSink locked on 'readings'; cannot mix"
        ):
            await sink.write(block())
    async with ParquetSink(sink.path, append=True) as sink:
        assert sink.shape == "readings"


async def test_D_38_types_that_change_lose_nothing(tmp_path: Path) -> None:
    """D-38, D-44: the file's type of a column holds every value."""
    drifts: dict[str, tuple[list[Any], Any, list[Any]]] = {
        "int then float": ([1, 2.5], pyarrow.float64(), [1.0, 2.5]),
        "bool then int": ([True, 5], pyarrow.int64(), [1, 5]),
        "big int then float": (
            [2**53 + 1, 0.5],
            pyarrow.string(),
            [str(2**53 + 1), "0.5"],
        ),
        "beyond 64 bits": ([1, 2**70], pyarrow.string(), ["1", str(2**70)]),
        "none then text": ([None, "a"], pyarrow.string(), [None, "a"]),
        "float then text": ([0.1, "a"], pyarrow.string(), ["0.1", "a"]),
        "bool then float": ([True, 0.5], pyarrow.float64(), [1.0, 0.5]),
        "none": ([None, None], pyarrow.null(), [None, None]),
    }
    for name, (given, kind, wanted) in drifts.items():
        for together in (False, True):
            path = tmp_path / f"{name}{together}.parquet"
            async with ParquetSink(path) as sink:
                readings = [reading(0, x=value) for value in given]
                if together:
                    await sink.write_many(readings)
                else:
                    for each in readings:
                        await sink.write_many([each])
            assert pq.read_schema(path).field("x").type == kind, name
            assert values(path, "x") == wanted, name


async def test_D_38_blocks_of_several_dtypes(tmp_path: Path) -> None:
    """D-38: int16 stays int16, and with floats beside it becomes float64."""
    async with ParquetSink(tmp_path / "x.parquet") as sink:
        await sink.write(block(0, "i2"))
    assert pq.read_schema(sink.path).field("value").type == pyarrow.int16()
    async with ParquetSink(sink.path, append=True) as sink:
        await sink.write(block(1, ">f4"))
        await sink.write(block(2, "u8"))
    assert pq.read_schema(sink.path).field("value").type == pyarrow.float64()
    assert values(sink.path, "value") == 3 * [float(n) for n in range(8)]


async def test_D_41_opened_again_it_goes_on(tmp_path: Path) -> None:
    """D-41: with what was there, also when nothing is written."""
    sink = ParquetSink(tmp_path / "x.parquet")
    for number in range(3):
        async with sink:
            await sink.write_many([reading(number)])
        async with sink:
            pass
    assert values(sink.path, "n") == [0, 1, 2]


async def test_D_42_properties(tmp_path: Path) -> None:
    """D-42, D-38: path, compression, columns, shape."""
    sink = ParquetSink(str(tmp_path / "x.parquet"), compression="lz4")
    assert (sink.path, sink.compression) == (tmp_path / "x.parquet", "lz4")
    assert (sink.columns, sink.shape) == (None, None)
    async with sink:
        await sink.write(block())
    assert sink.columns is not None
    assert (sink.columns[0], sink.shape) == ("device", "blocks")


async def test_a_part_that_cannot_be_written_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-36: a full disk; the sink goes on when there is space again."""
    async with ParquetSink(tmp_path / "x.parquet") as sink:
        await sink.write_many([reading(1)])

        monkeypatch.setattr(Path, "write_bytes", write_half)
        with pytest.raises(SinkWriteError, match="No space") as caught:
            await sink.write_many([reading(2, new=1)])
        assert caught.value.errno == 28
        monkeypatch.undo()
        assert [p.name for p in tmp_path.glob("*.part-*")] == ["x.part-00001.parquet"]
        await sink.write_many(caught.value.records)
    assert values(sink.path, "new") == [None, 1]


async def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    """D-22: append=True does not destroy it."""
    path = tmp_path / "x.parquet"
    path.write_bytes(b"id,name\n")
    with pytest.raises(SinkSchemaError, match="no finished Parquet file"):
        await ParquetSink(path, append=True).open()
    assert path.read_bytes() == b"id,name\n"
