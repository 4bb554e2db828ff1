"""Raw counts and their reader, D-71 to D-80 and D-84."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import SinkSchemaError, SinkStateError, SinkWriteError
from bluesky_beamtime.sinks import (
    RAW_FORMAT_VERSION,
    DaqBlock,
    InMemorySink,
    RawCountsSink,
    iter_blocks,
    pipe_blocks,
    read_file_header,
)

T0 = datetime(2026, 11, 21, 12, tzinfo=UTC)


class BufferOverrunError(Exception):
    pass


def block(number: int = 0, **changes: Any) -> DaqBlock:
    codes = (np.arange(12, dtype="i2") + 100 * number).reshape(2, 6)
    given: dict[str, Any] = {
        "device": "daq",
        "task": "fly",
        "channels": ("a", "b"),
        "data": codes * 0.1,
        "raw_codes": codes,
        "block_index": number,
        "first_sample_index": 6 * number,
        "sample_rate_hz": 1000.0,
        "block_period_ns": 1_000_000,
        "t_mono_ns": 10 + number,
        "t_utc": T0,
        "task_started_at": T0,
        "units": {"a": "V"},
    }
    return DaqBlock(**{**given, **changes})


def parse(path: Path) -> tuple[dict[str, Any], list[tuple[dict[str, Any], bytes]]]:
    """Read a file by its layout alone: struct, json, nothing of the package."""
    data = path.read_bytes()

    def take(place: int) -> tuple[dict[str, Any], int]:
        (length,) = struct.unpack_from("<I", data, place)
        return json.loads(data[place + 4 : place + 4 + length]), place + 4 + length

    header, place = take(0)
    chunks = []
    size = header["n_channels"] * np.dtype(header["dtype"]).itemsize
    while place < len(data):
        chunk, place = take(place)
        end = place + chunk["valid_samples"] * size
        chunks.append((chunk, data[place:end]))
        place = end
    return header, chunks


async def test_D_72_D_74_the_layout_byte_by_byte(tmp_path: Path) -> None:
    """D-72, D-74, D-76: lengths, JSON, payloads, read with struct and json."""
    async with RawCountsSink(tmp_path / "x.dt-raw") as sink:
        for number in range(3):
            await sink.write_raw(block(number))
    header, chunks = parse(sink.path)
    assert RAW_FORMAT_VERSION == header["format_version"] == 2
    assert header["byte_order"] == "little"
    for number, (chunk, payload) in enumerate(chunks):
        assert chunk["seq"] == number
        assert chunk["event_kind"] == "buffer_done"
        assert chunk["first_sample_index"] == 6 * number
        assert chunk["valid_samples"] == chunk["buffer_capacity"] == 6
        assert chunk["t_mono_ns"] == 10 + number
        assert chunk["t_utc"] == T0.isoformat()
        assert chunk["flags"] == []
        assert payload == block(number).raw_codes.astype("<i2").tobytes()  # type: ignore[union-attr]
    assert len(chunks) == 3


async def test_D_73_the_header_of_the_file(tmp_path: Path) -> None:
    """D-73: the user's keys stand apart and clash with nothing."""
    metadata = {"dtype": "mine", "operator": "ü"}
    async with RawCountsSink(tmp_path / "x", file_metadata=metadata) as sink:
        await sink.write_raw(block())
    header, _ = parse(sink.path)
    assert header["metadata"] == metadata
    assert header["dtype"] == "int16"
    assert header["channels"] == [
        {"name": "a", "unit": "V"},
        {"name": "b", "unit": None},
    ]
    assert header["sample_rate_hz"] == 1000.0
    assert (header["n_channels"], header["samples_per_buffer"]) == (2, 6)
    assert header["task_started_at"] == T0.isoformat()
    found = read_file_header(sink.path)
    assert (found.dtype, found.metadata, found["task"]) == ("int16", metadata, "fly")
    with pytest.raises(TypeError):
        RawCountsSink(tmp_path / "y", file_metadata={"no": object()})


