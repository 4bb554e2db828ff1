"""Documents over real sockets: bluesky's own proxy and publisher, a broker of Kafka."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from event_model import compose_run

from bluesky_beamtime import Beamtime
from bluesky_beamtime.recording.kafka_source import KafkaSource
from bluesky_beamtime.testing import assert_documents_equal

KEY = {"source": "s", "dtype": "number", "shape": []}
PROXY = """
import sys
from bluesky.callbacks.zmq import Proxy
proxy = Proxy(f"127.0.0.1:{sys.argv[1]}", f"127.0.0.1:{sys.argv[2]}")
print("ready", flush=True)
proxy.start()
"""
# Documents come in lines, so that the test says what is published and when.
PUBLISHER = """
import pickle, sys, time
from bluesky.callbacks.zmq import Publisher
publisher = Publisher(f"127.0.0.1:{sys.argv[1]}")
while True:
    line = sys.stdin.readline()
    if not line:
        break
    publisher(*pickle.loads(bytes.fromhex(line)))
"""


def documents(count: int) -> list[tuple[str, Any]]:
    run = compose_run(metadata={"plan_name": "count"})
    keys = {"x": KEY, "img": {**KEY, "dtype": "array", "shape": [2, 2]}}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    docs: list[tuple[str, Any]] = [("start", run.start_doc)]
    docs.append(("descriptor", stream.descriptor_doc))
    for n in range(count):
        data = {"x": float("nan") if n == 1 else n, "img": np.full((2, 2), n, "<u2")}
        stamps = {"x": 1.0, "img": 1.0}
        docs.append(("event", stream.compose_event(data=data, timestamps=stamps)))
    return [*docs, ("stop", run.compose_stop())]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def eventually(condition: Callable[[], Any], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.02)


class Network:
    """A proxy and a publisher in processes of their own."""

    def __init__(self) -> None:
        self.ports = free_ports(2)
        self.proxy = self._start_proxy()
        self.publisher = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(self.ports[0])],
            stdin=subprocess.PIPE,
            text=True,
        )

    @property
    def url(self) -> str:
        return f"zmq://127.0.0.1:{self.ports[1]}"

    def _start_proxy(self) -> subprocess.Popen[str]:
        proxy = subprocess.Popen(
            [sys.executable, "-c", PROXY, *map(str, self.ports)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == "ready\n"
        return proxy

    def restart_proxy(self) -> None:
        self._end(self.proxy)
        self.proxy = self._start_proxy()

    def publish(self, *docs: tuple[str, Any]) -> None:
        import pickle

        assert self.publisher.stdin is not None
        for doc in docs:
            self.publisher.stdin.write(pickle.dumps(doc).hex() + "\n")
        self.publisher.stdin.flush()

    def until_connected(self, heard: Callable[[], Any]) -> None:
        """Publish nothing in particular until somebody hears it."""
        deadline = time.monotonic() + 60
        while not heard():
            assert time.monotonic() < deadline, "nobody heard the publisher"
            self.publish(("nothing", {}))
            time.sleep(0.05)

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def close(self) -> None:
        self._end(self.publisher)
        self._end(self.proxy)


@pytest.fixture
def network() -> Iterator[Network]:
    pytest.importorskip("zmq")
    network = Network()
    yield network
    network.close()


@pytest.fixture
def beamtime(tmp_path: Path) -> Iterator[Beamtime]:
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime


class Ingesting:
    """An ingest in a thread."""

    def __init__(self, beamtime: Beamtime, url: Any) -> None:
        self.ingest = beamtime.ingest(url)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.ingest.run(until=self._stop.is_set)

    def __enter__(self) -> Any:
        return self.ingest.report

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.ingest.close()


# "nothing" is no kind of document: it goes to the journal with a warning.
pytestmark = pytest.mark.filterwarnings(
    "ignore::bluesky_beamtime.errors.BeamtimeWarning"
)


def test_a_publisher_in_another_process(network, beamtime) -> None:
    docs = documents(50)
    with Ingesting(beamtime, network.url) as report:
        network.until_connected(lambda: report.documents)
        network.publish(*docs)
        eventually(lambda: report.runs)
    assert report.ok
    assert_documents_equal(beamtime[-1].documents(), docs)


def test_a_proxy_that_goes_and_comes_back(network, beamtime) -> None:
    docs = documents(20)
    with Ingesting(beamtime, network.url) as report:
        network.until_connected(lambda: report.documents)
        network.publish(*docs[:10])
        eventually(lambda: len(beamtime) and beamtime[-1].num_events == 8)
        network.restart_proxy()
        before = report.documents
        network.until_connected(lambda: report.documents > before)
        network.publish(*docs[15:])
        eventually(lambda: report.runs)
    (run,) = report.runs
    assert run.gaps == ("events 9 to 13 of the stream 'primary' never came",)
    assert not beamtime[-1].complete
    assert beamtime.import_documents(docs).stored == 5
    assert_documents_equal(
        sorted(beamtime[-1].documents(), key=lambda pair: docs_order(pair, docs)), docs
    )


def docs_order(pair: tuple[str, Any], docs: list[tuple[str, Any]]) -> int:
    return [doc["uid"] for _, doc in docs].index(pair[1]["uid"])


def test_the_command_records_until_it_is_interrupted(network, tmp_path) -> None:
    path = tmp_path / "x.db"
    command = [sys.executable, "-m", "bluesky_beamtime", "ingest", network.url]
    process = subprocess.Popen(
        [*command, str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    journal = tmp_path / "x.journal.jsonl"
    try:
        network.until_connected(journal.exists)
        docs = documents(5)
        network.publish(*docs)
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert line == {"uid": docs[0][1]["uid"], "gaps": []}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    with Beamtime(path, mode="r") as beamtime:
        assert_documents_equal(beamtime[-1].documents(), docs)


def test_a_broker_of_kafka(beamtime) -> None:
    """The client's own broker for tests, over TCP and Kafka's protocol."""
    kafka = pytest.importorskip("confluent_kafka")
    producer = kafka.Producer(
        {"bootstrap.servers": "127.0.0.1", "test.mock.num.brokers": 1}
    )
    (broker,) = producer.list_topics(timeout=30).brokers.values()
    docs = documents(10)

    def publish(*some: tuple[str, Any]) -> None:
        for doc in some:
            content = msgpack.packb(doc, default=msgpack_numpy.encode)
            # One key, one partition: in their order, as bluesky-kafka does.
            producer.produce("bl1", content, key=b"bl1")
        assert producer.flush(30) == 0

    def source() -> KafkaSource:
        servers = f"{broker.host}:{broker.port}"
        settings = {
            "bootstrap.servers": servers,
            "group.id": "test",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # This broker forgets a consumer that has left only then.
            "session.timeout.ms": 6000,
        }
        return KafkaSource(servers, "bl1", consumer=kafka.Consumer(settings))

    publish(*docs[:6])
    with Ingesting(beamtime, source()) as report:
        eventually(lambda: report.documents == 6)
    publish(*docs[6:])
    with Ingesting(beamtime, source()) as again:
        eventually(lambda: again.runs)
    assert again.ok
    # What was committed did not come again.
    assert again.documents == len(docs) - 6
    assert_documents_equal(beamtime[-1].documents(), docs)


def test_an_address_of_kafka_is_connected_to(beamtime) -> None:
    pytest.importorskip("confluent_kafka")
    (port,) = free_ports(1)
    ingest = beamtime.ingest(f"kafka://127.0.0.1:{port}/bl1?group=other")
    assert ingest.run(idle=0.5).documents == 0
    ingest.close()
