"""The journal itself."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest

from bluesky_beamtime.database import decode
from bluesky_beamtime.errors import DatabaseWriteError
from bluesky_beamtime.recording import Journal
from bluesky_beamtime.testing import assert_documents_equal

DOC = {"uid": "é", "data": {"x": float("nan"), "img": np.arange(6).reshape(2, 3)}}


def write(journal: Journal, doc: object, **changes) -> None:
    entry = {"run": "r", "ordinal": 3, "kind": "unstored", "reason": "full"} | changes
    journal.write("event", doc, **entry)


def test_a_line_holds_a_document_and_its_story(tmp_path) -> None:
    path = tmp_path / "x.journal.jsonl"
    journal = Journal(path)
    write(journal, DOC)
    write(journal, None, run=None, ordinal=None)
    first, second = path.read_text(encoding="utf-8").splitlines()
    json.loads(first, parse_constant=pytest.fail)
    line = decode(first)
    assert_documents_equal([("event", line["doc"])], [("event", DOC)])
    assert list(line) == ["run", "ordinal", "kind", "reason", "time", "name", "doc"]
    assert (line["run"], line["ordinal"], line["kind"]) == ("r", 3, "unstored")
    assert abs(line["time"] - os.stat(path).st_mtime) < 60
    assert decode(second)["run"] is None


def test_a_line_is_on_the_disk_when_the_call_returns(tmp_path, monkeypatch) -> None:
    sizes = []
    real = os.fsync

    def fsync(fd: int) -> None:
        sizes.append(os.fstat(fd).st_size)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "x.journal.jsonl"
    journal = Journal(path)
    for _ in range(3):
        write(journal, DOC)
        assert sizes[-1] == path.stat().st_size
    assert len(sizes) == 3


def test_half_a_line_that_was_left_spoils_no_other(tmp_path) -> None:
    path = tmp_path / "x.journal.jsonl"
    write(Journal(path), DOC)
    with path.open("ab") as file:
        file.write(b'{"run":"torn')
    write(Journal(path), DOC)
    lines = path.read_bytes().splitlines()
    assert lines[1] == b'{"run":"torn'
    assert decode(lines[0])["run"] == decode(lines[2])["run"] == "r"


def test_threads_do_not_mix_lines(tmp_path) -> None:
    journal = Journal(tmp_path / "x.journal.jsonl")
    big = {"x": "y" * 20_000}
    threads = [
        threading.Thread(target=lambda: [write(journal, big) for _ in range(5)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = journal.path.read_bytes().splitlines()
    assert len(lines) == 20
    assert all(decode(line)["doc"] == big for line in lines)


def test_short_writes_are_gone_on_with(tmp_path, monkeypatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:7])))
    journal = Journal(tmp_path / "x.journal.jsonl")
    write(journal, DOC)
    monkeypatch.undo()
    assert decode(journal.path.read_bytes())["run"] == "r"


def test_what_cannot_be_written_is_loud(tmp_path) -> None:
    path = tmp_path / "x.journal.jsonl"
    path.mkdir()
    with pytest.raises(DatabaseWriteError, match=r"'event' document is lost.*\(full\)"):
        write(Journal(path), DOC)


def test_what_cannot_be_encoded_is_kept_as_text(tmp_path) -> None:
    loop: dict[str, object] = {"uid": "look for me"}
    loop["self"] = loop

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    loop["broken"] = Broken()
    journal = Journal(tmp_path / "x.journal.jsonl")
    write(journal, loop)
    (line,) = journal.path.read_bytes().splitlines()
    assert "look for me" in decode(line)["doc"]["repr"]
