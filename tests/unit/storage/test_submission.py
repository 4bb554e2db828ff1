"""Frames handed to worker threads: in order, counted, and never silently lost."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bluesky_beamtime.errors import (
    CapacityError,
    FrameMismatchError,
    SinkClosedError,
    StoreWriteError,
)
from bluesky_beamtime.storage import FrameSink, ZarrWriter, open_frames

SHAPE = (8, 9)


def sink_in(folder: Path, **options: object) -> FrameSink:
    writer = ZarrWriter("submission", **options)  # type: ignore[arg-type]
    writer.set_uri(str(folder / "store"))
    sink = writer.prepare("cam", "cam", "u2", SHAPE)
    writer.kickoff()
    return sink


def frame(number: int) -> np.ndarray:
    return np.full(SHAPE, number, "u2")


@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize("threads", [1, 3])
def test_frames_keep_the_order_of_submission(
    tmp_path: Path, compression: str, threads: int
) -> None:
    sink = sink_in(tmp_path, compression=compression, threads=threads)
    futures = [sink.submit(frame(n)) for n in range(300)]
    sink.write(frame(300))
    assert [f.result(10) for f in futures] == list(range(300))
    sink.close()
    stored = open_frames(sink.uri)[:]
    np.testing.assert_array_equal(stored[:, 0, 0], np.arange(301))
    assert sink.submission.submitted == 300


def test_the_buffer_may_be_used_again_at_once(tmp_path: Path) -> None:
    sink = sink_in(tmp_path, compression="zstd")
    buffer = np.empty(SHAPE, "u2")
    for number in range(100):
        buffer[:] = number
        sink.submit(buffer)
    sink.close()
    assert open_frames(sink.uri)[:, 3, 3].tolist() == list(range(100))


def test_close_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    sink = sink_in(tmp_path)
    futures = [sink.submit(frame(n)) for n in range(50)]
    (workers_name,) = {
        thread.name.rpartition("_")[0]
        for thread in threading.enumerate()
        if "'submission'" in thread.name
    }
    sink.close()
    assert all(f.done() for f in futures)
    assert sink.frames_written == sink.frames_published == 50
    with pytest.raises(SinkClosedError):
        sink.submit(frame(0))
    assert "beamtime-frames writer ('submission'" in workers_name
    assert not [t for t in threading.enumerate() if t.name.startswith(workers_name)]


def test_wrong_frames_are_refused_at_once(tmp_path: Path) -> None:
    sink = sink_in(tmp_path)
    with pytest.raises(FrameMismatchError):
        sink.submit(np.zeros(SHAPE, "f4"))
    sink.close()


def test_capacity_counts_what_is_on_its_way(tmp_path: Path) -> None:
    writer = ZarrWriter("capacity")
    writer.set_uri(str(tmp_path / "store"))
    sink = writer.prepare("cam", "cam", "u2", SHAPE, capacity=5)
    writer.kickoff()
    for number in range(5):
        sink.submit(frame(number))
    with pytest.raises(CapacityError):
        sink.submit(frame(5))
    sink.close()
    assert sink.frames_written == 5


def test_a_full_queue_holds_the_producer_back_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_in(tmp_path, threads=1)
    gate = threading.Event()
    original = ZarrWriter._write_frame

    def slow(self: ZarrWriter, name: str, chunk: object) -> None:
        gate.wait(10)
        original(self, name, chunk)  # type: ignore[arg-type]

    monkeypatch.setattr(ZarrWriter, "_write_frame", slow)
    monkeypatch.setattr("bluesky_beamtime.storage.submission.MOST_FRAMES", 6)
    sink.submit(frame(0))
    queue = sink._source.queue
    assert queue is not None
    assert queue.limit == 6
    for number in range(1, queue.limit):
        sink.submit(frame(number))
    late = threading.Thread(target=sink.submit, args=(frame(queue.limit),))
    late.start()
    while sink.submission.waits == 0:
        late.join(0.001)
    assert late.is_alive()
    gate.set()
    late.join(10)
    sink.close()
    stats = sink.submission
    assert stats.waits == 1
    assert stats.waited > 0
    assert stats.most_queued == queue.limit
    assert sink.frames_written == queue.limit + 1


def test_a_failure_takes_the_frames_behind_it_and_then_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_in(tmp_path, threads=2)
    gate, full = threading.Event(), threading.Event()
    full.set()
    original = ZarrWriter._write_frame

    def write(self: ZarrWriter, name: str, chunk: object) -> None:
        gate.wait(10)
        if sink.frames_written == 3 and full.is_set():
            raise StoreWriteError("no space", errno=errno.ENOSPC)
        original(self, name, chunk)  # type: ignore[arg-type]

    monkeypatch.setattr(ZarrWriter, "_write_frame", write)
    futures = [sink.submit(frame(n)) for n in range(8)]
    gate.set()
    assert [f.result(10) for f in futures[:3]] == [0, 1, 2]
    for future in futures[3:]:
        with pytest.raises(StoreWriteError):
            future.result(10)
    full.clear()
    assert sink.submit(frame(33)).result(10) == 3
    sink.close()
    assert open_frames(sink.uri)[:, 0, 0].tolist() == [0, 1, 2, 33]


def within(seconds: float, work: Callable[[], object]) -> None:
    """Do something in a thread, which must come to an end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("what", ["close", "write", "submit", "abort"])
