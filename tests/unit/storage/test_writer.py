"""The base class: what it does for every format, also when the format fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import (
    PathError,
    SinkClosedError,
    StorageError,
    StoreStateError,
)
from bluesky_beamtime.storage import (
    FrameSink,
    Writer,
    ZarrWriter,
    open_frames,
    register_metadata,
    snapshot_metadata,
)

FRAME = np.arange(6, dtype="<u2").reshape(2, 3)


class Disk(Exception):
    """What a broken backend raises."""


class Broken(Writer):
    """A format whose hooks call what the test puts in their place."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.hooks: dict[str, Callable[..., None]] = {}
        self.calls: list[str] = []
        self.frames: dict[str, list[Any]] = {}

    def _hook(self, hook: str, *args: Any) -> None:
        self.calls.append(hook)
        self.hooks.get(hook, lambda *_: None)(*args)

    @classmethod
    def _class_mimetype(cls) -> str:
        return "application/x-test-broken"

    def _on_prepare(self, name: str) -> None:
        self._hook("prepare", name)

    def kickoff(self) -> None:
        self._hook("kickoff")
        self.frames = {}

    def _on_join(self, name: str) -> None:
        self._hook("join", name)

    def _write_frame(self, name: str, frame: Any) -> None:
        self._hook("write", name)
        self.frames.setdefault(name, []).append(frame.copy())

    def _on_complete(self, name: str) -> None:
        self._hook("complete", name)

    def _finalize(self) -> None:
        self._hook("finalize")


def fail(*_: Any) -> None:
    raise Disk("broken")


@pytest.fixture
def writer() -> Iterator[Broken]:
    writer = Broken("group")
    yield writer
    writer.hooks.clear()
    writer.abort()


def acquire(writer: Writer, *names: str, uri: str = "mem:/x") -> list[FrameSink]:
    writer.set_uri(uri)
    sinks = [writer.prepare(name, name, "<u2", (2, 3)) for name in names]
    writer.kickoff()
    return sinks


def works(writer: Broken) -> None:
    """Run a whole acquisition, to see that nothing is left of a failure."""
    assert not writer.is_open
    writer.hooks.clear()
    (sink,) = acquire(writer, "after", uri="mem:/after")
    sink.write(FRAME)
    assert writer.get_indices_written() == 1
    sink.close()
    assert not writer.is_open
    assert len(writer.frames["after"]) == 1