async def test_D_75_flags_say_what_happened(tmp_path: Path) -> None:
    """D-75: an overrun, another error, a buffer that was cut short; not all as one."""
    async with RawCountsSink(tmp_path / "x") as sink:
        await sink.write_raw(block(0, error=BufferOverrunError("late")))
        await sink.write_raw(block(1, error=ValueError("open")))
        await sink.write_raw(block(2, samples_per_channel=4))
    _, chunks = parse(sink.path)
    assert [chunk["flags"] for chunk, _ in chunks] == [
        ["overrun_marker"],
        ["error"],
        ["partial"],
    ]
    assert {chunk["event_kind"] for chunk, _ in chunks} == {"buffer_done_with_flags"}
    assert chunks[2][0]["valid_samples"] == 4
    assert chunks[2][0]["buffer_capacity"] == 6
    found = list(iter_blocks(sink.path))
    assert "late" in str(found[0].error)
    assert "open" in str(found[1].error)
    assert found[2].error is None


async def test_D_76_only_valid_samples_in_c_order(tmp_path: Path) -> None:
    """D-76: from any memory layout and byte order; another dtype is refused."""
    codes = np.arange(24, dtype=">i4").reshape(6, 4).T[::2]
    strided = block(data=codes, raw_codes=codes, samples_per_channel=5)
    async with RawCountsSink(tmp_path / "x") as sink:
        await sink.write_raw(strided)
        with pytest.raises(SinkSchemaError, match="int16") as caught:
            await sink.write_raw(block())
        assert len(caught.value.records) == 1
        with pytest.raises(SinkSchemaError, match="channels a, b"):
            await sink.write_raw(
                block(channels=("a", "c"), data=codes, raw_codes=codes)
            )
    header, ((_, payload),) = parse(sink.path)
    assert header["dtype"] == "int32"
    assert payload == np.ascontiguousarray(codes[:, :5]).astype("<i4").tobytes()


async def test_D_84_write_and_read_back(tmp_path: Path) -> None:
    """D-84: numbers, dtype, times, channels, units; also while the file is open."""
    async with RawCountsSink(tmp_path / "x") as sink:
        for number in range(5):
            await sink.write_raw(block(number))
            assert len(list(iter_blocks(sink.path))) == number + 1
    for number, found in enumerate(iter_blocks(sink.path)):
        wanted = block(number)
        assert found.raw_codes is not None
        assert found.raw_codes.dtype == np.int16
        assert np.array_equal(found.raw_codes, wanted.raw_codes)  # type: ignore[arg-type]
        for name in (
            "device",
            "task",
            "channels",
            "block_index",
            "first_sample_index",
            "samples_per_channel",
            "sample_rate_hz",
            "block_period_ns",
            "t_mono_ns",
            "t_utc",
            "task_started_at",
        ):
            assert getattr(found, name) == getattr(wanted, name), name


