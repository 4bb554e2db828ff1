"""Promise 2 and R6 over generated documents: nothing changes, nothing is lost."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import decode, encode
from bluesky_beamtime.errors import BeamtimeWarning
from bluesky_beamtime.testing import assert_documents_equal

KEY = {"source": "s", "dtype": "number", "shape": []}

text = st.text(max_size=8) | st.sampled_from(
    ["$", "$$", "$float", "$array", "null", "\ud800", "..", "a/b", "é", "\0", "seq_num"]
)
numbers = (
    st.integers()
    | st.integers(-(2**66), 2**66)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.complex_numbers(allow_nan=True)
    | st.sampled_from([np.float32(1.1), np.float64("nan"), np.int8(-3), np.bool(True)])
)
dtypes = (
    hnp.integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes(endianness="?")
    | hnp.boolean_dtypes()
    | hnp.unicode_string_dtypes(endianness="?", max_len=3)
)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
arrays = hnp.arrays(dtypes, shapes)
scalars = st.none() | st.booleans() | numbers | text | st.binary(max_size=4)
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(text, inner, max_size=3)
    ),
    max_leaves=8,
)
mappings = st.dictionaries(text, values, max_size=4)


@given(values)
def test_a_value_comes_back(value: Any) -> None:
    encoded = encode({"v": value})
    json.loads(encoded, parse_constant=pytest.fail)
    assert_documents_equal([("x", decode(encoded))], [("x", {"v": value})])


@given(values, values)
def test_the_comparison_agrees_with_itself(one: Any, other: Any) -> None:
    """What is equal one way is equal the other way, and to a copy."""
    assert_documents_equal([("x", {"v": copy.deepcopy(one)})], [("x", {"v": one})])

    def equal(a: Any, b: Any) -> bool:
        try:
            assert_documents_equal([("x", {"v": a})], [("x", {"v": b})])
        except AssertionError:
            return False
        return True

    assert equal(one, other) is equal(other, one)
    if not isinstance(one, np.ndarray | list | tuple | dict):
        assert equal(one, [one]) is False


# --------------------------------------------------------------------------- whole runs

names = st.text(min_size=1, max_size=8).filter(lambda s: "\ud800" not in ascii(s)) | (
    st.sampled_from(["primary", "..", "a/b", "Primary", "x" * 300, "\0", "é"])
)


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@st.composite
def runs(draw: Any) -> list[tuple[str, dict[str, Any]]]:
    """Generate the documents of a run, its streams in turns."""
    from uuid import uuid4

    run = str(uuid4())
    reserved = {"uid", "time", "run_start", "scan_id", "plan_name", "sample", "tags"}
    start = {"uid": run, "time": draw(st.floats(0, 1e10))}
    for key in draw(st.permutations(["plan_name", "scan_id"])):
        if draw(st.booleans()):
            start[key] = draw(values)
    metadata = draw(mappings)
    start |= {key: value for key, value in metadata.items() if key not in reserved}
    documents: list[tuple[str, Any]] = [("start", start)]
    streams: list[tuple[str, list[str]]] = []
    counts: dict[str, int] = {}
    for number in range(draw(st.integers(1, 8))):
        if not streams or draw(st.integers(0, 4)) == 0:
            fields = draw(st.lists(text, min_size=1, max_size=3, unique=True))
            descriptor = {
                "uid": f"{run}-d{number}",
                "time": draw(st.floats(0, 1e10)),
                "run_start": run,
                "name": draw(names.filter(_encodable)),
                "data_keys": dict.fromkeys(fields, KEY),
                "configuration": draw(mappings),
            }
            documents.append(("descriptor", descriptor))
            streams.append((descriptor["uid"], fields))
            continue
        uid, fields = draw(st.sampled_from(streams))
        page = draw(st.integers(0, 3))
        events: list[Any] = []
        for _ in range(max(1, page)):
            counts[uid] = counts.get(uid, 0) + 1
            event = {
                "uid": f"{run}-e{number}-{len(events)}",
                "time": draw(st.floats(0, 1e10) | st.integers(0, 10**9)),
                "data": {field: draw(values) for field in fields},
                "timestamps": {field: draw(st.floats(0, 1e10)) for field in fields},
                "seq_num": counts[uid],
                "filled": {},
                "descriptor": uid,
            }
            if page < 2:
                order = draw(st.permutations(list(event)))
                event = {key: event[key] for key in order}
                extra = draw(mappings)
                event |= {k: v for k, v in extra.items() if k not in event}
            events.append(event)
        if page < 2:
            documents.append(("event", events[0]))
        else:
            from event_model import pack_event_page

            documents.append(("event_page", pack_event_page(*events)))
    if draw(st.booleans()):
        stop = {
            "uid": f"{run}-s",
            "time": draw(st.floats(0, 1e10)),
            "run_start": run,
            "exit_status": draw(st.sampled_from(["success", "abort", "fail"])),
            "reason": draw(text),
        }
        documents.append(("stop", stop))
    return documents


# Whole runs are large: finding a smaller one that fails too takes minutes.
generated = settings(
    max_examples=60,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@generated
@given(st.lists(runs(), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_generated_runs_come_back(all_runs: list[Any], random: Any) -> None:
    """Runs that are interleaved at random, each of them exactly as it was."""
    expected = copy.deepcopy(all_runs)
    queues = [list(run) for run in all_runs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.db")
        with Beamtime(path, on_error="raise") as beamtime:
            while queues:
                queue = random.choice(queues)
                beamtime(*queue.pop(0))
                if not queue:
                    queues.remove(queue)
        outside = set(Path(folder).iterdir()) - {path, Path(folder, "x.zarr")}
        assert outside == set()
        with Beamtime(path, mode="r") as beamtime:
            for run in expected:
                assert_documents_equal(beamtime[run[0][1]["uid"]].documents(), run)


broken = st.sampled_from(
    ["drop a key", "another value", "another name", "twice", "swap"]
)


@generated
@given(runs(), st.lists(broken, min_size=1, max_size=4), st.data())
def test_disordered_documents_are_never_lost(
    run: list[Any], changes: list[str], data: Any
) -> None:
    """Whatever comes, no exception, and everything is in the file or the journal."""
    documents = copy.deepcopy(run)
    for change in changes:
        place = data.draw(st.integers(0, len(documents) - 1))
        name, doc = documents[place]
        if change == "drop a key" and doc:
            key = data.draw(st.sampled_from(list(doc)))
            doc = {k: v for k, v in doc.items() if k != key}
        elif change == "another value" and doc:
            doc = {**doc, data.draw(st.sampled_from(list(doc))): data.draw(values)}
        elif change == "another name":
            name = data.draw(st.sampled_from(["start", "event", "stop", "datum", "x"]))
        elif change == "twice":
            documents.append((name, doc))
        elif change == "swap":
            other = data.draw(st.integers(0, len(documents) - 1))
            documents[place], documents[other] = documents[other], (name, doc)
            continue
        documents[place] = (name, doc)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.db")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", BeamtimeWarning)
            with Beamtime(path) as beamtime:
                for name, doc in documents:
                    beamtime(name, doc)
        stored: list[Any] = []
        with Beamtime(path, mode="r") as beamtime:
            for each in beamtime:
                stored += each.documents()
        journal = Path(folder, "x.journal.jsonl")
        if journal.exists():
            for line in journal.read_bytes().splitlines():
                entry = decode(line)
                stored.append((entry["name"], entry["doc"]))
    for name, doc in documents:
        assert any(_is_there(name, doc, pair) for pair in stored), (name, doc)


def _is_there(name: str, doc: Any, stored: tuple[str, Any]) -> bool:
    """Say whether a stored document is this one, or one of its page, or its twin."""
    stored_name, found = stored
    if name == stored_name:
        try:
            # Not as what it claims to be: a page may lack its columns.
            assert_documents_equal([("x", {"v": found})], [("x", {"v": doc})])
        except AssertionError:
            pass
        else:
            return True
    if not isinstance(found, dict) or not isinstance(doc, dict):
        return False
    uid = doc.get("uid")
    if name == "event_page" and stored_name == "event":
        return isinstance(uid, list) and found.get("uid") in uid
    # The same uid twice is the same document, whatever else it says.
    return stored_name == name and isinstance(uid, str) and found.get("uid") == uid
