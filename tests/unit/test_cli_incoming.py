"""``beamtime import`` and ``beamtime pack``, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from event_model import compose_run
from typer.testing import CliRunner

from bluesky_beamtime import Beamtime
from bluesky_beamtime.cli import app
from bluesky_beamtime.database.packed import FEWEST_EVENTS
from bluesky_beamtime.recording.packer import Packer

KEY = {"source": "s", "dtype": "number", "shape": []}


def invoke(*words: Any) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def source(tmp_path: Path) -> Path:
    run = compose_run(metadata={})
    stream = run.compose_descriptor(name="primary", data_keys={"x": KEY})
    docs: list[Any] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for n in range(FEWEST_EVENTS):
        event = stream.compose_event(data={"x": n}, timestamps={"x": 1.0})
        docs.append(("event", event))
    docs.append(("stop", run.compose_stop()))
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    return path


def test_import_says_what_it_did(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    count = FEWEST_EVENTS + 3
    status, out = invoke("import", file, source, "--dry-run")
    assert (status, file.exists()) == (0, False)
    assert f"{count} would be stored" in " ".join(out.split())
    status, out = invoke("import", file, source)
    assert status == 0
    assert f"{count} stored, 1 runs are new, 0 were here" in " ".join(out.split())
    status, out = invoke("import", file, source, "--json")
    report = json.loads(out)
    assert (status, report["stored"], report["new_runs"]) == (0, 0, [])
    source.write_text(source.read_text() + "nonsense\n")
    status, out = invoke("import", file, source)
    assert status == 3
    assert f"in.jsonl, line {count + 1}: it is no JSON" in " ".join(out.split())


def test_pack_says_how_much(source: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Packer, "stopped", lambda *args: None)
    file = tmp_path / "x.db"
    with pytest.raises(FileNotFoundError):
        invoke("pack", file)
    invoke("import", file, source)
    assert invoke("pack", file) == (0, "1 streams packed\n")
    assert invoke("pack", file) == (0, "0 streams packed\n")
    with Beamtime(file, mode="r") as beamtime:
        assert beamtime[-1].primary.read()["x"].values[-1] == FEWEST_EVENTS - 1


def test_ingest_wants_an_address(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no source of documents"):
        invoke("ingest", "nowhere", tmp_path / "x.db")