async def test_D_77_a_torn_tail_ends_the_reading_cleanly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D-77: wherever it is cut, the chunks before are read; append goes on there."""
    async with RawCountsSink(tmp_path / "x") as sink:
        await sink.write_raw(block(0))
        first = sink.path.stat().st_size
        await sink.write_raw(block(1))
    whole = sink.path.read_bytes()
    torn = tmp_path / "torn"
    for size in range(len(whole)):
        torn.write_bytes(whole[:size])
        caplog.clear()
        assert len(list(iter_blocks(torn))) == (size >= first)
        assert bool(caplog.records) == (size not in (0, first, len(_head(whole))))
        async with RawCountsSink(torn, append=True) as sink:
            await sink.write_raw(block(7))
        assert len(list(iter_blocks(torn))) == 1 + (size >= first)


def _head(whole: bytes) -> bytes:
    (length,) = struct.unpack_from("<I", whole)
    return whole[: 4 + length]


async def test_D_72_damage_is_not_a_torn_tail(tmp_path: Path) -> None:
    """D-72: a checksum tells; what is no such file is said to be none."""
    async with RawCountsSink(tmp_path / "x") as sink:
        await sink.write_raw(block(0))
        await sink.write_raw(block(1))
    data = bytearray(sink.path.read_bytes())
    data[-1] ^= 1
    sink.path.write_bytes(data)
    blocks = iter_blocks(sink.path)
    next(blocks)
    with pytest.raises(SinkSchemaError, match=r"chunk 1 .* checksum"):
        next(blocks)
    other = tmp_path / "other"
    for content in (b"\x02\0\0\0{}", b"\x89HDF\r\n" + bytes(100), b"id,name\n1,2\n"):
        other.write_bytes(content)
        with pytest.raises(SinkSchemaError, match=r"no \.dt-raw file"):
            read_file_header(other)
        with pytest.raises(SinkSchemaError):
            await RawCountsSink(other, append=True).open()
        assert other.read_bytes() == content
    other.write_bytes(b"")
    with pytest.raises(SinkSchemaError, match="nothing was written"):
        read_file_header(other)


async def test_D_78_errors_say_where_and_what(tmp_path: Path) -> None:
    """D-78: of the tree, with the path and the block."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkWriteError, match="file/x") as failed:
        await RawCountsSink(tmp_path / "file" / "x").open()
    assert failed.value.context.operation == "RawCountsSink.open"
    sink = RawCountsSink(tmp_path / "x")
    with pytest.raises(SinkStateError, match="write_raw called before open"):
        await sink.write_raw(block())
    with pytest.raises(SinkStateError, match="write_raw_nowait called before open"):
        sink.write_raw_nowait(block())
    async with sink:
        without = block(raw_codes=None)
        with pytest.raises(SinkWriteError, match="block has no raw_codes") as caught:
            await sink.write_raw(without)
        assert caught.value.records == [without]


async def test_D_79_opened_again_it_goes_on(tmp_path: Path) -> None:
    """D-79: chunks are numbered on, the header is not repeated."""
    sink = RawCountsSink(tmp_path / "x")
    await sink.close()
    for number in range(3):
        async with sink:
            await sink.write_raw(block(number))
        await sink.close()
    assert [b.block_index for b in iter_blocks(sink.path)] == [0, 1, 2]
    with pytest.raises(SinkWriteError, match="append=True"):
        await RawCountsSink(sink.path).open()
    async with RawCountsSink(sink.path, overwrite=True) as anew:
        await anew.write_raw(block(9))
    assert len(list(iter_blocks(sink.path))) == 1


async def test_D_71_a_thread_writes_while_the_event_loop_is_stuck(
    tmp_path: Path,
) -> None:
    """D-71, D-80: the thread that drains the driver waits for no event loop."""
    async with RawCountsSink(tmp_path / "x") as sink:

        def drain() -> None:
            for number in range(20):
                sink.write_raw_nowait(block(number))

        thread = threading.Thread(target=drain)
        thread.start()
        # Blocks the loop until the thread is through.
        thread.join(60)
        assert not thread.is_alive()
        assert len(list(iter_blocks(sink.path))) == 20


async def test_D_80_a_slow_consumer_does_not_stop_the_file(tmp_path: Path) -> None:
    """D-80: the raw file is complete although nobody takes the blocks."""
    queue: asyncio.Queue[DaqBlock] = asyncio.Queue(maxsize=1)
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    dropped = 0

    async def stream() -> Any:
        while True:
            yield await queue.get()

    def offer(taken: DaqBlock) -> None:
        nonlocal dropped
        if queue.full():
            dropped += 1
        else:
            queue.put_nowait(taken)

    async with RawCountsSink(tmp_path / "x") as raw, InMemorySink() as slow:

        def drain() -> None:
            for number in range(50):
                taken = block(number)
                raw.write_raw_nowait(taken)
                loop.call_soon_threadsafe(offer, taken)
            loop.call_soon_threadsafe(done.set)

        thread = threading.Thread(target=drain)
        thread.start()
        await asyncio.wait_for(done.wait(), 60)
        thread.join()
        consumer = asyncio.create_task(pipe_blocks(stream(), slow))
        while not slow.blocks:
            await asyncio.sleep(0)
        consumer.cancel()
        assert dropped > 0
    assert [b.block_index for b in iter_blocks(raw.path)] == list(range(50))


