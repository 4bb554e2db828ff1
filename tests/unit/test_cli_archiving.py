"""``beamtime archive``, ``prove`` and ``restore``: what they say, and exit statuses."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import event_model
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["beamtime", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        # Nobody has to put lines together that were broken for the screen.
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def beamtime(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "x.db"
    path.parent.mkdir()
    (path.parent / "x_files").mkdir()
    (path.parent / "x_files" / "a.h5").write_bytes(b"a")
    record(path)
    return path


def record(path: Path, *uris: str) -> None:
    composed = event_model.compose_run()
    with Beamtime(path) as beamtime:
        beamtime("start", composed.start_doc)
        for uri in uris:
            bundle = composed.compose_stream_resource(
                mimetype="application/x-hdf5", uri=uri, data_key="a", parameters={}
            )
            beamtime("stream_resource", bundle.stream_resource_doc)
        beamtime("stop", composed.compose_stop())


def test_there_and_back(run: Run, beamtime: Path, tmp_path: Path) -> None:
    place = tmp_path / "archive"
    status, out, _ = run("archive", beamtime, place, "--dry-run")
    assert (status, place.exists()) == (0, False)
    assert "would send 3 files" in out
    status, out, _ = run("archive", beamtime, place, "--json")
    assert status == 0
    assert json.loads(out)["sent"] == 3
    status, out, _ = run("archive", beamtime, place)
    assert (status, out.splitlines()[0]) == (0, "nothing to do")
    status, out, _ = run("prove", place)
    assert status == 0
    assert "x.db" in out and "3 files" in out and "equal" in out
    status, out, _ = run("restore", place, tmp_path / "back")
    assert status == 0
    assert out.splitlines()[-1] == str(tmp_path / "back" / "x.db")
    with Beamtime(tmp_path / "back" / "x.db", mode="r") as back:
        assert len(back) == 1


def test_damage_is_named_and_mended(run: Run, beamtime: Path, tmp_path: Path) -> None:
    place = tmp_path / "archive"
    run("archive", beamtime, place)
    (place / "x_files" / "a.h5").write_bytes(b"b")
    status, out, _ = run("prove", place)
    assert status == 1
    assert "x_files/a.h5" in out and "--thorough" in out
    status, out, _ = run("prove", place, "--json")
    assert (status, json.loads(out)["differs"]) == (1, ["x_files/a.h5"])
    status, _, err = run("restore", place, tmp_path / "back")
    assert status == 1
    assert err.startswith("beamtime: ") and "x_files/a.h5" in err
    assert run("archive", beamtime, place, "--thorough")[0] == 0
    status, out, _ = run("restore", place, tmp_path / "back", "--json")
    assert (status, json.loads(out)["files"]) == (0, 3)


def test_what_is_not_to_be_had_is_said(
    run: Run, beamtime: Path, tmp_path: Path
) -> None:
    place = tmp_path / "archive"
    record(beamtime, "s3://bucket/a.h5")
    status, out, _ = run("archive", beamtime, place)
    # What is elsewhere stays there, nothing is wrong with that.
    assert (status, "s3://bucket/a.h5 is elsewhere" in out) == (0, True)
    record(beamtime, "file:///nowhere/b.h5")
    status, out, _ = run("archive", beamtime, place)
    assert (status, "file:///nowhere/b.h5 is not there" in out) == (3, True)
    assert "file:///nowhere/b.h5" in run("prove", place)[1]


def test_what_cannot_be_read_is_left_out_and_named(
    run: Run, beamtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, bad, opening = (
        tmp_path / "archive",
        beamtime.parent / "x_files/a.h5",
        os.open,
    )

    def refuse(path: Any, *args: Any, **more: Any) -> int:
        if os.fspath(path) == str(bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opening(path, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    status, _, err = run("archive", beamtime, place)
    assert (status, "--leave-unreadable" in err) == (1, True)
    status, out, _ = run("archive", beamtime, place, "--leave-unreadable")
    assert (status, f"cannot read {str(bad)!r}" in out) == (3, True)
    status, out, _ = run("prove", place)
    assert (status, "x_files/a.h5: cannot read" in out) == (0, True)


def test_files_from_outside_are_left_out_on_request(
    run: Run, beamtime: Path, tmp_path: Path
) -> None:
    (tmp_path / "det.h5").write_bytes(b"det")
    record(beamtime, (tmp_path / "det.h5").as_uri())
    run("archive", beamtime, tmp_path / "one", "--inside-only")
    run("archive", beamtime, tmp_path / "other")
    assert not list((tmp_path / "one").rglob("det.h5"))
    assert list((tmp_path / "other").rglob("det.h5"))


def test_another_beamtime_is_an_error_in_one_line(
    run: Run, beamtime: Path, tmp_path: Path
) -> None:
    run("archive", beamtime, tmp_path / "archive")
    record(tmp_path / "y.db")
    status, out, err = run("archive", tmp_path / "y.db", tmp_path / "archive")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "another beamtime" in err
