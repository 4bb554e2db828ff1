"""Several processes on one file: writers, readers, nobody in anybody's way (R8)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run

from bluesky_beamtime import Beamtime
from bluesky_beamtime.testing import assert_documents_equal

KEY = {"source": "s", "dtype": "number", "shape": []}
IMAGE = {"source": "s", "dtype": "array", "shape": [4, 4]}

# Answers each line of its input with how many events of the newest run it sees.
READER = """
import json, sys
from bluesky_beamtime import Beamtime
with Beamtime(sys.argv[1], mode="r") as beamtime:
    print("ready", flush=True)
    for line in sys.stdin:
        run = beamtime[-1]
        dataset = run.primary.read()
        newest = float(dataset["img"][-1].mean()) if dataset.sizes["time"] else None
        print(json.dumps([len(list(run.documents())), dataset.sizes["time"], newest]))
        sys.stdout.flush()
"""

WRITER = """
import sys
import numpy as np
from event_model import compose_run
from bluesky_beamtime import Beamtime
key = {"source": "s", "dtype": "number", "shape": []}
image = {"source": "s", "dtype": "array", "shape": [16, 24]}
with Beamtime(sys.argv[1], sample=sys.argv[2], on_error="raise") as beamtime:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(sys.argv[3])):
        md = {"scan_id": beamtime.next_scan_id(), "writer": sys.argv[2]}
        bundle = compose_run(metadata=md)
        data_keys = {"x": key, "img": image}
        stream = bundle.compose_descriptor(name="primary", data_keys=data_keys)
        beamtime("start", bundle.start_doc)
        beamtime("descriptor", stream.descriptor_doc)
        for point in range(int(sys.argv[4])):
            data = {"x": point, "img": np.full((16, 24), point, "u2")}
            event = stream.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0))
            beamtime("event", event)
        beamtime("stop", bundle.compose_stop())
"""

# Reads everything over and over until its input ends; every run must be whole.
LOOKER = """
import sys, threading
from bluesky_beamtime import Beamtime
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
rounds = seen = 0
with Beamtime(sys.argv[1], mode="r") as beamtime:
    while not ended.is_set() or not rounds:
        for run in beamtime.search()[:5]:
            stopped = run.stop is not None
            names = []
            for name, doc in run.documents():
                names.append(name)
                if name == "event":
                    assert (doc["data"]["img"] == doc["data"]["x"]).all(), doc
            events = names.count("event")
            if stopped:
                assert names[-1] == "stop" and events == int(sys.argv[2]), names
            data = run.primary.read() if "primary" in run else None
            if data is not None:
                assert data["x"].values.tolist() == list(range(data.sizes["time"]))
                assert data.sizes["time"] >= events
                images = data["img"].values
                assert (images == data["x"].values[:, None, None]).all(), images
            seen += 1
        rounds += 1
