"""Promise 2 as a state machine: documents of any kind, in any order that is allowed.

Runs are nested and overlap; streams are interleaved and described anew; events come
singly, in pages and in bulk; assets are legacy and streamed; the beamtime is closed and
opened in between, packed, and read while it is written.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from event_model import pack_datum_page, pack_event_page
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import Bundle as Among
from hypothesis.stateful import (
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
    run_state_machine_as_test,
)

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import BeamtimeWarning
from bluesky_beamtime.testing import assert_documents_equal

times = st.floats(0, 1e10)
fields = st.sampled_from(["x", "$x", "é/..", "seq_num", "time", "", "wave", "null"])
dtypes = st.sampled_from(["<f8", ">u2", "|b1", "<c16", "|i1", "<f2", "<U2", "|S3"])
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
values = (
    st.floats()
    | st.integers(-(2**70), 2**70)
    | st.complex_numbers(allow_nan=True)
    | st.text(max_size=4)
    | st.booleans()
    | st.none()
    | arrays
    | arrays.map(lambda array: array[()] if array.ndim == 0 else array.tolist())
    | st.sampled_from([np.float32("nan"), np.uint64(2**64 - 1), np.bool(False), b""])
    | st.just({"$float": "nan"})
)
details = st.dictionaries(st.sampled_from(["a", "$b", "units"]), values, max_size=2)
KEY = {"source": "s", "dtype": "number", "shape": []}


class Stream:
    """A stream that can take events."""

    def __init__(self, run: str, uid: str, names: list[str]) -> None:
        self.run, self.uid, self.fields = run, uid, names


class Documents(RuleBasedStateMachine):
    runs = Among("runs")
    streams = Among("streams")
    resources = Among("resources")
    arrays = Among("arrays")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "x.db")
        self.beamtime = Beamtime(self.path, on_error="raise")
        self.emitted: dict[str, list[tuple[str, Any]]] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.number = 0

    def uid(self, what: str) -> str:
        self.number += 1
        return f"{what}-{self.number}"

    def emit(self, run: str, name: str, doc: dict[str, Any]) -> None:
        self.emitted.setdefault(run, []).append((name, copy.deepcopy(doc)))
        self.beamtime(name, doc)

    def is_over(self, run: str) -> bool:
        return self.emitted[run][-1][0] == "stop"

    # ------------------------------------------------------------------ documents

    @rule(target=runs, time=times, more=details)
    def start(self, time: float, more: dict[str, Any]) -> str:
        run = self.uid("run")
        self.emit(run, "start", {"uid": run, "time": time, **more})
        return run

    @rule(
        target=streams,
        run=runs,
        name=st.sampled_from(["primary", "baseline", "Primary", "a/b", "é"]),
        names=st.lists(fields, min_size=1, max_size=3, unique=True),
        configuration=details,
        time=times,
    )
    def descriptor(
        self, run: str, name: str, names: list[str], configuration: Any, time: float
    ) -> Stream:
        uid = self.uid("d")
        if not self.is_over(run):
            doc = {
                "configuration": {"dev": {"data": configuration}},
                "data_keys": {field: {**KEY, "units": "é"} for field in names},
                "name": name,
                "object_keys": {"dev": names},
                "run_start": run,
                "time": time,
                "uid": uid,
                "hints": {},
            }
            self.emit(run, "descriptor", doc)
        return Stream(run, uid, names)

    def events(self, stream: Stream, data: Any, count: int) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for _ in range(count):
            key = (stream.run, stream.uid)
            self.counts[key] = self.counts.get(key, 0) + data.draw(
                st.sampled_from([0, 1, 1, 2])
            )
            made.append(
                {
                    "uid": self.uid("e"),
                    "time": data.draw(times | st.just(float("nan"))),
                    "data": {field: data.draw(values) for field in stream.fields},
                    "timestamps": {field: data.draw(times) for field in stream.fields},
                    "seq_num": self.counts[key],
                    "filled": dict.fromkeys(stream.fields[:1], False),
                    "descriptor": stream.uid,
                }
            )
        return made

    @rule(stream=streams, data=st.data())
    def event(self, stream: Stream, data: Any) -> None:
        if not self.is_over(stream.run):
            (event,) = self.events(stream, data, 1)
            keys = data.draw(st.permutations(list(event)))
            self.emit(stream.run, "event", {key: event[key] for key in keys})

    @rule(stream=streams, count=st.integers(1, 3), data=st.data())
    def event_page(self, stream: Stream, count: int, data: Any) -> None:
        if not self.is_over(stream.run):
            page = pack_event_page(*self.events(stream, data, count))
            self.emit(stream.run, "event_page", dict(page))

    @rule(stream=streams, count=st.integers(1, 2), data=st.data())
    def bulk_events(self, stream: Stream, count: int, data: Any) -> None:
        if not self.is_over(stream.run):
            events = self.events(stream, data, count)
            self.emit(stream.run, "bulk_events", {stream.uid: events})

    @rule(target=resources, run=runs, kwargs=details, with_run=st.booleans())
    def resource(self, run: str, kwargs: Any, with_run: bool) -> tuple[str, str]:
        uid = self.uid("res")
        doc = {
            "uid": uid,
            "spec": "AD_HDF5",
            "root": "/somewhere/é",
            "resource_path": "a/../b.h5",
            "resource_kwargs": kwargs,
            "path_semantics": "posix",
        }
        # Old detectors do not name their run: it is the newest that is open.
        newest = [uid for uid in self.emitted if not self.is_over(uid)][-1:]
        if not self.is_over(run):
            if with_run or newest != [run]:
                doc["run_start"] = run
            self.emit(run, "resource", doc)
        return run, uid

    def datums(self, resource: str, data: Any, count: int) -> list[dict[str, Any]]:
        return [
            {
                "resource": resource,
                "datum_kwargs": {"point": data.draw(values)},
                "datum_id": f"{resource}/{self.uid('datum')}",
            }
            for _ in range(count)
        ]

    @rule(
        resource=resources,
        data=st.data(),
        kind=st.sampled_from(["datum", "datum_page", "bulk_datum"]),
        count=st.integers(1, 3),
    )
    def datum(self, resource: tuple[str, str], data: Any, kind: str, count: int):
        run, uid = resource
        if self.is_over(run):
            return
        datums = self.datums(uid, data, 1 if kind == "datum" else count)
        doc: Any = datums[0]
        if kind == "datum_page":
            doc = dict(pack_datum_page(*datums))
        elif kind == "bulk_datum":
            doc = {
                "resource": uid,
                "datum_ids": [datum["datum_id"] for datum in datums],
                "datum_kwarg_list": [datum["datum_kwargs"] for datum in datums],
            }
        self.emit(run, kind, doc)

    @rule(target=arrays, run=runs, key=fields.filter(bool), parameters=details)
    def stream_resource(self, run: str, key: str, parameters: Any) -> tuple[str, str]:
        uid = self.uid("sres")
        if not self.is_over(run):
            doc = {
                "uid": uid,
                "data_key": key,
                "mimetype": "application/x-hdf5",
                "uri": "file://localhost/some%20where/a.h5",
                "parameters": {"dataset": "/a", **parameters},
                "run_start": run,
            }
            self.emit(run, "stream_resource", doc)
        return run, uid

    @rule(
        array=arrays,
        stream=streams,
        first=st.integers(0, 5),
        count=st.integers(0, 3),
        swapped=st.booleans(),
    )
    def stream_datum(
        self,
        array: tuple[str, str],
        stream: Stream,
        first: int,
        count: int,
        swapped: bool,
    ) -> None:
        run, uid = array
        if run != stream.run or self.is_over(run):
            return
        span = {"start": first, "stop": first + count}
        if swapped:
            span = {"stop": first + count, "start": first}
        doc = {
            "stream_resource": uid,
            "uid": f"{uid}/{self.uid('sd')}",
            "seq_nums": {"start": first + 1, "stop": first + 1 + count},
            "indices": span,
            "descriptor": stream.uid,
        }
        self.emit(run, "stream_datum", doc)

    @rule(run=consumes(runs), time=times, more=details)
    def stop(self, run: str, time: float, more: Any) -> None:
        doc = {
            "uid": self.uid("stop"),
            "time": time,
            "run_start": run,
            "exit_status": "success",
            "reason": "",
            "num_events": {},
            **more,
        }
        self.emit(run, "stop", doc)

    # ----------------------------------------------------------- what happens beside

    @rule(run=runs)
    def read_meanwhile(self, run: str) -> None:
        assert_documents_equal(self.beamtime[run].documents(), self.emitted[run])

    @rule()
    def open_again(self) -> None:
        # A resource without a run belongs to what is open in this process.
        open_runs = [run for run in self.emitted if not self.is_over(run)]
        if not open_runs:
            self.beamtime.close()
            self.beamtime = Beamtime(self.path, on_error="raise")

    @rule(run=runs, data=st.data())
    def emit_again(self, run: str, data: Any) -> None:
        """A document that comes twice is stored once."""
        name, doc = data.draw(st.sampled_from(self.emitted[run]))
        if "run_start" in doc or name not in ("resource", "stream_resource"):
            self.beamtime(name, copy.deepcopy(doc))

    def teardown(self) -> None:
        self.beamtime.pack()
        self.beamtime.close()
        with Beamtime(self.path, mode="r") as beamtime:
            assert len(beamtime) == len(self.emitted)
            for run, documents in self.emitted.items():
                found = beamtime[run]
                assert_documents_equal(found.documents(), documents)
                assert_documents_equal(found.documents(original=True), documents)
                for stream in found.streams.values():
                    with warnings.catch_warnings():
                        # The files of its frames are nowhere.
                        warnings.simplefilter("ignore", BeamtimeWarning)
                        assert stream.read() is not None
        assert not self.path.with_name("x.journal.jsonl").exists()
        self.folder.cleanup()


def test_documents_come_back_whatever_their_order() -> None:
    run_state_machine_as_test(
        Documents,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
