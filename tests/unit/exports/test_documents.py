"""Documents in files, read back by other programs and by an import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.cli import main
from bluesky_beamtime.database import Run
from bluesky_beamtime.testing import assert_documents_equal


def test_jsonl_is_valid_json_line_by_line(run: Run, tmp_path: Path) -> None:
    (path,) = run.export(tmp_path / "run.jsonl", "jsonl")

    def refuse(text: str) -> Any:
        raise AssertionError(f"{text} is no JSON")

    lines = [
        json.loads(line, parse_constant=refuse)
        for line in path.read_text("utf-8").splitlines()
    ]
    assert [name for name, _ in lines] == [name for name, _ in run.documents()]
    events = [doc for name, doc in lines if name == "event"]
    assert [event["data"]["word"] for event in events] == [
        "a",
        "b,c",
        'd"e',
        "grün",
        "",
    ]


def test_msgpack_is_read_by_msgpack_numpy(run: Run, tmp_path: Path) -> None:
    (path,) = run.export(tmp_path / "run.msgpack", "msgpack")
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(file, object_hook=msgpack_numpy.decode)
        found = [(name, doc) for name, doc in unpacker]
    assert_documents_equal(found, list(run.documents()))


@pytest.mark.parametrize("to", ["jsonl", "msgpack"])
def test_import_restores_what_was_exported(run: Run, tmp_path: Path, to: str) -> None:
    (path,) = run.export(tmp_path / f"run.{to}", to)
    with Beamtime(tmp_path / "other.db"):
        pass
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(
            "sys.argv", ["beamtime", "import", str(tmp_path / "other.db"), str(path)]
        )
        main()
    assert not stopped.value.code
    with Beamtime(tmp_path / "other.db", mode="r") as other:
        found = list(other[run.uid].documents())
        assert_documents_equal(found, list(run.documents()))
