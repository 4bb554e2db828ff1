"""Cameras whose frames are known, and the documents of their runs."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import (
    AcquisitionThread,
    Camera,
    FrameReceiver,
    FrameStamp,
)
from bluesky_beamtime.storage import FrameStore, from_uri
from bluesky_beamtime.testing import assert_documents_equal
from tests.integration.trouble import Beamline, beamline


class NumberedSource:
    """Frames whose pixels all hold the frame's number, one every `period` seconds.

    With ``gate`` set to a semaphore a frame comes for each release.
    """

    def __init__(self, shape: tuple[int, ...] = (6, 8), period: float = 0.0) -> None:
        self.shape = shape
        self.dtype = np.dtype("<u2")
        self.period = period
        self.exposures: list[float | None] = []
        self.starts: list[int] = []
        self.stops = 0
        self.next = 0
        self.gate: threading.Semaphore | None = None
        self.fail_at: int | None = None
        self.silent = False
        self.wrong_frame_at: int | None = None
        self._thread: AcquisitionThread | None = None

    async def configure(self, exposure: float | None) -> None:
        self.exposures.append(exposure)

    async def start(self, number: int, receiver: FrameReceiver) -> None:
        self.starts.append(number)

        def acquire(stopping: threading.Event) -> None:
            taken = 0
            while not (number and taken == number):
                if self.gate is not None:
                    while not self.gate.acquire(timeout=0.01):
                        if stopping.is_set():
                            return
                if stopping.wait(self.period) or self.silent:
                    stopping.wait()
                    return
                if self.next == self.fail_at:
                    raise OSError("the cable was pulled")
                shape = self.shape
                if self.next == self.wrong_frame_at:
                    shape = (3, 3)
                number_ = self.next
                self.next += 1
                taken += 1
                stamp = FrameStamp(id=number_, time=1000.0 + number_)
                receiver.frame(np.full(shape, number_, self.dtype), stamp)

        self._thread = AcquisitionThread("numbered", acquire, receiver)

    async def stop(self) -> None:
        self.stops += 1
        if self._thread is not None:
            await self._thread.stop()
            self._thread = None


class Run:
    """The documents of one or more runs, checked as they come."""

    def __init__(self) -> None:
        self.docs: list[tuple[str, dict[str, Any]]] = []
        self.unreadable: list[str] = []
        self._uris: dict[str, str] = {}

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        import copy

        import event_model
        import zarr

        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
        self.docs.append((name, copy.deepcopy(doc)))
        if name == "stream_resource":
            self._uris[doc["uid"]] = doc["uri"]
        elif name == "stream_datum":
            # What a fresh reader with nothing but zarr-python sees at this moment.
            path = from_uri(self._uris[doc["stream_resource"]])
            rows = zarr.open_array(path, mode="r").shape[0]
            per_event = self.rows_per_event(doc)
            if rows < doc["indices"]["stop"] * per_event:
                self.unreadable.append(f"{path}: {rows} rows, {doc['indices']}")

    def __getitem__(self, name: str) -> list[dict[str, Any]]:
        return [doc for kind, doc in self.docs if kind == name]

    @property
    def by_name(self) -> dict[str, list[dict[str, Any]]]:
        """The documents as ``ophyd_async.testing.assert_emitted`` takes them."""
        return {name: self[name] for name, _ in self.docs}

    def rows_per_event(self, datum: dict[str, Any]) -> int:
        (resource,) = (
            doc
            for doc in self["stream_resource"]
            if doc["uid"] == datum["stream_resource"]
        )
        (descriptor,) = (
            doc for doc in self["descriptor"] if doc["uid"] == datum["descriptor"]
        )
        key = descriptor["data_keys"][resource["data_key"]]
        frame_dims = len(resource["parameters"]["chunk_shape"]) - 1
        return key["shape"][0] if len(key["shape"]) > frame_dims else 1

    def resources(self, key: str) -> list[dict[str, Any]]:
        return [doc for doc in self["stream_resource"] if doc["data_key"] == key]

    def indices(self, key: str) -> list[tuple[int, int]]:
        """Announced rows of a key, as (start, stop), in the order of the datums."""
        uids = {doc["uid"] for doc in self.resources(key)}
        return [
            (doc["indices"]["start"], doc["indices"]["stop"])
            for doc in self["stream_datum"]
            if doc["stream_resource"] in uids
        ]

    def seq_nums(self, key: str) -> list[tuple[int, int]]:
        uids = {doc["uid"] for doc in self.resources(key)}
        return [
            (doc["seq_nums"]["start"], doc["seq_nums"]["stop"])
            for doc in self["stream_datum"]
            if doc["stream_resource"] in uids
        ]

    def array(self, key: str, resource: int = -1) -> np.ndarray[Any, Any]:
        """Read everything behind a key with plain zarr-python."""
        import zarr

        uri = self.resources(key)[resource]["uri"]
        return np.asarray(zarr.open_array(from_uri(uri), mode="r")[...])

    def announced(self, key: str) -> list[int]:
        """First pixel of each row that was announced, in order."""
        uris = {doc["uid"]: doc["uri"] for doc in self.resources(key)}
        import zarr

        values: list[int] = []
        for doc in self["stream_datum"]:
            if doc["stream_resource"] in uris:
                path = from_uri(uris[doc["stream_resource"]])
                per_event = self.rows_per_event(doc)
                start, stop = (doc["indices"][k] * per_event for k in ("start", "stop"))
                rows = np.asarray(zarr.open_array(path, mode="r")[start:stop])
                values += rows.reshape(len(rows), -1)[:, 0].tolist()
        return values

    def account(self, key: str) -> dict[str, Any]:
        """All that is counted of the frames of a key."""
        import zarr

        uri = self.resources(key)[-1]["uri"]
        attributes = zarr.open_array(from_uri(uri), mode="r").attrs.asdict()
        return attributes["accounting"]

    def accounting(self, key: str) -> dict[str, int]:
        """The counters of the frames of a key."""
        counters = ("expected", "received", "dropped", "late", "written")
        account = self.account(key)
        return {name: account[name] for name in counters}

    @property
    def exit_status(self) -> str:
        return self["stop"][-1]["exit_status"]


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return FrameStore(tmp_path / "frames")


@pytest.fixture
def run(RE: Any) -> Iterator[Run]:
    """The documents that the RunEngine emits; all of them must have been readable."""
    run = Run()
    RE.subscribe(run)
    yield run
    assert run.unreadable == []


@pytest.fixture
def camera(RE: Any, store: FrameStore) -> Callable[..., Camera]:
    """Make a connected camera with a source of its own."""
    from ophyd_async.core import init_devices

    def make(name: str = "cam", **options: Any) -> Camera:
        with init_devices():
            camera = Camera(store, source=NumberedSource(**options), name=name)
        return camera

    return make


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait for a condition, with a deadline."""

    def wait(condition: Callable[[], Any], timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s"
            time.sleep(0.002)

    return wait


class Recorded:
    """A beamtime, and what a RunEngine emitted beside it."""

    def __init__(self, RE: Any, beamtime: Beamtime) -> None:
        self.RE, self.beamtime = RE, beamtime
        self.emitted: list[tuple[str, dict[str, Any]]] = []
        RE.subscribe(lambda name, doc: self.emitted.append((name, copy.deepcopy(doc))))

    def __call__(self, plan: Any, **metadata: Any) -> Any:
        """Run a plan, compare every run of it, and return the newest."""
        del self.emitted[:]
        self.RE(plan, **metadata)
        return self.check()

    def check(self) -> Any:
        for uid, documents in self.by_run().items():
            run = self.beamtime[uid]
            assert_documents_equal(run.documents(), documents)
            assert_documents_equal(run.documents(original=True), documents)
            assert run.complete
        return self.beamtime[-1]

    def by_run(self) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        runs: dict[str, list[Any]] = {}
        owner: dict[str, str] = {}
        for name, doc in self.emitted:
            keys = ("run_start", "descriptor", "resource")
            parent = next((doc[key] for key in keys if key in doc), None)
            uid = doc["uid"] if name == "start" else owner[parent]
            for key in ("uid", "datum_id"):
                if isinstance(doc.get(key), str):
                    owner[doc[key]] = uid
            runs.setdefault(uid, []).append((name, doc))
        return runs


@pytest.fixture
def line(RE: Any, tmp_path: Path) -> Iterator[Beamline]:
    with beamline(RE, tmp_path) as line:
        yield line


@pytest.fixture
def recorded(RE, tmp_path) -> Iterator[Recorded]:
    with Beamtime(tmp_path / "x.db", sample="LaB6", on_error="raise") as beamtime:
        beamtime.attach(RE)
        yield Recorded(RE, beamtime)
