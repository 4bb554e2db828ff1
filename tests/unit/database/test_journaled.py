"""Which runs are in the journal."""

from __future__ import annotations

from pathlib import Path

from bluesky_beamtime.database import JournalIndex
from bluesky_beamtime.recording import Journal


def write(path: Path, run: str | None, doc: object = None) -> None:
    Journal(path).write("event", doc, run=run, ordinal=1, kind="unstored", reason="x")


def test_runs_are_found_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "x.journal.jsonl"
    index = JournalIndex(path)
    assert index.runs() == frozenset()
    write(path, 'a"\\ü\n')
    assert index.runs() == {'a"\\ü\n'}
    write(path, None, {"run": "no", "x": '{"run":"no"'})
    write(path, "b")
    assert index.runs() == {'a"\\ü\n', "b"}
    path.unlink()
    assert index.runs() == frozenset()
    write(path, "c")
    assert index.runs() == {"c"}


def test_damage_and_half_a_line_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.journal.jsonl"
    path.write_bytes(b'junk\n{"run":"\\x"}\n{"run":"a","x":1}\n{"run":"b"')
    index = JournalIndex(path)
    assert index.runs() == {"a"}
    with path.open("ab") as file:
        file.write(b',"x":1}\n')
    assert index.runs() == {"a", "b"}
