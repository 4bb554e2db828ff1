"""Frames follow to an object store; who reads from the server finds them there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera
from bluesky_beamtime.errors import PathError, StoreReadError
from bluesky_beamtime.testing import assert_documents_equal

from .conftest import Line, caught_up, make_rich_run, point_at, record, wait_for


def measure(RE: Any, beamtime: Beamtime, plan: Any = None) -> list[tuple[str, Any]]:
    from bluesky.plans import count

    beamtime.attach(RE)
    with init_devices():
        cam = SimCamera(beamtime.frames)
    seen: list[tuple[str, Any]] = []
    RE(count([cam], 4), lambda name, doc: seen.append((name, doc)))
    return seen


def test_frames_are_read_from_the_object_store(
    RE, url, bucket, tmp_path, s3_server
) -> None:
    spool = tmp_path / "spool"
    with Beamtime(url, frames=f"{bucket}/a prefix", spool=spool) as beamtime:
        documents = measure(RE, beamtime)
        rich = make_rich_run(scan_id=20)
        uid = record(beamtime, rich)
        caught_up(beamtime)
        here = beamtime[1].primary.read().load()
    shutil.rmtree(spool)
    with Beamtime(url, mode="r") as reader:
        run = reader[1]
        assert run.primary.read().load().identical(here)
        assert_documents_equal(run.documents(original=True), documents)
        uris = [d["uri"] for name, d in run.documents() if name == "stream_resource"]
        assert all(uri.startswith(f"{bucket}/a%20prefix/") for uri in uris), uris
        assert run.accounting["cam"]["written"] == 4
        # Arrays inside events too.
        assert_documents_equal(reader[uid].documents(), rich)
        one = run.primary["cam"][2].values
        assert np.array_equal(one, here["cam"][2].values)
        assert "1 run" not in repr(reader)


def test_frames_that_have_arrived_may_be_removed(RE, url, bucket, tmp_path) -> None:
    with Beamtime(url, frames=bucket, spool=tmp_path, keep_local=False) as beamtime:
        measure(RE, beamtime)
        folder = next((tmp_path).glob("*.zarr"))
        wait_for(lambda: not list(folder.glob("frames/*/count*")))
        caught_up(beamtime)
        # The file says where they are, and reads them from there.
        here = beamtime[1].primary.read()["cam"].values
        assert here.shape[0] == 4 and here.any()
    with Beamtime(url, mode="r") as reader:
        assert np.array_equal(reader[1].primary.read()["cam"].values, here)


def test_nothing_is_removed_that_did_not_arrive_as_it_was(
    RE, url, bucket, tmp_path, monkeypatch, s3_server
) -> None:
    from bluesky_beamtime.database.replica.frames import FrameFollower

    monkeypatch.setattr(FrameFollower, "_part", lambda *_: b"something else")
    with Beamtime(url, frames=bucket, spool=tmp_path, keep_local=False) as beamtime:
        measure(RE, beamtime)
        wait_for(lambda: beamtime.replica.frames.progress.failure)
        assert "not the same" in str(beamtime.replica.frames.progress.failure)
        folder = next((tmp_path).glob("*.zarr"))
        assert list(folder.glob("frames/*/count*/cam/c*"))
        assert beamtime[1].primary.read()["cam"].values.any()


def test_without_an_object_store_frames_are_where_they_were(RE, url, tmp_path) -> None:
    with Beamtime(url, spool=tmp_path) as beamtime:
        documents = measure(RE, beamtime)
        uid = record(beamtime, make_rich_run(scan_id=20))
        caught_up(beamtime)
        here = beamtime[1].primary.read().load()
    with Beamtime(url, mode="r") as reader:
        assert reader[1].primary.read().load().identical(here)
        assert_documents_equal(reader[1].documents(), documents)
        assert reader[uid].primary.read(["image"])["image"].values.any()


@pytest.mark.parametrize("failure", ["cut", "mute"])
def test_an_object_store_that_fails_is_caught_up_with(
    failure, RE, url, bucket, s3_server, line, tmp_path, monkeypatch
) -> None:
    cable: Line = line(s3_server.port)
    point_at(monkeypatch, f"http://127.0.0.1:{cable.port}")
    cable.fail(failure)
    with Beamtime(url, frames=bucket, spool=tmp_path) as beamtime:
        documents = measure(RE, beamtime)
        assert beamtime[1].exit_status == "success"
        assert beamtime.replica.rows.wait(60)
        assert not beamtime.replica.frames.wait(1)
        with Beamtime(url, mode="r") as reader:
            assert_documents_equal(reader[1].documents(original=True), documents)
            if failure == "cut":
                with pytest.raises(StoreReadError):
                    reader[1].primary.read(["cam"])
        cable.mend()
        caught_up(beamtime)
        here = beamtime[1].primary.read(["cam"]).load()
        with Beamtime(url, mode="r") as reader:
            assert reader[1].primary.read(["cam"]).load().equals(here)


def test_credentials_in_the_url_are_refused(url, tmp_path: Path) -> None:
    with pytest.raises(PathError) as caught:
        Beamtime(url, frames="s3://key:hush@bucket/x", spool=tmp_path)
    assert "hush" not in str(caught.value)
