"""Documents from files and catalogues: once each, and nothing lost on the way."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from event_model import compose_run

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import decode, encode
from bluesky_beamtime.errors import DocumentError, ReadOnlyError
from bluesky_beamtime.recording.document_files import FileDocument, read_file
from bluesky_beamtime.testing import assert_documents_equal

Documents = list[tuple[str, dict[str, Any]]]
KEY = {"source": "s", "dtype": "number", "shape": []}


def documents(count: int = 5, image: bool = False, **metadata: Any) -> Documents:
    time = metadata.pop("time", None)
    run = compose_run(metadata={"plan_name": "count", **metadata}, time=time)
    keys = {"x": KEY, **({"img": {**KEY, "dtype": "array"}} if image else {})}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    docs: Documents = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for number in range(count):
        data: dict[str, Any] = {"x": float("nan") if number == 1 else number}
        if image:
            data["img"] = np.full((2, 3), number, ">u2")
        stamps = dict.fromkeys(data, 5.0)
        docs.append(("event", stream.compose_event(data=data, timestamps=stamps)))
    return [*docs, ("stop", run.compose_stop())]


def as_pairs(docs: Documents) -> bytes:
    return b"".join(json.dumps(doc).encode() + b"\n" for doc in docs)


def as_objects(docs: Documents) -> bytes:
    lines = [encode({"name": name, "doc": doc}) for name, doc in docs]
    return "\n".join(lines).encode()


def as_msgpack(docs: Documents) -> bytes:
    packer = msgpack.Packer(default=msgpack_numpy.encode)
    return b"".join(packer.pack(doc) for doc in docs)


def journal_of(beamtime: Beamtime) -> list[dict[str, Any]]:
    path = beamtime.path.with_name("x.journal.jsonl")
    return [decode(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def beamtime(tmp_path):
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime


LAYOUTS = {
    "pairs": as_pairs,
    "objects": as_objects,
    "msgpack": as_msgpack,
    "gzip": lambda docs: gzip.compress(as_pairs(docs)),
    "msgpack, gzip": lambda docs: gzip.compress(as_msgpack(docs)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_comes_back(beamtime, tmp_path, layout) -> None:
    docs = documents(image=layout in ("objects", "msgpack"))
    path = tmp_path / "in"
    path.write_bytes(LAYOUTS[layout](docs))
    report = beamtime.import_documents(path)
    assert report.ok
    assert report.documents == report.stored == len(docs)
    assert report.runs == report.new_runs == [docs[0][1]["uid"]]
    assert_documents_equal(beamtime[-1].documents(), docs)
    again = beamtime.import_documents(str(path))
    assert again.ok and again.stored == 0 and again.new_runs == []
    assert_documents_equal(beamtime[-1].documents(), docs)


@pytest.mark.parametrize("kind", ["jsonl", "msgpack"])
def test_what_suitcase_writes_is_read(beamtime, tmp_path, kind) -> None:
    suitcase = pytest.importorskip(f"suitcase.{kind}")
    docs = documents(image=kind == "msgpack", nested={"a": [1, {"b": None}]})
    suitcase.export(iter(docs), str(tmp_path / "cases"))
    assert beamtime.import_documents(tmp_path / "cases").ok
    assert_documents_equal(beamtime[-1].documents(), docs)


def test_an_import_that_was_interrupted_goes_on(beamtime, tmp_path) -> None:
    docs = documents(count=1200)
    path = tmp_path / "in.jsonl"
    path.write_bytes(as_objects(docs[:700]) + b"\n" + as_objects(docs[700:702])[:-9])
    first = beamtime.import_documents(path)
    assert len(first.problems) == 1 and "in.jsonl, line 702: " in first.problems[0]
    path.write_bytes(as_objects(docs))
    second = beamtime.import_documents(path)
    assert second.ok and first.stored + second.stored == len(docs)
    assert_documents_equal(beamtime[-1].documents(), docs)
    assert len(beamtime) == 1


def test_lines_that_are_no_documents_are_kept_with_their_place(
    beamtime, tmp_path
) -> None:
    docs = documents()
    lines = as_pairs(docs).splitlines()
    bad = [b'{"half', b"[1, 2, 3]", b'["event", 5]', b'["event", {"uid": "lost"}]']
    lines[3:3] = [*bad, b""]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(lines))
    for _ in range(2):
        report = beamtime.import_documents(path)
        assert [problem.split(":")[0] for problem in report.problems] == [
            f"in.jsonl, line {number}" for number in (4, 5, 6, 7)
        ]
        assert_documents_equal(beamtime[-1].documents(), docs)
    kept = journal_of(beamtime)
    assert [entry["kind"] for entry in kept] == ["quarantined"] * 4
    assert [entry["doc"] for entry in kept] == [
        *(line.decode() for line in bad[:3]),
        {"uid": "lost"},
    ]


def test_events_of_several_runs_that_take_turns(beamtime, tmp_path) -> None:
    one, other = documents(), documents()
    mixed = [doc for pair in zip(one, other, strict=True) for doc in pair]
    assert beamtime.import_documents(mixed).ok
    for docs in (one, other):
        assert_documents_equal(beamtime[docs[0][1]["uid"]].documents(), docs)


def test_a_dry_run_finds_the_same_and_changes_nothing(beamtime, tmp_path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(as_objects(documents()) + b"\nnonsense\n")
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.suffix == ".db"}
    report = beamtime.import_documents(path, dry_run=True)
    assert (report.documents, report.stored, len(report.problems)) == (9, 8, 1)
    assert len(beamtime) == 0
    assert {p: p.read_bytes() for p in before} == before
    assert not (tmp_path / "x.journal.jsonl").exists()


def test_the_journal_of_a_beamtime_can_be_imported(beamtime, tmp_path) -> None:
    from bluesky_beamtime.recording import Journal

    docs = documents(image=True)
    journal = Journal(tmp_path / "y.journal.jsonl")
    for name, doc in docs:
        journal.write(name, doc, run="r", ordinal=1, kind="unstored", reason="full")
    assert beamtime.import_documents(journal.path).ok
    assert_documents_equal(beamtime[-1].documents(), docs)


class FakeRun:
    def __init__(self, docs: Documents, *, asks: bool) -> None:
        self._docs = docs
        self.metadata = {"start": docs[0][1]}
        self.read = 0
        if asks:
            self.documents = self._filled

    def _filled(self, *, fill: bool) -> Any:
        assert fill is False
        self.read += 1
        return iter(self._docs)

    def documents(self) -> Any:
        self.read += 1
        return iter(self._docs)


@pytest.mark.parametrize("asks", [True, False])
def test_catalogues_are_read_once(beamtime, asks) -> None:
    runs = [FakeRun(documents(time=100.0 - n), asks=asks) for n in range(3)]
    catalog = {run.metadata["start"]["uid"]: run for run in runs}
    seen: list[Any] = []
    report = beamtime.import_documents(catalog, progress=lambda *a: seen.append(a))
    assert report.ok and len(report.new_runs) == 3
    assert report.runs == list(reversed(catalog))  # the oldest first
    assert seen[-1][1:] == (3, 3)
    again = beamtime.import_documents(runs[0])
    assert again.skipped == [runs[0].metadata["start"]["uid"]]
    assert [run.read for run in runs] == [1, 1, 1]
    for run in runs:
        uid = run.metadata["start"]["uid"]
        assert_documents_equal(beamtime[uid].documents(), run._docs)


def test_a_beamtime_can_be_imported_run_by_run(beamtime, tmp_path) -> None:
    docs = documents(image=True)
    with Beamtime(tmp_path / "other.db") as other:
        other.import_documents(docs)
        assert beamtime.import_documents(other[-1]).ok
    assert_documents_equal(beamtime[-1].documents(), docs)


def test_sources_that_are_none(beamtime, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(FileNotFoundError):
        beamtime.import_documents(tmp_path / "nowhere.jsonl")
    with pytest.raises(DocumentError, match="no files of documents"):
        beamtime.import_documents(tmp_path / "empty")
    with pytest.raises(DocumentError, match="neither JSON lines nor msgpack"):
        beamtime.import_documents(tmp_path / "picture.png")
    with pytest.raises(DocumentError, match="it is no run"):
        beamtime.import_documents({"a": 1})
    with (
        Beamtime(beamtime.path, mode="r") as reader,
        pytest.raises(ReadOnlyError, match="import documents"),
    ):
        reader.import_documents([])


def read(tmp_path: Path, content: bytes) -> list[FileDocument]:
    path = tmp_path / "in.msgpack"
    path.write_bytes(content)
    return list(read_file(path))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.zeros((0, 3)),
        np.array(["a", "bc"]),
        np.array([(1, 2.5)], [("a", "<i4"), ("b", "<f8")]),
        np.float32(1.5),
        np.bool_(True),
        1 - 2j,
        {"nd": 1, "type": 2},
        {"complex": True},
    ],
)
def test_arrays_of_msgpack_come_back(tmp_path, array) -> None:
    (found,) = read(tmp_path, as_msgpack([("event", {"data": array})]))
    assert_documents_equal([("x", found.doc)], [("x", {"data": array})])


def test_a_pickle_in_msgpack_is_not_executed(tmp_path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "evil",))

    content = as_msgpack([("event", {"data": np.array([Evil()], object)})])
    (found,) = read(tmp_path, content)
    assert found.problem is not None and "refused" in found.problem
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_suitcase_that_was_cut_off(tmp_path, cut) -> None:
    docs = documents()
    *good, last = read(tmp_path, as_msgpack(docs)[:-cut])
    assert [found.name for found in good] == [name for name, _ in docs[: len(good)]]
    assert last.problem is not None
    assert f"document {len(good) + 1}" in last.where


def test_positions_grow_up_to_the_size_of_the_file(tmp_path) -> None:
    for content in (as_pairs(documents()), as_msgpack(documents())):
        positions = [found.position for found in read(tmp_path, content)]
        assert positions == sorted(positions)
        assert positions[-1] == len(content)
    assert read(tmp_path, b"") == []


def test_nothing_in_a_file_makes_it_fail(tmp_path) -> None:
    rng = np.random.default_rng(0)
    good = as_msgpack(documents(image=True)), as_pairs(documents())
    for number in range(400):
        content = bytearray(good[number % 2])
        for place in rng.integers(1, len(content), 5):
            content[place] = rng.integers(0, 256)
        for found in read(tmp_path, bytes(content)):
            assert found.problem is not None or isinstance(found.doc, dict)


def test_an_open_file_is_no_source_of_runs(beamtime) -> None:
    with pytest.raises((DocumentError, TypeError, ValueError)):
        beamtime.import_documents(io.BytesIO(b"x"))


@pytest.mark.filterwarnings("ignore")  # those of Tiled and what it stands on
def test_a_catalogue_of_tiled(beamtime, tmp_path) -> None:
    pytest.importorskip("bluesky_tiled_plugins")
    docs = documents()
    with Beamtime(tmp_path / "served.db") as served:
        served.import_documents(docs)
        catalog = served.tiled()
        assert beamtime.import_documents(catalog).ok
        again = beamtime.import_documents(catalog)
        catalog.context.close()
    assert again.skipped == [docs[0][1]["uid"]]
    assert_documents_equal(beamtime[-1].documents(), docs)
