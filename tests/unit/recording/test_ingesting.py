"""What arrives over a network: each document once, and what never came is said."""

from __future__ import annotations

import copy
import datetime as dt
import enum
import os
import pickle
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from event_model import compose_run

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import decode, encode
from bluesky_beamtime.errors import DatabaseWriteError, DocumentError, ServerError
from bluesky_beamtime.recording import Ingest, Message
from bluesky_beamtime.recording.kafka_source import KafkaSource
from bluesky_beamtime.recording.pickled import unpickle
from bluesky_beamtime.recording.sources import open_source
from bluesky_beamtime.recording.zmq_source import read_message
from bluesky_beamtime.testing import assert_documents_equal

KEY = {"source": "s", "dtype": "number", "shape": []}
FRAMES = {**KEY, "external": "STREAM:", "shape": [2, 3]}


class FakeSource:
    """Messages in portions, as a network delivers them."""

    def __init__(self, *portions: Iterable[Any]) -> None:
        self.portions = [list(portion) for portion in portions]
        self.acknowledged = 0
        self.closed = False

    def poll(self, timeout: float) -> list[Message]:
        portion = self.portions.pop(0) if self.portions else []
        return [m if isinstance(m, Message) else Message(*m) for m in portion]

    def acknowledge(self) -> None:
        self.acknowledged += 1

    def close(self) -> None:
        self.closed = True


def documents(count: int = 6, frames: bool = False) -> list[tuple[str, Any]]:
    run = compose_run(metadata={})
    keys = {"x": KEY} if not frames else {"cam": FRAMES}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    docs: list[tuple[str, Any]] = [("start", run.start_doc)]
    docs.append(("descriptor", stream.descriptor_doc))
    if frames:
        resource = run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri="file://localhost/nowhere.h5",
            data_key="cam",
            parameters={},
        )
        docs.append(("stream_resource", resource.stream_resource_doc))
        for n in range(count):
            datum = resource.compose_stream_datum(
                seq_nums={"start": n + 1, "stop": n + 2},
                indices={"start": n, "stop": n + 1},
                descriptor=stream.descriptor_doc,
            )
            docs.append(("stream_datum", datum))
    else:
        for n in range(count):
            event = stream.compose_event(data={"x": n}, timestamps={"x": 1.0})
            docs.append(("event", event))
    stop = run.compose_stop()
    return [*docs, ("stop", {**stop, "num_events": {"primary": count}})]


def receive(beamtime: Beamtime, *portions: Iterable[Any]) -> Ingest:
    ingest = beamtime.ingest(FakeSource(*portions))
    try:
        ingest.run(until=lambda: not ingest._source.portions)
    finally:
        ingest.close()
    return ingest


@pytest.fixture
def beamtime(tmp_path):
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime


def test_documents_are_recorded_and_may_come_twice(beamtime) -> None:
    docs = documents()
    ingest = receive(beamtime, docs[:4], docs[2:], docs)
    assert ingest.report.ok
    assert ingest.report.documents == 4 + len(docs[2:]) + len(docs)
    assert {run.uid for run in ingest.report.runs} == {docs[0][1]["uid"]}
    assert ingest._source.acknowledged == 3 and ingest._source.closed
    assert_documents_equal(beamtime[-1].documents(), docs)
    assert beamtime[-1].complete


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize(
    ("lost", "missing"),
    [([0], "1"), ([2, 3], "3 to 4"), ([1, 5], "2, 6"), (range(6), None)],
)
def test_what_never_came_is_said_and_mended(
    beamtime, tmp_path, frames, lost, missing
) -> None:
    docs = documents(frames=frames)
    first = 3 if frames else 2
    came = [doc for n, doc in enumerate(docs) if n - first not in lost]
    ingest = receive(beamtime, came)
    (run,) = ingest.report.runs
    assert not ingest.report.ok
    assert any(missing is None or missing in gap for gap in run.gaps)
    assert all("never came" in gap for gap in run.gaps)
    assert not beamtime[-1].complete
    assert "incomplete" in repr(beamtime[-1])
    assert beamtime.import_documents(docs).ok
    assert beamtime[-1].complete
    assert not (tmp_path / "x.journal.jsonl").exists()


