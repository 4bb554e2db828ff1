"""A RunEngine's metadata in the file: it persists, and numbers never go back."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import DocumentError, ReadOnlyError


@pytest.fixture
def beamtime(tmp_path: Path) -> Iterator[Beamtime]:
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime


def test_it_is_a_mapping(beamtime: Beamtime) -> None:
    md = beamtime.md
    assert (dict(md), len(md), "x" in md) == ({}, 0, False)
    md["x"] = {"a": [1, (2, float("inf"))], "b": None}
    md["é $"] = 2**70
    md.update(y=1)
    assert md["x"] == {"a": [1, [2, float("inf")]], "b": None}
    assert list(md) == ["x", "y", "é $"]
    assert md.setdefault("y", 5) == 1
    assert md.pop("y") == 1
    del md["x"]
    with pytest.raises(KeyError):
        md["x"]
    with pytest.raises(KeyError):
        del md["x"]
    assert repr(md) == f"<Metadata {{'é $': {2**70}}}>"
    md.clear()
    assert dict(md) == {}


def test_a_mapping_within_is_kept_when_it_changes(beamtime: Beamtime) -> None:
    md = beamtime.md
    md.setdefault("versions", {})
    md["versions"]["a"] = 1
    md["versions"].update(b={"c": 2}, d=3)
    md["versions"]["b"]["e"] = [4]
    del md["versions"]["d"]
    assert md["versions"].pop("a") == 1
    with Beamtime(beamtime.path, mode="r") as reader:
        assert reader.md["versions"] == {"b": {"c": 2, "e": [4]}}
    assert type(copy.deepcopy(md["versions"])) is dict
    assert type(pickle.loads(pickle.dumps(md["versions"]))) is dict
    assert type(copy.copy(md)["versions"]) is dict
    with pytest.raises(DocumentError):
        md["versions"]["x"] = object()


def test_other_things_in_the_file_are_not_its_own(beamtime: Beamtime) -> None:
    beamtime.proposal = "cm1"
    assert dict(beamtime.md) == {}
    beamtime.md["proposal"] = "mine"
    beamtime.md.clear()
    assert beamtime.proposal == "cm1"


def test_what_cannot_be_kept_is_refused(beamtime: Beamtime) -> None:
    beamtime.md["x"] = 1
    for value in (object(), [print]):
        with pytest.raises(DocumentError, match="no JSON form"):
            beamtime.md["x"] = value
    bad: Any = 5
    for key in (bad, "\ud800"):
        with pytest.raises(DocumentError):
            beamtime.md[key] = 1
    assert beamtime.md["x"] == 1


def test_scan_numbers_never_go_back(beamtime: Beamtime) -> None:
    md = beamtime.md
    assert "scan_id" not in md
    assert beamtime.next_scan_id() == 1
    assert md["scan_id"] == 1
    md["scan_id"] = 100
    assert beamtime.next_scan_id() == 101
    md["scan_id"] = 5
    assert (md["scan_id"], dict(md)) == (101, {"scan_id": 101})
    with pytest.raises(DocumentError, match="used twice"):
        del md["scan_id"]
    with pytest.raises(DocumentError, match="integer"):
        md["scan_id"] = "7"
    md.clear()
    assert beamtime.next_scan_id() == 102


@pytest.mark.parametrize("attached", [True, False])
def test_a_run_engine_uses_it(beamtime: Beamtime, attached: bool) -> None:
    from bluesky import RunEngine
    from bluesky.plans import count

    ids: list[Any] = []
    for operator in ("Ada", "Bob"):
        engine: Any = RunEngine(beamtime.md, context_managers=[])
        if operator == "Ada":
            engine.md["operator"] = "Ada"
        if attached:
            beamtime.attach(engine)
        else:
            engine.subscribe(beamtime)
        engine(count([], 1), extra=1)
        run = beamtime[-1]
        ids.append(run.scan_id)
        # The second engine found what the first was told.
        assert (run.start["operator"], run.start["extra"]) == ("Ada", 1)
        assert run.start["versions"]["bluesky"]
        beamtime.detach(engine)
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        engine._th.join()
        engine.loop.close()
    assert ids == [1, 2]


def test_it_survives_a_kill_and_is_shared(tmp_path: Path) -> None:
    script = (
        "import os, sys; from bluesky_beamtime import Beamtime\n"
        "b = Beamtime(sys.argv[1]); b.md['who'] = 'child'; b.md['scan_id'] = 41\n"
        "os.kill(os.getpid(), 9)"
    )
    with Beamtime(tmp_path / "x.db") as beamtime:
        beamtime.md["who"] = "parent"
        child = [sys.executable, "-c", script, str(beamtime.path)]
        assert subprocess.run(child).returncode == -9
        assert dict(beamtime.md) == {"who": "child", "scan_id": 41}
        assert beamtime.next_scan_id() == 42


def test_threads_may_use_it(beamtime: Beamtime) -> None:
    def work(number: int) -> None:
        for step in range(10):
            beamtime.md[f"key {number}"] = step

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(beamtime.md) == {f"key {n}": 9 for n in range(4)}


def test_a_reader_reads_it(tmp_path: Path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        beamtime.md["x"] = 1
    with Beamtime(tmp_path / "x.db", mode="r") as reader:
        assert dict(reader.md) == {"x": 1}
        with pytest.raises(ReadOnlyError):
            reader.md["x"] = 2
