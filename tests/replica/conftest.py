"""A PostgreSQL server, a line to it that can fail in every way, and runs to record."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database.replica import PostgresTestServer
from bluesky_beamtime.storage.backends.s3_server import S3TestServer
from tests.postgres import need_postgres
from tests.s3 import new_bucket

Documents = list[tuple[str, dict[str, Any]]]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres(postgres_server: PostgresTestServer) -> PostgresTestServer:
    """Give the server that all tests share; it is not to be stopped."""
    return postgres_server


@pytest.fixture
def own_postgres() -> Iterator[PostgresTestServer]:
    """Give a server that may be held and killed."""
    need_postgres()
    with PostgresTestServer() as server:
        yield server


@pytest.fixture
def url(postgres: PostgresTestServer) -> str:
    """URL of an empty database."""
    return postgres.create_database(f"beamtime_{next(_numbers)}")


@pytest.fixture
def ask(url: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Ask the server in SQL, beside the package."""
    import psycopg

    def ask(query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(url) as connection:
            return connection.execute(query, values or None).fetchall()

    return ask


@pytest.fixture
def bucket(s3_server: S3TestServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket, which the environment says how to reach."""
    point_at(monkeypatch, s3_server.endpoint)
    return new_bucket(s3_server)


def point_at(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


class Line:
    """A line to a server, which can be cut, mute or slow; connections go through it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.mode = "whole"
        """``whole``, ``cut`` (refuses), ``mute`` (swallows all), ``slow``."""
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def fail(self, mode: str) -> None:
        """Fail from now on; ``cut`` drops what is connected."""
        self.mode = mode
        if mode == "cut":
            self._drop()

    def mend(self) -> None:
        """Work again; what was swallowed is gone, so those connections are dropped."""
        mode, self.mode = self.mode, "whole"
        if mode == "mute":
            self._drop()

    def _drop(self) -> None:
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "cut":
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            self._start(self._pump, near, far)
            self._start(self._pump, far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.mode == "mute":
                    continue
                if self.mode == "slow":
                    time.sleep(0.05)
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self._drop()
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        for thread in self._threads:
            thread.join(5)
        with self._lock:
            for each in self._open:
                each.close()


@pytest.fixture
def line() -> Iterator[Callable[[int], Line]]:
    lines: list[Line] = []

    def line(port: int) -> Line:
        lines.append(Line(port))
        return lines[-1]

    yield line
    for each in lines:
        each.close()


# ---------------------------------------------------------------------------- documents

KEY = {"source": "s", "dtype": "number", "shape": []}


def make_run(events: int = 2, **metadata: Any) -> Documents:
    bundle = compose_run(metadata={"plan_name": "count", "scan_id": 1, **metadata})
    stream = bundle.compose_descriptor(name="primary", data_keys={"x": KEY})
    found: Documents = [
        ("start", bundle.start_doc),
        ("descriptor", stream.descriptor_doc),
    ]
    for number in range(events):
        event = stream.compose_event(data={"x": float(number)}, timestamps={"x": 1.0})
        found.append(("event", event))
    return [*found, ("stop", bundle.compose_stop())]


def make_rich_run(**metadata: Any) -> Documents:
    """Return a run with every kind of document, and values of every kind."""
    bundle = compose_run(
        metadata={"plan_name": "scan", "scan_id": 7, "text": "a\0b ü 💎", **metadata}
    )
    keys = {
        "x": KEY,
        "word": {"source": "s", "dtype": "string", "shape": []},
        "image": {"source": "s", "dtype": "array", "shape": [3, 4]},
        "file": {"source": "s", "dtype": "array", "shape": [2], "external": "FILE:"},
        "cam": {"source": "s", "dtype": "array", "shape": [2], "external": "STREAM:"},
    }
    stream = bundle.compose_descriptor(name="primary", data_keys=keys)
    baseline = bundle.compose_descriptor(name="baseline", data_keys={"x": KEY})
    found: Documents = [
        ("start", bundle.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("descriptor", baseline.descriptor_doc),
    ]
    resource = bundle.compose_resource(
        spec="NPY_SEQ", root="/data", resource_path="a/b", resource_kwargs={"n": 1}
    )
    found.append(("resource", resource.resource_doc))
    frames = bundle.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri="file://localhost/elsewhere/a.h5",
        data_key="cam",
        parameters={"dataset": "/entry/data"},
    )
    found.append(("stream_resource", frames.stream_resource_doc))
    values = [1.0, float("nan"), float("inf"), -0.0, 2**70, 0.1]
    for number, value in enumerate(values):
        datum = resource.compose_datum(datum_kwargs={"index": number})
        found.append(("datum", datum))
        data = {
            "x": value,
            "word": f"w\0{number}",
            "image": np.full((3, 4), number, "<i4"),
            "file": datum["datum_id"],
        }
        stamps = dict.fromkeys(data, 1.0)
        event = stream.compose_event(
            data=data, timestamps=stamps, filled={"file": False}, validate=False
        )
        found.append(("event", event))
        found.append(
            (
                "stream_datum",
                frames.compose_stream_datum(
                    indices={"start": number, "stop": number + 1},
                    seq_nums={"start": number + 1, "stop": number + 2},
                    descriptor=stream.descriptor_doc,
                ),
            )
        )
    event = baseline.compose_event(data={"x": 3}, timestamps={"x": 1.0})
    return [*found, ("event", event), ("stop", bundle.compose_stop())]


def record(beamtime: Beamtime, documents: Documents) -> str:
    for name, doc in documents:
        beamtime(name, doc)
    return documents[0][1]["uid"]


def caught_up(beamtime: Beamtime, seconds: float = 90) -> None:
    replica = beamtime.replica
    assert replica is not None
    assert replica.wait(seconds), replica


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def beamtime(url: str, tmp_path: Path) -> Iterator[Beamtime]:
    """Give a beamtime that a server follows."""
    with Beamtime(url, spool=tmp_path, sample="LaB6") as beamtime:
        yield beamtime