def test_a_stream_that_never_came(beamtime) -> None:
    docs = documents()
    ingest = receive(beamtime, [docs[0], docs[-1]])
    (run,) = ingest.report.runs
    assert run.gaps == ("the stream 'primary' with its 6 events never came",)


@pytest.mark.filterwarnings("ignore::bluesky_beamtime.errors.BeamtimeWarning")
def test_a_run_whose_start_never_came_is_kept_in_the_journal(
    beamtime, tmp_path
) -> None:
    docs = documents()
    seen: list[Any] = []
    ingest = beamtime.ingest(FakeSource(docs[1:]), on_run=seen.append)
    report = ingest.run(runs=1)
    ingest.close()
    assert report.runs == seen
    assert seen[0].gaps == (
        f"its start never came; {len(docs) - 1} documents are in the journal",
    )
    lines = (tmp_path / "x.journal.jsonl").read_bytes().splitlines()
    kept = [(entry["name"], entry["doc"]) for entry in map(decode, lines)]
    assert_documents_equal(kept, docs[1:])
    assert len(beamtime) == 0


def test_messages_that_are_no_documents(beamtime, tmp_path) -> None:
    docs = documents()
    bad = Message(None, b"\xff\x00", "a message is no msgpack")
    ingest = receive(beamtime, [*docs[:2], bad, *docs[2:]])
    assert ingest.report.problems == ["a message is no msgpack"]
    assert_documents_equal(beamtime[-1].documents(), docs)
    (line,) = (tmp_path / "x.journal.jsonl").read_bytes().splitlines()
    assert decode(line)["doc"] == b"\xff\x00"


def test_a_full_disk_is_waited_for(beamtime, monkeypatch) -> None:
    docs = documents()
    ingest = beamtime.ingest(FakeSource(docs))
    recorder, failures = ingest._recorder, [1, 2]

    def full_at_first(name: str, doc: Any) -> None:
        if failures:
            failures.pop()
            raise DatabaseWriteError("no space left")
        recorder(name, doc)

    monkeypatch.setattr(ingest, "_recorder", full_at_first)
    monkeypatch.setattr(ingest, "_look_for_strays", lambda *args: None)
    monkeypatch.setattr("bluesky_beamtime.recording.ingesting._RETRY", 0.0)
    assert ingest.run(idle=0.0).ok
    recorder.close()
    assert_documents_equal(beamtime[-1].documents(), docs)


def test_it_stops_when_nothing_comes(beamtime) -> None:
    ingest = beamtime.ingest(FakeSource())
    assert ingest.run(idle=0.0).documents == 0
    ingest.close()


# ------------------------------------------------------------------- what is in them


class Mode(enum.StrEnum):
    A = "a b"


DOC = {
    "nan": float("nan"),
    "array": np.arange(6, dtype=">u2").reshape(2, 3),
    "scalar": np.float64(1.5),
    "complex": 1 - 2j,
    "text": "é",
    "tuple": (1, [2]),
}
PLAIN = {key: DOC[key] for key in ("nan", "text", "tuple")}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_documents(protocol) -> None:
    doc = {**DOC, "when": dt.datetime(2026, 1, 1), "set": {1}, "mode": Mode.A}
    content = b"p event " + pickle.dumps(doc, protocol)
    message = read_message(content)
    assert message.problem is None
    # NumPy's own pickles lose the byte order before protocol 5.
    array = pickle.loads(pickle.dumps(DOC["array"], protocol))
    expected = {**doc, "mode": "a b", "array": array}
    assert_documents_equal([("x", message.doc)], [("x", expected)])