print(rounds, seen)
"""


def start(script: str, *arguments: Any) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    return child


def ready(child: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line == "ready\n", child.communicate()[1]
    return child


def ask(child: subprocess.Popen[str]) -> Any:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("?\n")
    return json.loads(child.stdout.readline())


def finish(child: subprocess.Popen[str]) -> str:
    out, errors = child.communicate(timeout=100)
    assert child.returncode == 0, errors
    assert errors == ""
    return out


def test_another_process_sees_each_event_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Beamtime(path) as beamtime:
        bundle = compose_run()
        stream = bundle.compose_descriptor(name="primary", data_keys={"img": IMAGE})
        documents: list[Any] = [
            ("start", bundle.start_doc),
            ("descriptor", stream.descriptor_doc),
        ]
        for name, doc in documents:
            beamtime(name, doc)
        reader = ready(start(READER, path))
        assert ask(reader) == [2, 0, None]
        for number in range(20):
            event = stream.compose_event(
                data={"img": np.full((4, 4), number)}, timestamps={"img": 0.0}
            )
            beamtime("event", event)
            # The call has returned: there is nothing to wait for.
            assert ask(reader) == [number + 3, number + 1, float(number)]
        beamtime("stop", bundle.compose_stop())
        assert ask(reader) == [23, 20, 19.0]
        finish(reader)


def test_a_reader_that_came_first_sees_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    Beamtime(path).close()
    with Beamtime(path, mode="r") as reader:
        assert len(reader) == 0
        writer = ready(start(WRITER, path, "a", 2, 3))
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        finish(writer)
        assert len(reader) == 2
        assert reader[-1].num_events == 3
        assert reader[-1].sample is not None


def test_two_writers_and_four_readers(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    runs, events = 6, 40
    Beamtime(path).close()
    writers = [ready(start(WRITER, path, name, runs, events)) for name in "ab"]
    readers = [start(LOOKER, path, events) for _ in range(4)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        finish(writer)
    looked = [tuple(map(int, finish(reader).split())) for reader in readers]
    assert all(rounds > 0 and seen > 0 for rounds, seen in looked)
    with Beamtime(path, mode="r") as beamtime:
        assert len(beamtime) == 2 * runs
        assert sorted(run.scan_id or 0 for run in beamtime) == list(
            range(1, 2 * runs + 1)
        )
        for run in beamtime:
            assert run.exit_status == "success"
            data = run.primary.read()
            assert data["x"].values.tolist() == list(range(events))
            assert np.all(data["img"].values == np.arange(events)[:, None, None])
        assert beamtime.verify().ok
        assert len(beamtime.search(sample="a")) == runs
        assert beamtime.search(sample="b", writer="b")
    assert not (tmp_path / "x.journal.jsonl").exists()


def test_one_process_may_have_it_open_twice_and_record_with_both(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    failures: list[BaseException] = []

    def record(beamtime: Beamtime) -> None:
        try:
            for _ in range(3):
                bundle = compose_run()
                stream = bundle.compose_descriptor(name="primary", data_keys={"x": KEY})
                documents: list[Any] = [
                    ("start", bundle.start_doc),
                    ("descriptor", stream.descriptor_doc),
                ]
                documents += [
                    (
                        "event",
                        stream.compose_event(data={"x": n}, timestamps={"x": 0.0}),
                    )
                    for n in range(40)
                ]
                documents.append(("stop", bundle.compose_stop()))
                for name, doc in documents:
                    beamtime(name, doc)
                run = beamtime[bundle.start_doc["uid"]]
                assert_documents_equal(run.documents(), documents)
        except BaseException as error:
            failures.append(error)

    with (
        Beamtime(path, on_error="raise") as one,
        Beamtime(path, on_error="raise") as other,
    ):
        threads = [
            threading.Thread(target=record, args=(each,)) for each in (one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(one) == len(other) == 6


def test_a_reader_in_another_thread_follows(tmp_path: Path) -> None:
    """Values, their order and their number must fit at every moment."""
    stop = threading.Event()
    failures: list[BaseException] = []
    rounds = 0

    def look(beamtime: Beamtime) -> None:
        nonlocal rounds
        try:
            while not stop.is_set():
                run = beamtime[-1]
                documents = [doc for name, doc in run.documents() if name == "event"]
                values = [int(doc["data"]["img"][0, 0]) for doc in documents]
                assert values == list(range(len(values)))
                dataset = run.primary.read()
                assert dataset.sizes["time"] >= len(values)
                if dataset.sizes["time"]:
                    last = int(dataset["img"][-1, -1, -1])
                    assert last == dataset.sizes["time"] - 1
                rounds += 1
        except BaseException as error:
            failures.append(error)

    with Beamtime(tmp_path / "x.db", on_error="raise") as beamtime:
        bundle = compose_run()
        stream = bundle.compose_descriptor(name="primary", data_keys={"img": IMAGE})
        beamtime("start", bundle.start_doc)
        beamtime("descriptor", stream.descriptor_doc)
        thread = threading.Thread(target=look, args=(beamtime,))
        thread.start()
        deadline = time.monotonic() + 60
        number = 0
        while (number < 200 or rounds < 5) and not failures:
            assert time.monotonic() < deadline
            event = stream.compose_event(
                data={"img": np.full((4, 4), number)}, timestamps={"img": 0.0}
            )
            beamtime("event", event)
            number += 1
        stop.set()
        thread.join()
        assert failures == []


@pytest.mark.parametrize("kind", ["kill", "power"])
def test_both_kinds_of_durability_record_the_same(tmp_path: Path, kind: Any) -> None:
    bundle = compose_run()
    stream = bundle.compose_descriptor(name="primary", data_keys={"img": IMAGE})
    documents: list[Any] = [("start", bundle.start_doc)]
    documents.append(("descriptor", stream.descriptor_doc))
    for number in range(5):
        event = stream.compose_event(
            data={"img": np.full((4, 4), number)}, timestamps={"img": 0.0}
        )
        documents.append(("event", event))
    documents.append(("stop", bundle.compose_stop()))
    with Beamtime(tmp_path / "x.db", durability=kind) as beamtime:
        for name, doc in documents:
            beamtime(name, doc)
        assert_documents_equal(beamtime[-1].documents(), documents)
