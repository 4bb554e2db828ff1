"""One suite over every Writer: the life of a store, rows R-07 to R-48.

A format joins by adding a :class:`Kind` to ``KINDS``.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from event_model import DocumentNames, schema_validators

from bluesky_beamtime.errors import (
    CapacityError,
    FrameMismatchError,
    PathError,
    SinkClosedError,
    StoreStateError,
    UnknownSourceError,
)
from bluesky_beamtime.storage import (
    FrameSink,
    HDF5Writer,
    Writer,
    ZarrWriter,
    clear_metadata,
    from_uri,
    register_metadata,
    snapshot_metadata,
)


class MemoryWriter(Writer):
    """The five methods that a format must have, and nothing else."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.stores: dict[str, dict[str, list[Any]]] = {}
        self.calls: list[str] = []

    @classmethod
    def _class_mimetype(cls) -> str:
        return "application/x-test-memory"

    def _on_prepare(self, name: str) -> None:
        self.calls.append(f"prepare {name}")

    def kickoff(self) -> None:
        self.calls.append("kickoff")
        self.stores[self.uri] = {}

    def _write_frame(self, name: str, frame: Any) -> None:
        # A writer must not keep the frame's memory.
        self.stores[self.uri].setdefault(name, []).append(frame.copy())

    def _finalize(self) -> None:
        self.calls.append("finalize")


class Kind:
    """How the suite makes one format's writers and reads their frames back."""

    cls: type[Writer]
    reopens = True
    """Whether a source may write its first frame after the store was finalised."""
    keeps_metadata = True
    suffix = ""
    """What stands behind a source's name in its URI."""

    def parameters(self, name: str) -> dict[str, Any]:
        """Return the parameters of a StreamResource for (2, 3) frames."""
        return {"array_name": name, "chunk_shape": [1, 2, 3]}

    def read(self, sink: FrameSink) -> np.ndarray[Any, Any]:
        """Read what a fresh reader sees, by other means than our own."""
        raise NotImplementedError

    def attributes(self, uri: str) -> dict[str, Any]:
        """Read the attributes of a store or array."""
        raise NotImplementedError


class ZarrKind(Kind):
    cls = ZarrWriter

    def read(self, sink: FrameSink) -> np.ndarray[Any, Any]:
        return np.asarray(zarr.open_array(from_uri(sink.uri), mode="r")[:])

    def attributes(self, uri: str) -> dict[str, Any]:
        return dict(zarr.open(from_uri(uri), mode="r").attrs)


class HDF5Kind(Kind):
    cls = HDF5Writer
    suffix = ".h5"

    def parameters(self, name: str) -> dict[str, Any]:
        where = {"dataset": "/entry/data/data", "swmr": True}
        return {**where, "chunk_shape": [1, 2, 3]}

    def read(self, sink: FrameSink) -> np.ndarray[Any, Any]:
        with h5py.File(from_uri(sink.uri), "r", swmr=True) as file:
            return file["entry/data/data"][:]

    def attributes(self, uri: str) -> dict[str, Any]:
        path = Path(from_uri(uri))
        # A store is a folder of files, and its attributes stand in each of them.
        place = "entry/data/data" if path.suffix == ".h5" else "entry"
        file = path if path.suffix == ".h5" else next(path.glob("*.h5"))
        with h5py.File(file, "r", swmr=True) as opened:
            found = dict(opened[place].attrs)
        return {key: self._plain(value) for key, value in found.items()}

    @staticmethod
    def _plain(value: Any) -> Any:
        if isinstance(value, bytes):
            text = value.decode()
            return json.loads(text) if text.startswith(("{", "[")) else text
        return value.tolist() if hasattr(value, "tolist") else value


class MemoryKind(Kind):
    cls = MemoryWriter
    reopens = False
    keeps_metadata = False

    def read(self, sink: FrameSink) -> np.ndarray[Any, Any]:
        writer = MemoryWriter.get("suite")
        store, _, name = sink.uri.rpartition("/")
        stored = writer.stores[store].get(name, [])
        return np.array(stored, sink.dtype).reshape(-1, *sink.shape)