@pytest.mark.parametrize(
    ("doc", "serialize"),
    [
        (DOC, lambda doc: msgpack.packb(doc, default=msgpack_numpy.encode)),
        (PLAIN, lambda doc: encode(doc).encode()),
    ],
)
def test_documents_in_msgpack_and_json(doc, serialize) -> None:
    message = read_message(b" event " + serialize(doc))
    assert (message.name, message.problem) == ("event", None)
    assert_documents_equal([("x", message.doc)], [("x", doc)])


class Evil:
    def __init__(self, path: Any) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_executes_nothing(tmp_path) -> None:
    evil = tmp_path / "evil"
    for value in (Evil(evil), {"a": [Evil(evil)]}, np.array([Evil(evil)], object)):
        with suppress(DocumentError):
            unpickle(pickle.dumps(value))
        assert not evil.exists()
    with pytest.raises(DocumentError, match="it is a class"):
        unpickle(pickle.dumps(compose_run))
    with pytest.raises(DocumentError, match="refused"):
        unpickle(pickle.dumps(ValueError("a", "b")))


def test_nothing_that_arrives_makes_it_fail() -> None:
    rng = np.random.default_rng(0)
    good = [
        b" event " + pickle.dumps(DOC),
        b" event " + msgpack.packb(DOC, default=msgpack_numpy.encode),
        b" event " + encode(PLAIN).encode(),
    ]
    for number in range(600):
        content = bytearray(good[number % 3])
        for place in rng.integers(0, len(content), 4):
            content[place] = rng.integers(0, 256)
        message = read_message(bytes(content[: rng.integers(0, len(content) + 1)]))
        assert message.problem is not None or isinstance(message.doc, dict)


# --------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "url", ["http://x", "kafka://x", "kafka:///topic", "x.db", "zmq://", "tcp://a:b"]
)
def test_addresses_that_are_none(url) -> None:
    with pytest.raises(ServerError):
        open_source(url)


class FakeKafkaError:
    def __init__(self, *, fatal: bool) -> None:
        self._fatal = fatal

    def fatal(self) -> bool:
        return self._fatal


class FakeKafkaMessage:
    def __init__(self, value: bytes | None, error: Any = None) -> None:
        self._value, self._error = value, error

    def value(self) -> bytes | None:
        return self._value

    def error(self) -> Any:
        return self._error


class FakeConsumer:
    def __init__(self, *messages: FakeKafkaMessage) -> None:
        self.messages = list(messages)
        self.calls: list[Any] = []

    def subscribe(self, topics: list[str]) -> None:
        self.calls.append(("subscribe", topics))

    def poll(self, timeout: float) -> Any:
        return self.messages.pop(0) if self.messages else None

    def commit(self, *, asynchronous: bool) -> None:
        self.calls.append(("commit", len(self.messages)))

    def close(self) -> None:
        self.calls.append("close")


def test_kafka_commits_what_is_stored(beamtime) -> None:
    docs = documents()
    content = [msgpack.packb(doc, default=msgpack_numpy.encode) for doc in docs]
    content.insert(3, b"\xc1")
    messages = [FakeKafkaMessage(each) for each in content]
    messages.insert(2, FakeKafkaMessage(None, FakeKafkaError(fatal=False)))
    consumer = FakeConsumer(*copy.copy(messages))
    ingest = beamtime.ingest(KafkaSource("x:1", "bl1", consumer=consumer))
    report = ingest.run(runs=1)
    ingest.close()
    assert len(report.problems) == 1
    assert_documents_equal(beamtime[-1].documents(), docs)
    assert consumer.calls == [("subscribe", ["bl1"]), ("commit", 0), "close"]


def test_kafka_that_refuses_for_good(beamtime) -> None:
    broken = FakeKafkaMessage(None, FakeKafkaError(fatal=True))
    ingest = beamtime.ingest(KafkaSource("x:1", "t", consumer=FakeConsumer(broken)))
    with pytest.raises(ServerError, match="Kafka at x:1 refused"):
        ingest.run()
    ingest.close()