class TestFormat:
    def test_r01_writer_is_abstract(self):
        """R-01: five methods make a format; none of them is mimetype."""
        with pytest.raises(TypeError, match="abstract"):
            Writer("x")  # type: ignore[abstract]
        assert Broken("x").mimetype == "application/x-test-broken"

    @pytest.mark.parametrize(
        "missing",
        ["_class_mimetype", "_on_prepare", "kickoff", "_write_frame", "_finalize"],
    )
    def test_r01_each_of_the_five_is_needed(self, missing: str):
        """R-01: a format without one of them cannot be made."""
        methods = {
            name: lambda *_: None
            for name in (
                "_class_mimetype",
                "_on_prepare",
                "kickoff",
                "_write_frame",
                "_finalize",
            )
            if name != missing
        }
        with pytest.raises(TypeError, match=missing):
            type("Partial", (Writer,), methods)("x")

    @pytest.mark.parametrize("name", ["", " ", "a\0b", None, 3])
    def test_r02_the_name_is_validated(self, name: Any):
        """R-02: an empty group is refused; a path is a fine name."""
        with pytest.raises(PathError):
            Broken(name)
        assert Broken("/data/beam time").name == "/data/beam time"

    def test_r12_set_uri_may_be_overridden(self):
        """R-12: a format sees the call; the documents carry the URI that is real."""

        class Suffixed(Broken):
            def set_uri(self, uri: str) -> None:
                super().set_uri(f"{uri}.store")

        writer = Suffixed("x")
        (sink,) = acquire(writer, "cam", uri="mem:/x")
        sink.write(FRAME)
        documents = dict(writer.collect_stream_docs("cam", 1))
        assert writer.uri == "mem:/x.store"
        assert documents["stream_resource"]["uri"] == "mem:/x.store/cam" == sink.uri

    def test_r26_kickoff_opens_once(self, writer: Broken):
        """R-26: three kickoffs, one opening, whatever the format does."""
        acquire(writer, "cam")
        writer.kickoff()
        writer.kickoff()
        assert writer.calls.count("kickoff") == 1

    def test_r26_two_threads_open_once(self, writer: Broken):
        """R-26: devices that kick off at the same moment share one opening."""
        inside = threading.Event()
        go_on = threading.Event()

        def slow() -> None:
            inside.set()
            assert go_on.wait(30)

        writer.hooks["kickoff"] = slow
        writer.set_uri("mem:/x")
        threads = [threading.Thread(target=writer.kickoff) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert inside.wait(30)
        go_on.set()
        for thread in threads:
            thread.join(30)
        assert writer.calls.count("kickoff") == 1
        assert writer.is_open

    def test_r26_a_format_may_extend_another(self):
        """R-26: super().kickoff() runs the kickoff above once."""

        class Child(Broken):
            def kickoff(self) -> None:
                self.calls.append("child")
                super().kickoff()

        writer = Child("x")
        acquire(writer, "cam")
        writer.kickoff()
        assert writer.calls == ["prepare", "child", "kickoff"]
        assert writer.is_open

    def test_r49_the_life_of_a_store_is_logged(
        self, writer: Broken, caplog: pytest.LogCaptureFixture
    ):
        """R-49: debug lines with the writer as a field."""
        caplog.set_level(logging.DEBUG, "bluesky_beamtime.storage")
        (sink,) = acquire(writer, "cam")
        sink.write(FRAME)
        sink.close()
        writer.clear_sources()
        said = [record.getMessage().split(" of ")[0] for record in caplog.records]
        assert said == [
            "set_uri",
            "prepare",
            "kickoff",
            "finalize",
            "complete",
            "clear_sources",
        ]
        assert {getattr(r, "writer", None) for r in caplog.records} == {"group"}
        assert writer.logger.name == "bluesky_beamtime.storage"


class TestFailures:
    def test_r14_prepare_that_fails(self, writer: Broken):
        """R-14: nothing is registered, and what was registered before stays."""
        first = writer.prepare("cam", "cam", "<u2", (2, 3))
        writer.hooks["prepare"] = fail
        with pytest.raises(Disk):
            writer.prepare("cam", "cam", "<f8", (9,))
        with pytest.raises(Disk):
            writer.prepare("other", "other", "<f8", (9,))
        assert set(writer.sources) == {"cam"}
        assert writer.sources["cam"].dtype == np.dtype("<u2")
        writer.hooks.clear()
        writer.set_uri("mem:/x")
        writer.kickoff()
        first.write(FRAME)
        first.close()
        works(writer)

    def test_r15_late_join_that_fails(self, writer: Broken):
        """R-15: the store goes on without the one that could not join."""
        (cam,) = acquire(writer, "cam")
        cam.write(FRAME)
        writer.hooks["join"] = fail
        with pytest.raises(Disk):
            writer.prepare("late", "late", "<u2", (2, 3))
        assert set(writer.sources) == {"cam"}
        cam.write(FRAME)
        cam.close()
        assert len(writer.frames["cam"]) == 2
        works(writer)

    def test_r28_kickoff_that_fails(self, writer: Broken):
        """R-28, R-08: not open, metadata cleared, and the URI may be tried again."""
        register_metadata("cam", {"gain": 1})
        writer.hooks["kickoff"] = fail
        writer.set_uri("mem:/x")
        sink = writer.prepare("cam", "cam", "<u2", (2, 3))
        for _ in range(2):
            with pytest.raises(Disk):
                writer.kickoff()
            assert not writer.is_open
            with pytest.raises(StoreStateError):
                sink.write(FRAME)
        assert snapshot_metadata() == {}
        writer.hooks.clear()
        writer.kickoff()
        sink.write(FRAME)
        sink.close()
        assert len(writer.frames["cam"]) == 1
        works(writer)

    def test_r32_finalize_that_fails(self, writer: Broken):
        """R-32: the error comes out, and the writer is ready for the next time."""
        register_metadata("cam", {"gain": 1})
        (sink,) = acquire(writer, "cam")
        sink.write(FRAME)
        writer.hooks["finalize"] = fail
        with pytest.raises(Disk):
            sink.close()
        assert sink.closed
        assert snapshot_metadata() == {}
        sink.close()
        assert writer.calls.count("finalize") == 1
        works(writer)

    def test_r32_complete_that_fails(self, writer: Broken):
        """R-32: a source that cannot be closed ends the acquisition all the same."""
        one, two = acquire(writer, "one", "two")
        one.write(FRAME)
        two.write(FRAME)
        writer.hooks["complete"] = lambda name: fail() if name == "one" else None
        with pytest.raises(Disk):
            one.close()
        assert one.closed and writer.is_open
        # It is tried again, and says so again.
        with pytest.raises(Disk):
            one.close()
        assert writer.calls.count("complete") == 2
        two.close()
        assert not writer.is_open
        writer.hooks.clear()
        one.close()
        assert one.frames_published == 1
        assert writer.calls.count("complete") == 4
        one.close()
        assert writer.calls.count("complete") == 4
        assert writer.calls.count("finalize") == 1
        works(writer)

    def test_abort_reports_the_first_failure_and_closes_everything(
        self, writer: Broken
    ):
        one, two = acquire(writer, "one", "two")
        one.write(FRAME)
        two.write(FRAME)
        writer.hooks["complete"] = fail
        writer.hooks["finalize"] = fail
        with pytest.raises(Disk):
            writer.abort()
        assert one.closed and two.closed
        assert writer.calls.count("complete") == 2
        writer.abort()
        works(writer)

    def test_r37_write_that_fails(self, writer: Broken):
        """R-37: the count is that of the safe frames; trying again is allowed."""
        (sink,) = acquire(writer, "cam")
        sink.write(FRAME)
        writer.hooks["write"] = fail
        with pytest.raises(Disk):
            sink.write(FRAME)
        with pytest.raises(Disk):
            sink.submit(FRAME).result(30)
        assert sink.frames_written == writer.get_indices_written("cam") == 1
        writer.hooks.clear()
        sink.write(FRAME)
        assert sink.frames_written == 2
        sink.close()
        works(writer)

    def test_r37_write_many_that_fails_half_way(self, writer: Broken):
        """R-37: the leading frames that are safe are counted."""
        (sink,) = acquire(writer, "cam")
        left = iter([True, True, True])
        writer.hooks["write"] = lambda _: None if next(left, False) else fail()
        with pytest.raises(Disk):
            sink.write_many([FRAME] * 5)
        assert sink.frames_written == len(writer.frames["cam"]) == 3
        sink.close()
        works(writer)

    def test_submitted_frames_behind_a_failure_fail_with_it(self, writer: Broken):
        """No frame is stored behind one that was lost; what comes later is new."""
        (sink,) = acquire(writer, "cam")
        reached = threading.Event()
        go_on = threading.Event()

        failures = iter([True])

        def hold(_: str) -> None:
            reached.set()
            assert go_on.wait(30)
            if next(failures, False):
                fail()

        writer.hooks["write"] = hold
        futures = [sink.submit(FRAME) for _ in range(4)]
        assert reached.wait(30)
        go_on.set()
        for future in futures:
            assert isinstance(future.exception(30), Disk)
        assert writer.calls.count("write") == 1
        assert sink.frames_written == 0
        assert writer.sources["cam"].in_flight == 0
        writer.hooks.clear()
        assert sink.submit(FRAME).result(30) == 0
        sink.close()
        works(writer)

    def test_frames_that_fail_on_their_way_give_their_places_back(self, writer: Broken):
        """R-18: capacity counts what is stored, not what was lost."""
        writer.set_uri("mem:/x")
        sink = writer.prepare("cam", "cam", "<u2", (2, 3), capacity=2)
        writer.kickoff()
        writer.hooks["write"] = fail
        for _ in range(3):
            assert isinstance(sink.submit(FRAME).exception(30), Disk)
        writer.hooks.clear()
        assert [sink.submit(FRAME).result(30) for _ in range(2)] == [0, 1]


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


class TestThreads:
    def test_r36_a_source_is_written_by_one_thread_at_a_time(self, writer: Broken):
        """R-36: two writes of one source never overlap."""
        (sink,) = acquire(writer, "cam")
        inside = 0
        most = 0

        def write(_: str) -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            for _ in range(50):
                pass
            inside -= 1

        writer.hooks["write"] = write

        def produce() -> None:
            for _ in range(50):
                sink.write(FRAME)

        threads = [in_thread(produce) for _ in range(6)]
        for thread in threads:
            thread.join(30)
        assert most == 1
        assert sink.frames_written == 300

    def test_r36_sources_do_not_wait_for_each_other(self, writer: Broken):
        """R-36: each write ends only when the other source's has begun."""
        one, two = acquire(writer, "one", "two")
        both = threading.Barrier(2)
        writer.hooks["write"] = lambda _: both.wait(30) and None
        thread = in_thread(lambda: one.write(FRAME))
        two.write(FRAME)
        thread.join(30)
        assert one.frames_written == two.frames_written == 1

    def test_closing_waits_for_the_frame_that_is_being_written(self, writer: Broken):
        """An unstage that runs while the last frame is written loses nothing."""
        (sink,) = acquire(writer, "cam")
        inside, go_on = threading.Event(), threading.Event()

        def write(_: str) -> None:
            inside.set()
            assert go_on.wait(30)

        writer.hooks["write"] = write
        writing = in_thread(lambda: sink.write(FRAME))
        assert inside.wait(30)
        closing = in_thread(sink.close)
        go_on.set()
        writing.join(30)
        closing.join(30)
        assert sink.frames_written == len(writer.frames["cam"]) == 1
        assert writer.calls[-2:] == ["complete", "finalize"]

    def test_a_store_is_not_finalised_over_a_frame_on_its_way(self, writer: Broken):
        """R-29: a submitted first frame counts as one that was received."""
        one, two = acquire(writer, "one", "two")
        one.write(FRAME)
        inside, go_on = threading.Event(), threading.Event()

        def write(_: str) -> None:
            inside.set()
            assert go_on.wait(30)

        writer.hooks["write"] = write
        future = two.submit(FRAME)
        assert inside.wait(30)
        closing = in_thread(one.close)
        # Closing one may wait for two's frame, but must not finalise before it.
        go_on.set()
        assert future.result(30) == 0
        closing.join(30)
        assert not closing.is_alive()
        assert writer.is_open
        two.close()
        assert writer.calls.count("finalize") == 1

    def test_a_future_may_close_its_sink(self, writer: Broken):
        """A callback runs on a worker, which cannot wait for itself."""
        (sink,) = acquire(writer, "cam")
        go_on = threading.Event()
        writer.hooks["write"] = lambda _: go_on.wait(30) and None
        failures: list[BaseException] = []
        done = threading.Event()

        def close(_: Any) -> None:
            try:
                sink.close()
            except BaseException as error:
                failures.append(error)
            done.set()

        future = sink.submit(FRAME)
        future.add_done_callback(close)
        go_on.set()
        assert done.wait(30)
        assert failures == []
        assert not writer.is_open

    def test_kickoff_of_one_writer_does_not_wait_for_another(self):
        """Two writers that kick off at once look at each other and never wait."""
        slow, quick = Broken.get("slow"), Broken.get("quick")
        inside, go_on = threading.Event(), threading.Event()

        def kickoff() -> None:
            inside.set()
            assert go_on.wait(30)

        slow.hooks["kickoff"] = kickoff
        slow.set_uri("mem:/slow")
        slow.prepare("cam", "cam", "<u2", (2, 3))
        blocked = in_thread(slow.kickoff)
        assert inside.wait(30)
        other = in_thread(lambda: acquire(quick, "cam", uri="mem:/quick"))
        other.join(30)
        stuck = other.is_alive()
        go_on.set()
        blocked.join(30)
        other.join(30)
        assert not stuck
        assert slow.is_open and quick.is_open

    def test_writing_waits_for_a_kickoff_that_is_going_on(self, writer: Broken):
        """A frame that comes while the store is being opened is not refused."""
        inside, go_on = threading.Event(), threading.Event()

        def kickoff() -> None:
            inside.set()
            assert go_on.wait(30)

        writer.hooks["kickoff"] = kickoff
        writer.set_uri("mem:/x")
        sink = writer.prepare("cam", "cam", "<u2", (2, 3))
        starting = in_thread(writer.kickoff)
        assert inside.wait(30)
        writing = in_thread(lambda: sink.write(FRAME))
        go_on.set()
        starting.join(30)
        writing.join(30)
        assert sink.frames_written == 1


class TestSubmission:
    def test_the_queue_is_bounded(self, writer: Broken):
        """submit blocks while the queue is full: memory stays flat."""
        (sink,) = acquire(writer, "cam")
        go_on = threading.Event()
        writer.hooks["write"] = lambda _: go_on.wait(30) and None
        first = sink.submit(FRAME)
        limit = writer.sources["cam"].queue.limit  # type: ignore[union-attr]
        extra = limit + 3

        def produce() -> None:
            for _ in range(extra):
                sink.submit(FRAME)

        producer = in_thread(produce)
        # It waits for room as soon as the queue is full.
        while sink.submission.waits == 0 and producer.is_alive():
            pass
        assert sink.submission.submitted <= limit
        go_on.set()
        producer.join(30)
        sink.close()
        assert first.result() == 0
        assert sink.frames_written == extra + 1
        assert sink.submission.most_queued <= limit
        assert sink.submission.waits >= 1

    def test_the_frame_is_copied(self, writer: Broken):
        """The buffer may be used again as soon as submit returns."""
        (sink,) = acquire(writer, "cam")
        go_on = threading.Event()
        writer.hooks["write"] = lambda _: go_on.wait(30) and None
        buffer = FRAME.copy()
        futures = []
        for number in range(4):
            buffer[...] = number
            futures.append(sink.submit(buffer))
        buffer[...] = 99
        go_on.set()
        for future in futures:
            future.result(30)
        assert [int(frame[0, 0]) for frame in writer.frames["cam"]] == [0, 1, 2, 3]

    def test_no_worker_is_left(self, writer: Broken):
        """Closing the store ends its threads."""
        (sink,) = acquire(writer, "cam")
        sink.submit(FRAME).result(30)
        assert any(t.name.startswith("beamtime-frames") for t in threading.enumerate())
        sink.close()
        assert not any("'group'" in t.name for t in threading.enumerate())


def test_r16_a_ghosts_array_is_closed_when_the_next_acquisition_starts(
    tmp_path: Path, begin: Callable[..., tuple[Writer, list[FrameSink]]]
):
    """R-16, R-33: what a store keeps while it is open does not stay behind."""
    writer, (cam, ghost) = begin("cam", "ghost", folder="one")
    cam.write(np.zeros((4, 6), "<u2"))
    cam.close()
    begin("cam", folder="two", writer=writer)
    assert ghost.closed
    assert not (tmp_path / "one" / "ghost" / ".reserve").exists()
    assert len(open_frames(ghost.uri)) == 0
    with pytest.raises(SinkClosedError):
        ghost.write(np.zeros((4, 6), "<u2"))


@pytest.fixture
def quiet() -> Iterator[None]:
    yield
    ZarrWriter.release("any")


@pytest.mark.usefixtures("quiet")
def test_every_error_is_one_of_ours(tmp_path: Path):
    """Whoever wants to catch what the frame store raises needs one class."""
    writer = ZarrWriter.get("any")
    for use in (
        lambda: writer.set_uri("relative"),
        lambda: writer.prepare("..", "k", "<u2", (2,)),
        lambda: writer.prepare("cam", "k", "U5", (2,)),
        lambda: writer.prepare("cam", "k", "<u2", (2,), capacity=-1),
        writer.kickoff,
        lambda: writer.complete("nope"),
    ):
        with pytest.raises(StorageError):
            use()