async def test_threads_and_the_event_loop_take_turns(tmp_path: Path) -> None:
    """D-71: every chunk is whole, whoever writes."""
    async with RawCountsSink(tmp_path / "x") as sink:
        threads = [
            threading.Thread(
                target=lambda: [sink.write_raw_nowait(block(n)) for n in range(25)]
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(sink.write_raw(block(n)) for n in range(25)))
        for thread in threads:
            thread.join()
    found = list(iter_blocks(sink.path))
    assert [b.block_index for b in found] == list(range(125))
    seen = sorted(b.first_sample_index for b in found)
    assert seen == sorted(5 * [6 * n for n in range(25)])


async def test_D_02_D_03_D_04_the_life_of_a_raw_sink_is_that_of_the_others(
    tmp_path: Path,
) -> None:
    """D-02, D-03, D-04, D-25: twice, too early, too late, and with an exception."""
    sink = RawCountsSink(tmp_path / "x")
    for use in (sink.write_raw(block(0)), sink.flush()):
        with pytest.raises(SinkStateError, match="before open"):
            await use
    with pytest.raises(ZeroDivisionError):
        async with sink as inside:
            assert inside is sink
            await sink.write_raw(block(0))
            await sink.open()
            await sink.write_raw(block(1))
            raise ZeroDivisionError
    await sink.close()
    given = block(2)
    with pytest.raises(SinkStateError, match="after close") as caught:
        await sink.write_raw(given)
    assert caught.value.records == [given]
    with pytest.raises(SinkStateError, match="after close"):
        sink.write_raw_nowait(given)
    assert [b.block_index for b in iter_blocks(sink.path)] == [0, 1]


@pytest.mark.parametrize("dtype", ["O", "U3", "M8[ns]", "i2,f4"])
async def test_D_78_codes_that_are_no_numbers_are_refused(
    dtype: str, tmp_path: Path
) -> None:
    """D-76, D-78: their bytes would be addresses, or nothing that can be read back."""
    codes = np.zeros((1, 2), dtype)
    given = DaqBlock(
        device="d", channels=("a",), data=np.zeros((1, 2)), raw_codes=codes
    )
    async with RawCountsSink(tmp_path / "x") as sink:
        with pytest.raises(SinkSchemaError, match="no numbers"):
            await sink.write_raw(given)
    assert sink.path.stat().st_size == 0


@pytest.mark.parametrize("dtype", ["?", "i1", "<u2", ">i4", "u8", "f2", ">f8", "c16"])
async def test_D_76_every_kind_of_number_comes_back(dtype: str, tmp_path: Path) -> None:
    """D-72, D-76, D-84: in any byte order, read by NumPy alone."""
    codes = np.array([[0, 1, 2], [3, 100, 127]]).astype(dtype)
    given = DaqBlock(
        device="d", channels=("a", "b"), data=np.zeros((2, 3)), raw_codes=codes
    )
    async with RawCountsSink(tmp_path / "x") as sink:
        await sink.write_raw(given)
    (again,) = iter_blocks(sink.path)
    assert again.raw_codes is not None
    assert np.array_equal(again.raw_codes, codes)
    little = np.dtype(read_file_header(sink.path).dtype).newbyteorder("<")
    tail = sink.path.read_bytes()[-codes.nbytes :]
    assert np.array_equal(np.frombuffer(tail, little).reshape(2, 3), codes)
