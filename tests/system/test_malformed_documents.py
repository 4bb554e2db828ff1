"""Malformed and disordered documents: none is lost, none reaches the RunEngine (R6).

Valid runs are made, their documents mutated, dropped, repeated and put in disorder.
Every call must return, and every document must be found afterwards: read back equal
from the tables, or in the journal.
"""

from __future__ import annotations

import copy
import os
import random
import reprlib
import string
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import decode, encode
from bluesky_beamtime.errors import DocumentError
from bluesky_beamtime.recording import journal, pages

SCALE = int(os.environ.get("BEAMTIME_TEST_SCALE", "1"))
SEED = int(os.environ.get("BEAMTIME_TEST_SEED", "6"))
DOCUMENTS = 2000 * SCALE

Pair = tuple[Any, Any]


class Strange:
    """An object from a device's read() that nobody expected."""

    def __repr__(self) -> str:
        return "<Strange>"


class Hostile:
    """Raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    def __bool__(self) -> bool:
        raise RuntimeError("no bool")

    __hash__ = None  # type: ignore[assignment]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def loop() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


JUNK: list[Callable[[random.Random], Any]] = [
    lambda c: None,
    lambda c: c.choice([True, False]),
    lambda c: c.choice([0, -1, 2**63, -(2**70), 10**5000]),
    lambda c: c.choice([0.5, float("nan"), float("inf"), -0.0, 1e308]),
    lambda c: "".join(c.choices(string.printable, k=c.randrange(40))),
    lambda c: c.choice(["", "\0", "a\0b", "\ud800", "../../etc", "é" * 300, "$", "$x"]),
    lambda c: c.choice([b"", b"\xff\0"]),
    lambda c: c.choice([[], [1, [2]], (), {}, {"a": 1}, {1: 2}, set(), {1, "a"}]),
    lambda c: c.choice([np.float32(1.5), np.int64(7), np.str_("x"), np.bool_(True)]),
    lambda c: np.arange(c.randrange(5)),
    lambda c: np.array([c.random(), "x", None], dtype=object),
    lambda c: c.choice([Strange(), Strange, len, Hostile()]),
    lambda c: c.choice([1j, range(3), np.datetime64("now"), {"$float": "nan"}]),
    lambda c: nested(c.choice([5, 300, 3000])),
    lambda c: loop(),
    lambda c: {"$array": {"path": "../../x", "index": 0, "dtype": "u1"}},
]


def make_run(chance: random.Random) -> list[Pair]:
    """Return a valid run of every kind of document."""
    from event_model import compose_run, pack_datum_page, pack_event_page

    bundle = compose_run(metadata={"scan_id": chance.randrange(100), "plan_name": "p"})
    said: list[Pair] = [("start", bundle.start_doc)]
    key = {"source": "s", "dtype": "number", "shape": []}
    image = {"source": "s", "dtype": "array", "shape": [2, 2]}
    stream = bundle.compose_descriptor(
        name="primary", data_keys={"x": key, "img": image}
    )
    said.append(("descriptor", stream.descriptor_doc))
    resource = bundle.compose_resource(
        spec="S", root="/r", resource_path="p", resource_kwargs={}
    )
    said.append(("resource", resource.resource_doc))
    datums = [resource.compose_datum(datum_kwargs={"n": n}) for n in range(3)]
    said.append(("datum", datums[0]))
    said.append(("datum_page", pack_datum_page(*datums[1:])))
    assets = bundle.compose_stream_resource(
        mimetype="application/x-zarr", uri="file:///a/b", data_key="cam", parameters={}
    )
    said.append(("stream_resource", assets.stream_resource_doc))
    events = [
        stream.compose_event(
            data={"x": n / 3, "img": np.full((2, 2), n) if n % 2 else n},
            timestamps={"x": 1.0, "img": 2.0},
        )
        for n in range(6)
    ]
    said += [("event", event) for event in events[:4]]
    said.append(("event_page", pack_event_page(*events[4:])))
    indices = {"start": 0, "stop": 3}
    said.append(
        (
            "stream_datum",
            assets.compose_stream_datum(
                indices=indices,
                seq_nums={"start": 1, "stop": 4},
                descriptor=stream.descriptor_doc,
            ),
        )
    )
    said.append(("stop", bundle.compose_stop()))
    return [(name, dict(doc)) for name, doc in said]


def mutate(name: Any, doc: Any, chance: random.Random) -> Pair:
    """Return a document with one or several things wrong."""
    doc = copy.deepcopy(doc)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        way = chance.randrange(8)
        keys = list(doc) if isinstance(doc, dict) else []
        if way == 0 and keys:
            del doc[chance.choice(keys)]
        elif way in (1, 2) and keys:
            doc[chance.choice(keys)] = chance.choice(JUNK)(chance)
        elif way == 3 and keys:
            inner = doc[chance.choice(keys)]
            if isinstance(inner, dict):
                inner[chance.choice([*inner, "new"])] = chance.choice(JUNK)(chance)
            elif isinstance(inner, list) and inner:
                inner[chance.randrange(len(inner))] = chance.choice(JUNK)(chance)
        elif way == 4 and keys:
            extra = chance.choice(["extra", "", "$", "\0", "\ud800", 7, None])
            doc[extra] = chance.choice(JUNK)(chance)
        elif way == 5:
            kinds = ["event", "start", "stop", "datum", "event_page", "bulk_events"]
            name = chance.choice([*kinds, "bulk_datum", "nothing", "", None, 3])
        elif way == 6 and keys:
            doc["uid"] = f"other-{chance.random()}"
        elif way == 7 and chance.random() < 0.2:
            doc = chance.choice(JUNK)(chance)
    return name, doc


def make_stream(chance: random.Random, count: int) -> list[Pair]:
    """Return documents of several runs, with much that is wrong."""
    said: list[Pair] = []
    while len(said) < count:
        runs = [make_run(chance) for _ in range(chance.choice([1, 1, 2, 3]))]
        some: list[Pair] = []
        while any(runs):
            run = chance.choice([run for run in runs if run])
            some.append(run.pop(0))
        good = some
        some = [pair for pair in good if chance.random() > 0.05]
        for pair in good:
            if chance.random() < 0.5:
                some.insert(chance.randrange(len(some) + 1), mutate(*pair, chance))
            if chance.random() < 0.05:
                some.insert(chance.randrange(len(some) + 1), copy.deepcopy(pair))
        if chance.random() < 0.3:
            chance.shuffle(some)
        said += some
    return said[:count]


def text_of(name: Any, doc: Any) -> str | None:
    """Return a document as text that is the same for equal documents."""
    limit = sys.getrecursionlimit()
    # What the recorder could store must have a text here, however deep the test runs.
    sys.setrecursionlimit(4 * limit)
    try:
        # There and back, so that what is kept as text is text.
        there = decode(encode([name if isinstance(name, str) else None, doc]))
        return encode(there)
    except DocumentError:
        return None
    finally:
        sys.setrecursionlimit(limit)


def singles_of(name: Any, doc: Any) -> list[Pair]:
    """Return the documents that a page stands for, the document itself otherwise."""
    if name in pages.PAGES:
        try:
            singles = list(pages.unpack(name, doc))
        except Exception:
            return [(name, doc)]
        columns = {"datum_ids", "datum_kwarg_list"} if name == "bulk_datum" else set()
        # What a page says beyond its rows must not be gone.
        if name == "bulk_events" or all(
            set(doc) - columns <= set(s) for _, s in singles
        ):
            return singles
    return [(name, doc)]


def loose(name: str, doc: Any) -> str | None:
    """Return the text of what a row keeps of any document that says the same."""
    if not isinstance(doc, dict):
        return text_of(name, doc)
    if name == "event":
        keys = ("uid", "descriptor", "seq_num", "time", "data", "timestamps")
        return text_of(name, {key: doc.get(key) for key in keys})
    return text_of(name, dict(sorted(doc.items(), key=lambda item: str(item[0]))))


def is_found(
    name: Any, doc: Any, journaled: Counter[str | None], stored: set[str | None]
) -> bool:
    """Say whether a document is in the journal, or all that it says in the tables."""
    text = text_of(name, doc)
    if text is None:
        return False
    return journaled[text] > 0 or all(
        text_of(*single) in stored or loose(*single) in stored
        for single in singles_of(name, doc)
    )


@pytest.mark.timeout(120 * SCALE)
def test_none_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(SEED)
    beamtime = Beamtime(tmp_path / "x.db")
    total: Counter[str] = Counter()
    given: list[Pair] = []
    for name, doc in make_stream(chance, DOCUMENTS):
        total["documents"] += 1
        # What it holds on to must not be what we look for.
        before = text_of(name, doc)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                beamtime(name, doc)
            except Exception as error:
                total["exceptions"] += 1
                print(f"{type(error).__name__}: {error}"[:300])
        assert text_of(name, doc) == before
        given.append((name, doc))
    beamtime.close()

    journaled: Counter[str | None] = Counter()
    kept_as_text: Counter[str] = Counter()
    file = beamtime.path.with_name("x.journal.jsonl")
    for line in file.read_bytes().splitlines():
        entry = decode(line)
        total["in the journal"] += 1
        journaled[text_of(entry["name"], entry["doc"])] += 1
        if isinstance(entry["doc"], dict) and list(entry["doc"]) == ["repr"]:
            kept_as_text[entry["doc"]["repr"]] += 1
    stored: set[str | None] = set()
    with Beamtime(beamtime.path, mode="r") as reader:
        for run in reader:
            for name, doc in run.documents(original=True):
                total["in the tables"] += 1
                stored.add(text_of(name, doc))
                stored.add(loose(name, doc))
        problems = reader.verify(quick=True).problems
    for name, doc in given:
        if is_found(name, doc, journaled, stored):
            continue
        # It has no JSON form at all: its repr is in the journal.
        shown = decode(encode(journal._short(doc)))
        if not kept_as_text[shown]:
            total["lost"] += 1
            print("lost:", name, reprlib.repr(shown))
    total["kept as text"] = kept_as_text.total()
    with capsys.disabled():
        print(f"\nmalformed documents: {dict(sorted(total.items()))}")
    assert (total["exceptions"], total["lost"]) == (0, 0)
    assert total["in the journal"] > DOCUMENTS / 20
    assert total["in the tables"] > DOCUMENTS / 20
    # Documents may say what is not so: of frames that never were, of numbers twice.
    untrue = {"frames", "order"}
    assert {each.kind for each in problems} <= {"journal", "count", *untrue}
    # What came too early finds its place now; the rest stays, and nothing is lost.
    with Beamtime(beamtime.path) as again:
        report = again.recover()
        left = file.read_bytes().splitlines()
        assert report.stored + len(left) == total["in the journal"]
        assert report.stored > 0
        assert len(left) == sum(report.kept.values())
        kinds = {each.kind for each in again.verify(quick=True).problems}
        assert kinds <= {"journal", *untrue}
