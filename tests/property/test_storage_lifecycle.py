"""The life of a store against a small model of it, in any order of calls."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from bluesky_beamtime.errors import (
    CapacityError,
    FrameMismatchError,
    SinkClosedError,
    StoreStateError,
    UnknownSourceError,
)
from bluesky_beamtime.storage import (
    FrameSink,
    Writer,
    ZarrWriter,
    from_uri,
    open_frames,
    verify_store,
)

SCALE = int(os.environ.get("BEAMTIME_TEST_SCALE", "1"))
# Calls that end everything must not end every second example.
SELDOM = st.sampled_from([True, False, False, False, False])
PICKS = st.integers(0, 15)
NAMES = st.sampled_from(["cam", "eiger", "pilatus"])


@dataclass(eq=False)
class Source:
    """What the model knows of one source."""

    name: str
    sink: FrameSink
    capacity: int
    acquisition: int
    frames: list[int] = field(default_factory=list[int])
    created: bool = False
    closed: bool = False
    announced: int = 0
    resource: str | None = None


def frame(number: int) -> np.ndarray[Any, Any]:
    return np.array([number, number + 1], "<u2")


class WriterLife(RuleBasedStateMachine):
    """Calls in any order; the model says what each of them must do."""

    @initialize(
        compression=st.sampled_from(["none", "lz4"]),
        per_shard=st.sampled_from([1, 3]),
        started=st.booleans(),
    )
    def begin(self, compression: str, per_shard: int, started: bool) -> None:
        where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=where))
        self.writer: Writer = ZarrWriter.get(
            f"life {id(self)}", compression=compression, frames_per_shard=per_shard
        )
        self.number = 0
        self.uris = 0
        self.fresh = False
        self.open = False
        self.acquisition = 0
        self.table: dict[str, Source] = {}
        self.all: list[Source] = []
        if started:
            self.start(["cam", "eiger"], 0)

    # ---------------------------------------------------------------- the model

    def current(self) -> list[Source]:
        newest = max((s.acquisition for s in self.table.values()), default=0)
        number = self.acquisition if self.open else newest
        return [s for s in self.table.values() if s.acquisition == number]

    def finish_if_done(self) -> None:
        waiting = [s for s in self.current() if not s.closed]
        if not self.open or any(s.frames for s in waiting):
            return
        if waiting and not any(s.frames for s in self.current()):
            return
        self.open = False

    def writable(self, source: Source) -> type[Exception] | None:
        """Return what a write must raise, None if it must work."""
        if source.closed:
            return SinkClosedError
        if self.open and source.created:
            return None
        stale = source.acquisition != self.acquisition or self.fresh
        return StoreStateError if not source.created or stale else None

    def pick(self, number: int) -> Source | None:
        """Return a source: mostly one that takes frames, sometimes any."""
        taking = [source for source in self.current() if not source.closed]
        some = taking if taking and number < 8 else self.all
        return some[number % len(some)] if some else None

    def has_array(self, source: Source) -> bool:
        """Say whether the array is there, and not made anew by a later source."""
        made = [s for s in self.all if s.created and s.sink.uri == source.sink.uri]
        return source.created and made[-1] is source

    # -------------------------------------------------------------------- rules

    @rule(
        names=st.lists(NAMES, min_size=1, max_size=3, unique=True),
        capacity=st.sampled_from([0, 4]),
    )
    def start(self, names: list[str], capacity: int) -> None:
        """Take the usual way into an acquisition, which single calls seldom find."""
        if not self.open:
            self.set_uri()
            for name in names:
                self.prepare(name, capacity)
            self.kickoff()

    @rule()
    def set_uri(self) -> None:
        uri = f"file://localhost{self.folder}/store%20{self.uris}"
        if self.open:
            try:
                self.writer.set_uri(uri)
            except StoreStateError:
                return
            raise AssertionError("set_uri while open")
        self.writer.set_uri(uri)
        self.uris += 1
        self.fresh = True
        assert self.writer.uri == uri

    @rule(name=NAMES, capacity=st.sampled_from([0, 0, 4]))
    def prepare(self, name: str, capacity: int) -> None:
        previous = self.table.get(name)
        refuse = (
            self.open
            and previous is not None
            and (bool(previous.frames) or not previous.closed)
        )
        try:
            sink = self.writer.prepare(name, name, "<u2", (2,), capacity)
        except StoreStateError:
            assert refuse
            return
        assert not refuse
        if previous is not None:
            previous.closed = True
        source = Source(name, sink, capacity, self.acquisition + (not self.open))
        source.created = self.open
        self.table[name] = source
        self.all.append(source)
        assert sink.frames_written == 0

    @rule()
    def kickoff(self) -> None:
        if self.open:
            self.writer.kickoff()
            assert self.writer.is_open
            return
        if not self.fresh:
            try:
                self.writer.kickoff()
            except StoreStateError:
                return
            raise AssertionError("kickoff without a fresh URI")
        self.writer.kickoff()
        for source in self.table.values():
            if source.acquisition <= self.acquisition:
                source.closed = True
        self.table = {
            name: source
            for name, source in self.table.items()
            if source.acquisition > self.acquisition and not source.closed
        }
        self.acquisition += 1
        self.open, self.fresh = True, False
        for source in self.table.values():
            source.created = True

    @rule(
        pick=PICKS,
        count=st.integers(1, 5),
        how=st.sampled_from(["write", "write_many", "submit"]),
    )
    def write(self, pick: int, count: int, how: str) -> None:
        source = self.pick(pick)
        if source is None:
            return
        if how == "write":
            count = 1
        numbers = list(range(self.number, self.number + count))
        self.number += count
        block = np.array([frame(number) for number in numbers])
        error = self.writable(source)
        room = source.capacity - len(source.frames) if source.capacity else count
        if error is None and room < count and how != "submit":
            error = CapacityError
        taken = count
        try:
            if how == "write":
                source.sink.write(block[0])
            elif how == "write_many":
                source.sink.write_many(block)
            else:
                taken = 0
                futures = []
                for one in block:
                    futures.append(source.sink.submit(one))
                    taken += 1
                indices = [future.result(30) for future in futures]
                start = len(source.frames)
                assert indices == list(range(start, start + count))
        except (SinkClosedError, StoreStateError, CapacityError) as raised:
            if how == "submit" and error is None:
                assert isinstance(raised, CapacityError)
                assert taken == room < count
                for future in futures:
                    future.result(30)
                numbers = numbers[:taken]
            else:
                assert error is not None and type(raised) is error
                numbers = []
        else:
            assert error is None
        if error is None:
            self.open = True
        source.frames += numbers
        assert source.sink.frames_written == len(source.frames)

    @rule(pick=PICKS)
    def write_something_else(self, pick: int) -> None:
        source = self.pick(pick)
        if source is None:
            return
        for wrong in (np.zeros(2, "<f4"), np.zeros(3, "<u2"), np.zeros((1, 2), "<u2")):
            try:
                source.sink.write(wrong)
            except FrameMismatchError:
                continue
            raise AssertionError("a frame of another kind was taken")

    @rule(pick=PICKS)
    def write_one(self, pick: int) -> None:
        self.write(pick, 1, "write")

    @rule(pick=PICKS)
    def publish(self, pick: int) -> None:
        source = self.pick(pick)
        if source is None:
            return
        count = source.sink.publish()
        assert count == source.sink.frames_published
        assert count == len(source.frames)
        if self.has_array(source):
            assert len(open_frames(source.sink.uri)) == count

    @rule(pick=PICKS, value=st.integers(0, 9))
    def set_attributes(self, pick: int, value: int) -> None:
        source = self.pick(pick)
        if source is None:
            return
        if source.sink.closed:
            with pytest.raises(SinkClosedError):
                source.sink.set_attributes({"value": value})
        else:
            source.sink.set_attributes({"value": value})

    @rule(pick=PICKS, through_the_writer=st.booleans())
    def close(self, pick: int, through_the_writer: bool) -> None:
        source = self.pick(pick)
        if source is None:
            return
        if through_the_writer and self.table.get(source.name) is source:
            self.writer.complete(source.name)
        else:
            source.sink.close()
        source.closed = True
        if self.table.get(source.name) is source:
            self.finish_if_done()
        if self.has_array(source):
            assert len(open_frames(source.sink.uri)) == len(source.frames)

    @rule(really=SELDOM)
    def abort(self, really: bool) -> None:
        if not really:
            return
        self.writer.abort()
        for source in self.table.values():
            source.closed = True
        self.open = False

    @rule(really=SELDOM)
    def release(self, really: bool) -> None:
        if not really:
            return
        receiving = [s for s in self.current() if s.frames and not s.closed]
        name = self.writer.name
        try:
            ZarrWriter.release(name)
        except StoreStateError:
            assert receiving
            return
        assert not receiving
        for source in self.table.values():
            source.closed = True
        # A fresh writer knows nothing of the old one.
        options = {
            "compression": self.writer.compression,  # type: ignore[attr-defined]
            "frames_per_shard": self.writer.frames_per_shard,  # type: ignore[attr-defined]
        }
        self.writer = ZarrWriter.get(name, **options)
        self.open = self.fresh = False
        self.acquisition = 0
        self.table = {}

    @rule(really=SELDOM)
    def clear_sources(self, really: bool) -> None:
        if not really:
            return
        receiving = [s for s in self.current() if s.frames and not s.closed]
        try:
            self.writer.clear_sources()
        except StoreStateError:
            assert receiving
            return
        assert not receiving
        for source in self.table.values():
            source.closed = True
        self.table = {}
        self.open = False

    @rule(name=NAMES, asked=st.integers(0, 12), take=st.sampled_from([0, 1, 2, 2, 2]))
    def collect(self, name: str, asked: int, take: int) -> None:
        source = self.table.get(name)
        if source is None:
            try:
                self.writer.collect_stream_docs(name, asked)
            except UnknownSourceError:
                return
            raise AssertionError("documents of an unknown source")
        documents = self.writer.collect_stream_docs(name, asked)
        stop = min(asked, len(source.frames))
        for _, (kind, document) in zip(range(take), documents, strict=False):
            if kind == "stream_resource":
                assert source.resource is None
                source.resource = document["uid"]
                assert document["uri"] == source.sink.uri
            else:
                assert document["stream_resource"] == source.resource
                indices = document["indices"]
                assert indices == {"start": source.announced, "stop": stop}
                source.announced = stop
                # A document never runs ahead of the data.
                assert len(open_frames(source.sink.uri)) >= stop
        documents.close()  # type: ignore[attr-defined]
        if take == 2:
            assert source.announced >= stop

    # --------------------------------------------------------------- invariants

    @invariant()
    def the_state_is_that_of_the_model(self) -> None:
        if not hasattr(self, "writer"):
            return
        assert self.writer.is_open == self.open
        assert set(self.writer.sources) == set(self.table)
        for source in self.table.values():
            assert source.sink.closed == source.closed
            assert source.sink.frames_written == len(source.frames)

    @precondition(lambda self: hasattr(self, "writer"))
    @invariant()
    def the_smallest_count_is_that_of_the_model(self) -> None:
        expected = min((len(s.frames) for s in self.current()), default=0)
        assert self.writer.get_indices_written() == expected

    def teardown(self) -> None:
        if not hasattr(self, "writer"):
            return
        try:
            self.writer.abort()
            ZarrWriter.release(self.writer.name)
            # An empty array may have been made anew by a later source of its name.
            created = {s.sink.uri: s for s in self.all if s.created}
            for uri, source in created.items():
                stored = open_frames(uri)
                assert stored.shape == (len(source.frames), 2)
                for number, got in zip(source.frames, stored, strict=True):
                    np.testing.assert_array_equal(got, frame(number))
            for store in {from_uri(uri.rpartition("/")[0]) for uri in created}:
                report = verify_store(store)
                assert report.ok, report.problems
                left = {name for _, _, names in os.walk(store) for name in names}
                assert not left & {".writer.lock", ".reserve"}
        finally:
            shutil.rmtree(self.folder)


TestWriterLife = WriterLife.TestCase
TestWriterLife.settings = settings(
    max_examples=120 * SCALE,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate, Phase.shrink),
    database=None,
)