def load_example() -> type[Writer]:
    """Return the writer that the how-to makes."""
    path = Path(__file__).parents[2] / "docs" / "examples" / "own_writer.py"
    spec = importlib.util.spec_from_file_location("own_writer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NpyWriter


class NpyKind(Kind):
    cls = load_example()
    reopens = False
    keeps_metadata = False
    suffix = ".npy"

    def read(self, sink: FrameSink) -> np.ndarray[Any, Any]:
        return np.load(from_uri(sink.uri))


KINDS = [
    pytest.param(NpyKind(), id="how-to"),
    pytest.param(ZarrKind(), id="zarr"),
    pytest.param(HDF5Kind(), id="hdf5"),
    pytest.param(MemoryKind(), id="minimal"),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def writer(kind: Kind) -> Iterator[Writer]:
    clear_metadata()
    yield kind.cls.get("suite")
    kind.cls.get("suite").abort()
    kind.cls.release("suite")
    clear_metadata()


@pytest.fixture
def next_uri(tmp_path: Path) -> Callable[[], str]:
    numbers = iter(range(1000))
    return lambda: f"file://localhost{tmp_path}/store_{next(numbers)}"


@pytest.fixture
def begin(
    writer: Writer, next_uri: Callable[[], str]
) -> Callable[..., list[FrameSink]]:
    """Start an acquisition with sources of (2, 3) uint16."""

    def start(*names: str, **options: Any) -> list[FrameSink]:
        writer.set_uri(next_uri())
        sinks = [writer.prepare(n, n, "<u2", (2, 3), **options) for n in names]
        writer.kickoff()
        return sinks

    return start


def frame(number: int) -> np.ndarray[Any, Any]:
    return np.full((2, 3), number, "<u2") + np.arange(6, dtype="<u2").reshape(2, 3)


def check(documents: list[tuple[str, dict[str, Any]]]) -> None:
    for name, document in documents:
        schema_validators[DocumentNames[name]].validate(document)


def test_r07_mimetype(writer: Writer, kind: Kind):
    """R-07: that of the class, and the documents say the same."""
    assert writer.mimetype == kind.cls.class_mimetype()


def test_r02_a_new_writer_is_empty(writer: Writer):
    """R-02, R-09: no URI, not open, no sources."""
    assert writer.uri == ""
    assert writer.is_open is False
    assert writer.get_indices_written() == 0
    assert writer.sources == {}


def test_r08_is_open_from_kickoff_to_the_last_close(
    writer: Writer, next_uri: Callable[[], str]
):
    """R-08: step by step, two sources."""
    writer.set_uri(next_uri())
    one = writer.prepare("one", "one", "<u2", (2, 3))
    two = writer.prepare("two", "two", "<u2", (2, 3))
    assert not writer.is_open
    writer.kickoff()
    assert writer.is_open
    one.write(frame(1))
    two.write(frame(1))
    one.close()
    assert writer.is_open
    two.close()
    assert not writer.is_open


def test_r08_without_any_frame_the_store_waits_for_every_source(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-08: sources that close before the first frame end the store together."""
    one, two = begin("one", "two")
    one.close()
    assert writer.is_open
    two.close()
    assert not writer.is_open


@pytest.mark.parametrize("uri", ["", None, 3])
def test_r10_set_uri_is_validated(writer: Writer, uri: Any):
    """R-10: what is no URI is refused at once."""
    with pytest.raises(PathError):
        writer.set_uri(uri)
    assert writer.uri == ""


def test_r10_a_uri_is_good_for_one_acquisition(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-10: a forgotten set_uri does not overwrite the scan before."""
    (sink,) = begin("cam")
    sink.write(frame(1))
    sink.close()
    writer.prepare("cam", "cam", "<u2", (2, 3))
    with pytest.raises(StoreStateError, match="set_uri"):
        writer.kickoff()
    assert not writer.is_open
    np.testing.assert_array_equal(kind.read(sink), [frame(1)])


def test_r11_set_uri_while_open_is_refused(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-11: RuntimeError that says 'open'; the URI stays."""
    begin("cam")
    before = writer.uri
    with pytest.raises(RuntimeError, match="open"):
        writer.set_uri("file:///elsewhere")
    assert writer.uri == before


def test_r13_out_of_order_steps_have_named_errors(
    writer: Writer, next_uri: Callable[[], str], kind: Kind
):
    """R-13, R-38: prepare may come before set_uri, nothing else may be early."""
    with pytest.raises(StoreStateError, match="no URI"):
        writer.kickoff()
    sink = writer.prepare("cam", "cam", "<u2", (2, 3))
    for early in (
        lambda: sink.write(frame(0)),
        lambda: sink.write_many([frame(0)]),
        lambda: sink.submit(frame(0)),
    ):
        with pytest.raises(StoreStateError, match="kickoff"):
            early()
    with pytest.raises(StoreStateError, match="no URI"):
        writer.kickoff()
    writer.set_uri(next_uri())
    with pytest.raises(StoreStateError, match="kickoff"):
        sink.write(frame(0))
    writer.kickoff()
    sink.write(frame(1))
    sink.close()
    np.testing.assert_array_equal(kind.read(sink), [frame(1)])


def test_r14_prepare_returns_a_bound_sink(writer: Writer):
    """R-14: with the declared properties and no frames."""
    sink = writer.prepare("cam", "key", np.uint16, (2, 3), capacity=5)
    assert isinstance(sink, FrameSink)
    assert (sink.name, sink.data_key) == ("cam", "key")
    assert (sink.dtype, sink.shape) == (np.dtype("u2"), (2, 3))
    assert writer.get_indices_written("cam") == 0
    assert sink.frames_written == sink.frames_published == 0
    assert not sink.closed


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": None},
        {"shape": None},
        {"shape": 5},
        {"shape": (2.5, 3)},
        {"shape": (-1, 3)},
        {"capacity": -1},
        {"dims": ("only one",)},
        {"dims": (1, 2)},
        {"name": ""},
        {"name": None},
    ],
)
def test_r14_a_failed_prepare_registers_nothing(writer: Writer, wrong: dict[str, Any]):
    """R-14, R-18: what is refused leaves no source behind."""
    good = {"name": "cam", "data_key": "cam", "dtype": "u2", "shape": (2, 3)}
    with pytest.raises((TypeError, ValueError)):
        writer.prepare(**{**good, **wrong})
    assert writer.sources == {}
    with pytest.raises(UnknownSourceError):
        writer.get_indices_written("cam")


def test_r15_a_source_may_join_an_open_store(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-15: late registration, without a second kickoff."""
    (one,) = begin("one")
    one.write(frame(1))
    two = writer.prepare("two", "two", "<f8", ())
    two.write(2.5)
    one.write(frame(2))
    one.close()
    assert writer.is_open
    two.close()
    assert not writer.is_open
    np.testing.assert_array_equal(kind.read(one), [frame(1), frame(2)])
    np.testing.assert_array_equal(kind.read(two), [2.5])


def test_r15_a_source_that_is_open_may_not_be_prepared_again(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-15: it goes on undisturbed; after close its array holds frames."""
    (sink,) = begin("cam")
    for _ in range(2):
        with pytest.raises(StoreStateError, match="cam"):
            writer.prepare("cam", "cam", "<u2", (2, 3))
    sink.write(frame(1))
    writer.prepare("other", "other", "<u2", (2, 3)).write(frame(9))
    sink.close()
    with pytest.raises(StoreStateError, match="cam"):
        writer.prepare("cam", "cam", "<u2", (2, 3))
    np.testing.assert_array_equal(kind.read(sink), [frame(1)])


def test_r16_preparing_again_starts_from_zero(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-16: the second acquisition counts from zero under a new resource."""
    (first,) = begin("cam")
    first.write_many([frame(n) for n in range(3)])
    first.close()
    uid = dict(writer.collect_stream_docs("cam", 3))["stream_resource"]["uid"]
    (second,) = begin("cam")
    assert second.frames_written == writer.get_indices_written("cam") == 0
    second.write(frame(7))
    assert dict(writer.collect_stream_docs("cam", 1))["stream_resource"]["uid"] != uid
    second.close()
    np.testing.assert_array_equal(kind.read(second), [frame(7)])


@pytest.mark.parametrize("when", ["before", "after", "late"])
def test_r16_an_old_sink_never_writes_into_the_next_acquisition(
    writer: Writer,
    next_uri: Callable[[], str],
    kind: Kind,
    when: str,
):
    """R-16: whether its name is prepared before kickoff, after it, or not at all."""
    writer.set_uri(next_uri())
    cam = writer.prepare("cam", "cam", "<u2", (2, 3))
    old = writer.prepare("ghost", "ghost", "<u2", (2, 3))
    writer.kickoff()
    cam.write(frame(1))
    cam.close()

    writer.set_uri(next_uri())
    cam = writer.prepare("cam", "cam", "<u2", (2, 3))
    new = None
    if when == "before":
        new = writer.prepare("ghost", "ghost", "<u2", (2, 3))
    writer.kickoff()
    with pytest.raises((SinkClosedError, StoreStateError)):
        old.write(frame(66))
    if when == "late":
        new = writer.prepare("ghost", "ghost", "<u2", (2, 3))
    for use in (
        lambda: old.write(frame(66)),
        lambda: old.write_many([frame(66)]),
        lambda: old.submit(frame(66)),
        lambda: old.set_attributes({"stray": 1}),
    ):
        with pytest.raises((SinkClosedError, StoreStateError)):
            use()
    assert old.publish() == old.frames_published == old.frames_written == 0
    old.close()
    cam.write(frame(2))
    if new is not None:
        assert not new.closed
        new.write(frame(3))
        new.close()
        np.testing.assert_array_equal(kind.read(new), [frame(3)])
    cam.close()
    assert not writer.is_open


def test_r17_two_sources_are_two_arrays(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-17: in one store, each with its own frames."""
    one, two = begin("one", "two")
    one.write(frame(1))
    two.write(frame(2))
    two.write(frame(3))
    one.close()
    two.close()
    assert one.uri == f"{writer.uri}/one{kind.suffix}"
    assert two.uri == f"{writer.uri}/two{kind.suffix}"
    np.testing.assert_array_equal(kind.read(one), [frame(1)])
    np.testing.assert_array_equal(kind.read(two), [frame(2), frame(3)])


def test_r17_two_sources_may_not_share_a_data_key(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-17: refused before kickoff and while open, free when the first is done."""
    writer.prepare("one", "key", "<u2", (2, 3))
    with pytest.raises(StoreStateError, match="data key"):
        writer.prepare("two", "key", "<u2", (2, 3))
    (three,) = begin("three")
    with pytest.raises(StoreStateError, match="data key"):
        writer.prepare("four", "three", "<u2", (2, 3))
    three.close()
    assert writer.is_open
    writer.prepare("four", "three", "<u2", (2, 3))


def test_r18_capacity_is_kept(begin: Callable[..., list[FrameSink]], kind: Kind):
    """R-18: the frame too many is refused, the count stays, the store is good."""
    (sink,) = begin("cam", capacity=2)
    sink.write(frame(1))
    with pytest.raises(CapacityError):
        sink.write_many([frame(2), frame(3)])
    assert sink.frames_written == 1
    sink.write(frame(2))
    for more in (
        lambda: sink.write(frame(3)),
        lambda: sink.write_many([frame(3)]),
        lambda: sink.submit(frame(3)),
    ):
        with pytest.raises(CapacityError):
            more()
    assert sink.frames_written == 2
    sink.close()
    np.testing.assert_array_equal(kind.read(sink), [frame(1), frame(2)])


@pytest.mark.parametrize("unlimited", [0, None])
def test_r18_zero_and_none_are_no_limit(
    begin: Callable[..., list[FrameSink]], unlimited: int | None
):
    """R-18: both spellings of 'as many as come'."""
    (sink,) = begin("cam", capacity=unlimited)
    sink.write_many([frame(n) for n in range(5)])
    assert sink.frames_written == 5


def test_r18_capacity_counts_frames_on_their_way(
    begin: Callable[..., list[FrameSink]], kind: Kind
):
    """R-18: exactly capacity submitted frames are taken, however the workers run."""
    for _ in range(20):
        (sink,) = begin("cam", capacity=3)
        futures = [sink.submit(frame(n)) for n in range(3)]
        with pytest.raises(CapacityError):
            sink.submit(frame(3))
        assert [future.result(30) for future in futures] == [0, 1, 2]
        sink.close()
    np.testing.assert_array_equal(kind.read(sink), [frame(0), frame(1), frame(2)])


def test_r18_capacity_holds_when_threads_race(
    begin: Callable[..., list[FrameSink]], kind: Kind
):
    """R-18: eight threads that write and submit at once get no frame over the limit."""
    (sink,) = begin("cam", capacity=40)
    refused: list[int] = []
    start = threading.Barrier(8)

    def produce(number: int) -> None:
        start.wait()
        for _ in range(10):
            try:
                if number % 2:
                    sink.write(frame(number))
                else:
                    sink.submit(frame(number)).result(30)
            except CapacityError:
                refused.append(number)

    run_all(produce, 8)
    assert sink.frames_written == 40
    assert len(refused) == 40
    sink.close()
    assert len(kind.read(sink)) == 40


WRONG = [
    np.zeros((8, 8), "<f8"),
    np.zeros((2, 3), "<f8"),
    np.zeros((2, 3), ">u2"),
    np.zeros((2, 3), "<i2"),
    np.zeros((3, 2), "<u2"),
    np.zeros((2, 3, 1), "<u2"),
    np.zeros((1, 2, 3), "<u2"),
    np.zeros(6, "<u2"),
    np.zeros((2, 2), "<u2"),
    np.zeros((0, 3), "<u2"),
    np.uint16(1),
    5,
    "text",
    None,
    b"\0" * 12,
    [[1, 2, 3], [4, 5, 6]],
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: f"{type(value).__name__}")
def test_r19_other_dtypes_and_shapes_are_refused(
    begin: Callable[..., list[FrameSink]], kind: Kind, wrong: Any
):
    """R-19: ValueError, nothing written or counted, the next frame in its place."""
    (sink,) = begin("cam")
    sink.write(frame(1))
    for use in (
        lambda: sink.write(wrong),
        lambda: sink.submit(wrong),
        lambda: sink.write_many(np.asarray(wrong)[np.newaxis]),
    ):
        with pytest.raises(FrameMismatchError) as caught:
            use()
        assert isinstance(caught.value, ValueError)
        assert caught.value.source == "cam"
    assert sink.frames_written == 1
    sink.write(frame(2))
    sink.close()
    np.testing.assert_array_equal(kind.read(sink), [frame(1), frame(2)])


@pytest.mark.parametrize("shape", [(), (7,), (4, 6), (3, 4, 3), (2, 1, 3, 2)])
def test_r20_any_rank(
    writer: Writer, next_uri: Callable[[], str], kind: Kind, shape: tuple[int, ...]
):
    """R-20: numbers, spectra, images, colour and volumes."""
    writer.set_uri(next_uri())
    sink = writer.prepare("cam", "cam", "<f4", shape)
    writer.kickoff()
    data = np.random.default_rng(0).normal(size=(5, *shape)).astype("<f4")
    sink.write(data[0])
    sink.write_many(data[1:3])
    sink.submit(data[3]).result(30)
    sink.write(data[4].copy(order="F"))
    sink.close()
    np.testing.assert_array_equal(kind.read(sink), data)


def test_r20_plain_numbers_for_frames_without_dimensions(
    writer: Writer, next_uri: Callable[[], str], kind: Kind
):
    """R-20, R-19: Python numbers are taken when they fit, refused when they do not."""
    writer.set_uri(next_uri())
    sink = writer.prepare("n", "n", "u1", ())
    writer.kickoff()
    sink.write(7)
    sink.write(np.uint8(8))
    sink.write(True)
    for wrong in (256, -1, 1.5, 1j, float("nan"), "1", np.int64(9)):
        with pytest.raises(FrameMismatchError):
            sink.write(wrong)
    sink.close()
    np.testing.assert_array_equal(kind.read(sink), [7, 8, 1])


def test_r21_r23_frames_of_one_source(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-21, R-23: what a fresh reader reads; an unknown name is a KeyError."""
    (sink,) = begin("cam")
    for n in range(3):
        sink.write(frame(n))
    assert writer.get_indices_written("cam") == 3
    with pytest.raises(KeyError, match="Unknown source 'nope'"):
        writer.get_indices_written("nope")


def test_r21_every_counted_frame_can_be_read(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-21: readable by others at the moment of the count, after every frame."""
    (sink,) = begin("cam")
    for n in range(12):
        sink.write(frame(n))
        assert writer.get_indices_written("cam") == n + 1
        np.testing.assert_array_equal(kind.read(sink)[n], frame(n))


def test_r22_the_smallest_count(begin: Callable[..., list[FrameSink]], writer: Writer):
    """R-22: the minimum over the sources of this acquisition; 0 without any."""
    assert writer.get_indices_written() == 0
    one, two = begin("one", "two")
    one.write_many([frame(n) for n in range(3)])
    two.write_many([frame(n) for n in range(5)])
    assert writer.get_indices_written() == 3
    one.close()
    two.close()
    assert writer.get_indices_written() == 3


def test_r22_sources_of_an_earlier_plan_do_not_count(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-22: a stale source does not drag the minimum down."""
    one, two = begin("one", "two")
    one.write(frame(1))
    one.close()
    two.close()
    (one,) = begin("one")
    one.write_many([frame(n) for n in range(4)])
    assert writer.get_indices_written() == 4
    with pytest.raises(UnknownSourceError):
        writer.get_indices_written("two")


def test_r24_reset_collection_state(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-24: a new resource, from index 0; an unknown name is a KeyError."""
    (sink,) = begin("cam")
    sink.write(frame(1))
    before = dict(writer.collect_stream_docs("cam", 1))
    writer.reset_collection_state("cam")
    after = dict(writer.collect_stream_docs("cam", 1))
    assert after["stream_resource"]["uid"] != before["stream_resource"]["uid"]
    assert after["stream_datum"]["indices"] == {"start": 0, "stop": 1}
    with pytest.raises(KeyError, match="nope"):
        writer.reset_collection_state("nope")


def test_r25_kickoff_without_uri(writer: Writer):
    """R-25: refused, and what other writers' devices staged stays staged."""
    register_metadata("theirs", {"x": 1})
    writer.prepare("cam", "cam", "<u2", (2, 3))
    with pytest.raises(RuntimeError, match="no URI"):
        writer.kickoff()
    assert not writer.is_open
    assert snapshot_metadata() == {"theirs": {"x": 1}}


def test_r27_kickoff_without_sources_is_an_empty_store(
    writer: Writer, next_uri: Callable[[], str], kind: Kind
):
    """R-27: an open store that sources join, or that abort() ends."""
    writer.set_uri(next_uri())
    writer.kickoff()
    assert writer.is_open
    writer.abort()
    assert not writer.is_open
    writer.set_uri(next_uri())
    writer.kickoff()
    sink = writer.prepare("cam", "cam", "<u2", (2, 3))
    sink.write(frame(1))
    sink.close()
    assert not writer.is_open
    np.testing.assert_array_equal(kind.read(sink), [frame(1)])


def test_r31_closing_an_old_sink_again_does_not_end_the_next_acquisition(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-31: not even one that nobody has joined yet."""
    (old,) = begin("cam")
    old.write(frame(1))
    old.close()
    begin()
    old.close()
    assert writer.is_open
    writer.abort()


def test_r29_the_last_close_finalises(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-29: complete() is what close() does; the writer stays registered."""
    one, two = begin("one", "two")
    one.write(frame(1))
    two.write(frame(1))
    writer.complete("one")
    assert one.closed and writer.is_open
    writer.complete("two")
    assert not writer.is_open
    assert type(writer).get("suite") is writer


def test_r30_complete_unknown(writer: Writer):
    """R-30: KeyError with the writer and the source in its message."""
    with pytest.raises(KeyError) as caught:
        writer.complete("nope")
    assert "nope" in str(caught.value) and "suite" in str(caught.value)


def test_r31_closing_twice_is_nothing(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-31, R-40: close, complete and abort may all come again."""
    (sink,) = begin("cam")
    sink.write(frame(1))
    for _ in range(2):
        sink.close()
        writer.complete("cam")
        writer.abort()
    assert not writer.is_open
    np.testing.assert_array_equal(kind.read(sink), [frame(1)])


def test_r33_a_source_that_was_never_used_does_not_keep_the_store_open(
    begin: Callable[..., list[FrameSink]], writer: Writer, next_uri: Callable[[], str]
):
    """R-33: the ghost is prepared and never written."""
    cam, _ghost = begin("cam", "ghost")
    cam.write(frame(1))
    cam.close()
    assert not writer.is_open
    writer.set_uri(next_uri())


def test_r33_a_source_prepared_for_the_next_time_does_not_either(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-33: nor does one that was prepared before kickoff and closed unused."""
    cam, ghost = begin("cam", "ghost")
    ghost.close()
    assert writer.is_open
    cam.write(frame(1))
    cam.close()
    assert not writer.is_open


def test_r33_a_late_first_frame_opens_the_store_again(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-33: the store that was finalised without a source takes it after all."""
    cam, late = begin("cam", "late")
    cam.write(frame(1))
    cam.close()
    assert not writer.is_open
    if not kind.reopens:
        with pytest.raises(StoreStateError):
            late.write(frame(2))
        return
    late.write(frame(2))
    assert writer.is_open
    late.close()
    assert not writer.is_open
    np.testing.assert_array_equal(kind.read(cam), [frame(1)])
    np.testing.assert_array_equal(kind.read(late), [frame(2)])


def test_a_source_that_was_closed_before_kickoff_takes_no_part(
    writer: Writer, next_uri: Callable[[], str]
):
    writer.set_uri(next_uri())
    gone = writer.prepare("gone", "gone", "<u2", (2, 3))
    cam = writer.prepare("cam", "cam", "<u2", (2, 3))
    gone.close()
    writer.kickoff()
    assert set(writer.sources) == {"cam"}
    with pytest.raises(SinkClosedError):
        gone.write(frame(1))
    cam.write(frame(1))
    assert writer.get_indices_written() == 1
    cam.close()
    assert not writer.is_open


def test_abort_closes_everything_with_exact_lengths(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-33: abort ends the acquisition whatever its state; what is written stays."""
    one, two = begin("one", "two")
    one.write_many([frame(n) for n in range(7)])
    writer.abort()
    writer.abort()
    assert not writer.is_open
    assert one.closed and two.closed
    assert len(kind.read(one)) == 7
    assert len(kind.read(two)) == 0
    with pytest.raises(SinkClosedError):
        one.write(frame(8))


def test_r34_one_writer_for_many_acquisitions(
    begin: Callable[..., list[FrameSink]], kind: Kind
):
    """R-34: back to back, with other shapes and sources."""
    sinks = []
    for number in range(4):
        names = [f"cam{n}" for n in range(number + 1)]
        sinks.append(begin(*names))
        for sink in sinks[-1]:
            sink.write_many([frame(number)] * (number + 1))
        for sink in sinks[-1]:
            sink.close()
    for number, acquisition in enumerate(sinks):
        for sink in acquisition:
            np.testing.assert_array_equal(
                kind.read(sink), [frame(number)] * (number + 1)
            )


def test_r35_clear_sources(
    begin: Callable[..., list[FrameSink]], writer: Writer, next_uri: Callable[[], str]
):
    """R-35: drops every source; refuses while one is receiving."""
    one, two = begin("one", "two")
    one.write(frame(1))
    with pytest.raises(StoreStateError, match="one"):
        writer.clear_sources()
    assert writer.is_open
    one.close()
    two.close()
    writer.clear_sources()
    assert writer.get_indices_written() == 0
    with pytest.raises(KeyError):
        writer.get_indices_written("one")
    # An open store that received nothing is closed on the way.
    begin("idle")
    writer.clear_sources()
    assert not writer.is_open
    writer.set_uri(next_uri())


def run_all(work: Callable[[int], None], count: int) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("how", ["write", "submit", "write_many"])
def test_r37_eight_threads_lose_nothing(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind, how: str
):
    """R-37: eight threads, a hundred frames each, into each of two arrays."""
    sinks = begin("one", "two")
    start = threading.Barrier(8)

    def produce(thread: int) -> None:
        # A camera that uses its buffer again.
        buffer = np.empty((2, 3), "<u2")
        start.wait()
        for number in range(100):
            for sink in sinks:
                buffer[...] = thread * 100 + number
                if how == "write":
                    sink.write(buffer)
                elif how == "submit":
                    sink.submit(buffer)
                elif number % 10 == 9:
                    last = thread * 100 + number
                    block = np.arange(last - 9, last + 1, dtype="<u2")
                    sink.write_many(np.tile(block[:, None, None], (1, 2, 3)))

    run_all(produce, 8)
    for sink in sinks:
        sink.close()
        assert sink.frames_written == writer.get_indices_written(sink.name) == 800
        stored = kind.read(sink)
        assert stored.shape == (800, 2, 3)
        # No frame is torn, each is there once, a thread's own are in their order.
        assert (stored == stored[:, :1, :1]).all()
        numbers = stored[:, 0, 0]
        assert sorted(numbers) == list(range(800))
        for thread in range(8):
            own = numbers[numbers // 100 == thread]
            assert (np.diff(own.astype(int)) == 1).all()


def test_submitted_frames_are_stored_in_their_order(
    begin: Callable[..., list[FrameSink]], kind: Kind
):
    """Futures resolve with the frames' indices; write comes after them."""
    (sink,) = begin("cam")
    futures = [sink.submit(frame(n)) for n in range(50)]
    sink.write(frame(50))
    assert wait(futures, 30).not_done == set()
    assert [future.result() for future in futures] == list(range(50))
    assert sink.submission.submitted == 50
    futures = [sink.submit(frame(n)) for n in range(51, 60)]
    # Closing waits for what is on its way.
    sink.close()
    assert all(future.done() for future in futures)
    np.testing.assert_array_equal(kind.read(sink), [frame(n) for n in range(60)])


def test_r39_writing_after_close_is_refused(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-39: also while another source keeps the store open."""
    one, two = begin("one", "two")
    one.write(frame(1))
    two.write(frame(1))
    one.close()
    assert writer.is_open
    for use in (
        lambda: one.write(frame(2)),
        lambda: one.write_many([frame(2)]),
        lambda: one.submit(frame(2)),
    ):
        with pytest.raises(SinkClosedError, match="one"):
            use()
    assert one.frames_written == 1
    two.close()
    with pytest.raises(SinkClosedError):
        two.write(frame(2))
    np.testing.assert_array_equal(kind.read(one), [frame(1)])


def test_r40_a_sink_is_a_context_manager(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-40: closes at the end, also when the block fails."""
    (sink,) = begin("cam")
    with pytest.raises(ZeroDivisionError), sink as same:
        assert same is sink
        sink.write(frame(1))
        raise ZeroDivisionError
    assert sink.closed and not writer.is_open
    np.testing.assert_array_equal(kind.read(sink), [frame(1)])


def test_r41_the_record_of_a_source(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-41: name, dtype, shape, data key, capacity and counters, in public."""
    (sink,) = begin("cam", capacity=9)
    sink.write_many([frame(1), frame(2)])
    list(writer.collect_stream_docs("cam", 1))
    source = writer.sources["cam"]
    assert (source.name, source.data_key, source.capacity) == ("cam", "cam", 9)
    assert (source.dtype, source.shape) == (np.dtype("<u2"), (2, 3))
    assert (source.frames_written, source.collection_counter) == (2, 1)
    assert not source.completed
    # It is a copy: nobody can lose a source through it.
    writer.sources.clear()
    assert "cam" in writer.sources


def test_r42_documents(
    begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind
):
    """R-42, R-46, R-47: resource first, then a datum; both fit event-model."""
    (sink,) = begin("cam")
    sink.write_many([frame(n) for n in range(3)])
    documents = list(writer.collect_stream_docs("cam", 10))
    check(documents)
    (_, resource), (_, datum) = documents
    assert [name for name, _ in documents] == ["stream_resource", "stream_datum"]
    assert resource == {
        "data_key": "cam",
        "mimetype": writer.mimetype,
        "parameters": kind.parameters("cam"),
        "uid": resource["uid"],
        "uri": f"{writer.uri}/cam{kind.suffix}",
    }
    assert datum == {
        "descriptor": "",
        "indices": {"start": 0, "stop": 3},
        "seq_nums": {"start": 0, "stop": 0},
        "stream_resource": resource["uid"],
        "uid": f"{resource['uid']}/0",
    }


def test_r43_nothing_to_report(begin: Callable[..., list[FrameSink]], writer: Writer):
    """R-43: no frames, none asked for, or none new."""
    (sink,) = begin("cam")
    assert list(writer.collect_stream_docs("cam", 5)) == []
    sink.write(frame(1))
    assert list(writer.collect_stream_docs("cam", 0)) == []
    assert list(writer.collect_stream_docs("cam", -1)) == []
    assert len(list(writer.collect_stream_docs("cam", 1))) == 2
    assert list(writer.collect_stream_docs("cam", 1)) == []


def test_r44_documents_go_on_where_they_stopped(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-44: the resource once, then only what is new."""
    (sink,) = begin("cam")
    sink.write_many([frame(1), frame(2)])
    first = list(writer.collect_stream_docs("cam", 2))
    sink.write_many([frame(3), frame(4)])
    ((name, datum),) = writer.collect_stream_docs("cam", 4)
    assert name == "stream_datum"
    assert datum["indices"] == {"start": 2, "stop": 4}
    assert datum["stream_resource"] == first[0][1]["uid"]


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_r44_an_abandoned_collection_is_continued(
    begin: Callable[..., list[FrameSink]], writer: Writer, taken: int
):
    """R-44: wherever a caller stops, nothing comes twice and nothing is skipped."""
    (sink,) = begin("cam")
    sink.write_many([frame(1), frame(2)])
    abandoned = writer.collect_stream_docs("cam", 2)
    got = [next(abandoned) for _ in range(taken)]
    abandoned.close()  # type: ignore[attr-defined]
    sink.write(frame(3))
    got += list(writer.collect_stream_docs("cam", 3))
    check(got)
    names = [name for name, _ in got]
    assert names.count("stream_resource") == 1
    assert names[0] == "stream_resource"
    ranges = [doc["indices"] for name, doc in got if name == "stream_datum"]
    assert ranges[0]["start"] == 0 and ranges[-1]["stop"] == 3
    assert all(a["stop"] == b["start"] for a, b in pairwise(ranges))
    assert len({doc["uid"] for _, doc in got}) == len(got)


def test_r44_two_collectors_share_the_work(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-44: collecting from several threads announces every frame once."""
    (sink,) = begin("cam")
    documents: list[tuple[str, dict[str, Any]]] = []

    def work(number: int) -> None:
        for _ in range(50):
            if number == 0:
                sink.write(frame(1))
            documents.extend(writer.collect_stream_docs("cam", 1000))

    run_all(work, 4)
    documents.extend(writer.collect_stream_docs("cam", 1000))
    assert [name for name, _ in documents].count("stream_resource") == 1
    ranges = sorted(
        (doc["indices"]["start"], doc["indices"]["stop"])
        for name, doc in documents
        if name == "stream_datum"
    )
    assert ranges[0][0] == 0 and ranges[-1][1] == 50
    assert all(a[1] == b[0] for a, b in pairwise(ranges))


def test_r45_collecting_from_an_unknown_source(writer: Writer):
    """R-45: KeyError at the call, not at the first document."""
    with pytest.raises(KeyError, match="nope"):
        writer.collect_stream_docs("nope", 1)


def test_r42_collecting_reports_at_most_what_is_asked(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-42: min(asked, written)."""
    (sink,) = begin("cam")
    sink.write_many([frame(n) for n in range(5)])
    stops = [
        doc["indices"]["stop"]
        for asked in (2, 4, 99)
        for name, doc in writer.collect_stream_docs("cam", asked)
        if name == "stream_datum"
    ]
    assert stops == [2, 4, 5]


def test_r42_documents_can_be_collected_after_close(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-42: the last frames are announced although their sink is closed."""
    (sink,) = begin("cam")
    sink.write_many([frame(1), frame(2)])
    sink.close()
    documents = dict(writer.collect_stream_docs("cam", 2))
    assert documents["stream_datum"]["indices"] == {"start": 0, "stop": 2}


def test_r48_detectors_of_one_stream_report_equal_widths(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    """R-48: collecting each at the group's minimum gives equal ranges."""
    one, two = begin("one", "two")
    widths = []
    for count in (3, 2):
        one.write_many([frame(n) for n in range(count)])
        two.write(frame(0))
        ready = writer.get_indices_written()
        widths.append(
            [
                doc["indices"]
                for source in ("one", "two")
                for name, doc in writer.collect_stream_docs(source, ready)
                if name == "stream_datum"
            ]
        )
    assert widths == [[{"start": n, "stop": n + 1}] * 2 for n in range(2)]


def test_metadata_lands_in_store_and_array(
    writer: Writer, next_uri: Callable[[], str], kind: Kind
):
    """R-67, R-70: staged metadata of early and late sources, once."""
    register_metadata("cam", {"gain": 3})
    register_metadata("optics", {"energy": 12.0})
    writer.set_uri(next_uri())
    cam = writer.prepare("cam", "cam", "<u2", (2, 3), units="counts")
    writer.kickoff()
    register_metadata("late", {"gain": 4})
    late = writer.prepare("late", "late", "<u2", (2, 3))
    assert writer.metadata == {
        "cam": {"gain": 3},
        "optics": {"energy": 12.0},
        "late": {"gain": 4},
    }
    uri = writer.uri
    for sink in (cam, late):
        sink.write(frame(1))
    if kind.keeps_metadata:
        assert kind.attributes(uri)["metadata"] == writer.metadata
    for sink in (cam, late):
        sink.close()
    assert snapshot_metadata() == {}
    if kind.keeps_metadata:
        assert kind.attributes(uri)["metadata"] == writer.metadata
        assert kind.attributes(cam.uri)["metadata"] == {"gain": 3}
        assert kind.attributes(cam.uri)["units"] == "counts"
        assert kind.attributes(late.uri)["metadata"] == {"gain": 4}
    writer.set_uri(next_uri())
    writer.prepare("cam", "cam", "<u2", (2, 3))
    writer.kickoff()
    assert writer.metadata == {}


def test_attributes_reach_the_array(
    writer: Writer, next_uri: Callable[[], str], kind: Kind
):
    """Attributes set before kickoff, while writing and before close are all there."""
    writer.set_uri(next_uri())
    sink = writer.prepare("cam", "cam", "<u2", (2, 3))
    sink.set_attributes({"before": 1, "changed": "early"})
    writer.kickoff()
    sink.write(frame(1))
    sink.set_attributes({"accounting": {"received": 1}, "changed": "late"})
    sink.publish()
    if kind.keeps_metadata:
        assert kind.attributes(sink.uri)["accounting"] == {"received": 1}
    sink.set_attributes({"last": [1, 2]})
    sink.close()
    if kind.keeps_metadata:
        attributes = kind.attributes(sink.uri)
        assert attributes["before"] == 1
        assert attributes["changed"] == "late"
        assert attributes["last"] == [1, 2]


def test_flush(begin: Callable[..., list[FrameSink]], writer: Writer, kind: Kind):
    """flush publishes and syncs one source or all; an unknown one is a KeyError."""
    one, two = begin("one", "two")
    one.write(frame(1))
    two.write(frame(2))
    writer.flush("one")
    assert one.frames_published == 1
    writer.flush()
    assert two.frames_published == 1
    assert len(kind.read(two)) == 1
    with pytest.raises(UnknownSourceError):
        writer.flush("nope")
    one.close()
    two.close()
    writer.flush()


def test_repr_answers_the_next_question(
    begin: Callable[..., list[FrameSink]], writer: Writer
):
    assert "idle" in repr(writer)
    (sink,) = begin("cam")
    sink.write(frame(1))
    assert writer.uri in repr(writer)
    assert "1 frames" in repr(sink) and "open" in repr(sink)
    sink.close()
    assert "closed" in repr(sink)