def test_a_callback_may_use_its_own_sink(
    tmp_path: Path, threads: int, what: str
) -> None:
    """Others are queued behind it, for the thread that the callback runs on."""
    sink = sink_in(tmp_path, threads=threads)
    failures: list[BaseException] = []
    called = threading.Event()

    def callback(_: object) -> None:
        try:
            match what:
                case "close":
                    sink.close()
                case "write":
                    sink.write(frame(99))
                case "submit":
                    for _number in range(200):
                        sink.submit(frame(99))
                case _:
                    sink._writer.abort()
        except BaseException as error:
            failures.append(error)
        finally:
            called.set()

    def produce() -> None:
        first = sink.submit(frame(0))
        with suppress(SinkClosedError):
            for number in range(1, 100):
                if number == 50:
                    first.add_done_callback(callback)
                    sink.submit(frame(number)).add_done_callback(lambda _: None)
                else:
                    sink.submit(frame(number))

    within(30, produce)
    assert called.wait(30)
    within(30, sink.close)
    assert not failures
    assert sink.frames_written == len(open_frames(sink.uri)) >= 50


def test_the_only_worker_may_close_while_others_are_queued(tmp_path: Path) -> None:
    sink = sink_in(tmp_path, threads=1)
    original, gate = ZarrWriter._write_frame, threading.Event()
    closed = threading.Event()

    def slow(self: ZarrWriter, name: str, chunk: object) -> None:
        gate.wait(10)
        original(self, name, chunk)  # type: ignore[arg-type]

    def close(_: object) -> None:
        sink.close()
        closed.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZarrWriter, "_write_frame", slow)
        first = sink.submit(frame(0))
        first.add_done_callback(close)
        futures = [sink.submit(frame(number)) for number in range(1, 20)]
        gate.set()
        assert closed.wait(30)
    assert [future.result(30) for future in futures] == list(range(1, 20))
    assert open_frames(sink.uri)[:, 0, 0].tolist() == list(range(20))


def test_a_full_queue_lets_the_producer_encode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it hands over then is not copied first, and may change afterwards."""
    monkeypatch.setattr("bluesky_beamtime.storage.submission.MOST_FRAMES", 4)
    sink = sink_in(tmp_path, threads=1, compression="lz4")
    buffer = frame(0)
    for number in range(300):
        buffer[...] = number
        sink.submit(buffer)
    sink.close()
    assert open_frames(sink.uri)[:, 0, 0].tolist() == list(range(300))
    assert sink.submission.submitted == 300
    assert sink.submission.most_queued <= 5
