"""What belongs to a beamtime, and in which order a copy reads it."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import event_model
import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import BeamtimeFileError, DatabaseWriteError
from bluesky_beamtime.exports import belongings
from bluesky_beamtime.exports.belongings import Belongings, gather
from bluesky_beamtime.storage import ZarrWriter
from tests.exported import small_disk

from .conftest import emit_run


@pytest.fixture
def beamtime(tmp_path: Path) -> Path:
    """Give a beamtime with frames in its store, closed."""
    path = tmp_path / "home" / "x.db"
    path.parent.mkdir()
    with Beamtime(path, sample="LaB6") as opened:
        emit_run(opened, path.parent / "x.zarr" / "frames", (ZarrWriter,))
    return path


def names(found: Belongings) -> list[str]:
    return [each.name for each in found.files()]


def refer(path: Path, uri: str, mimetype: str = "multipart/related") -> None:
    """Record a run whose document refers to a place."""
    composed = event_model.compose_run()
    bundle = composed.compose_stream_resource(
        mimetype=mimetype, uri=uri, data_key="other", parameters={}
    )
    with Beamtime(path) as beamtime:
        beamtime("start", composed.start_doc)
        beamtime("stream_resource", bundle.stream_resource_doc)
        beamtime("stop", composed.compose_stop())


def refer_as_of_old(path: Path, root: str, resource_path: str) -> None:
    composed = event_model.compose_run()
    bundle = composed.compose_resource(
        spec="AD_TIFF", root=root, resource_path=resource_path, resource_kwargs={}
    )
    with Beamtime(path) as beamtime:
        beamtime("start", composed.start_doc)
        beamtime("resource", bundle.resource_doc)
        beamtime("stop", composed.compose_stop())


def documents(path: Path, kind: str) -> list[dict[str, Any]]:
    with Beamtime(path, mode="r") as beamtime:
        return [d for run in beamtime for name, d in run.documents() if name == kind]


def copy(found: Belongings, folder: Path) -> None:
    for each in found.files():
        (folder / each.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(each.path, folder / each.name)


def test_everything_is_named_once_what_promises_first(beamtime: Path) -> None:
    (beamtime.parent / "x_files" / "day").mkdir(parents=True)
    (beamtime.parent / "x_files" / "day" / "det.h5").write_bytes(b"hdf5")
    (beamtime.parent / "x.journal.jsonl").write_bytes(b"{}\n")
    (beamtime.parent / "y.db").write_bytes(b"another one")
    with gather(beamtime) as found:
        listed = names(found)
        kinds = [each.kind for each in found.files()]
        sizes = {each.name: each.size for each in found.files()}
    assert len(set(listed)) == len(listed)
    assert listed[:2] == ["x.journal.jsonl", "x.db"]
    array = "x.zarr/frames/cam1/cam1"
    assert listed.index(f"{array}/zarr.json") < listed.index(f"{array}/c.0.0.0")
    assert listed[-1] == "x_files/day/det.h5"
    assert (kinds[0], kinds[1], kinds[-1]) == ("journal", "database", "files")
    assert sizes["x_files/day/det.h5"] == 4
    assert not any(name.startswith("y") for name in listed)


def test_what_metadata_promise_is_looked_for_when_they_were_read(
    beamtime: Path,
) -> None:
    """A writer makes a new file and then announces it: never the other way round."""
    array = beamtime.parent / "x.zarr" / "frames" / "cam1" / "cam1"
    with gather(beamtime) as found:
        files = found.files()
        listed: list[str] = []
        for each in files:
            listed.append(each.name)
            if each.path == array / "zarr.json":
                (array / "c.1.0.0").write_bytes(b"made meanwhile")
    assert "x.zarr/frames/cam1/cam1/c.1.0.0" in listed
    assert len(set(listed)) == len(listed)


def test_a_copy_of_what_is_named_opens_with_equal_data(
    beamtime: Path, tmp_path: Path
) -> None:
    with gather(beamtime) as found:
        copy(found, tmp_path / "copy")
        assert not found.live
        assert found.absent == ()
    with (
        Beamtime(beamtime, mode="r") as here,
        Beamtime(tmp_path / "copy" / "x.db", mode="r") as there,
    ):
        assert there.verify().ok
        one, other = here[-1].primary.read(), there[-1].primary.read()
        np.testing.assert_array_equal(one["cam1"], other["cam1"])
        np.testing.assert_array_equal(one["spectrum"], other["spectrum"])


def test_what_only_a_writer_needs_is_left_out(beamtime: Path) -> None:
    with Beamtime(beamtime) as opened:
        writer = ZarrWriter.get("belongings-live")
        writer.set_uri(str(beamtime.parent / "x.zarr" / "live"))
        sink = writer.prepare("cam", "cam", np.dtype("u2"), (4, 4))
        writer.kickoff()
        sink.write(np.ones((4, 4), "u2"))
        writer.flush()
        folder = beamtime.parent / "x.zarr" / "live" / "cam"
        assert (folder / ".writer.lock").exists()
        (folder / ".zarr.json.1.partial").write_bytes(b"{")
        opened("start", event_model.compose_run().start_doc)
        with gather(beamtime) as found:
            listed = names(found)
            assert found.live
        sink.close()
        ZarrWriter.release("belongings-live")
    inside = [name for name in listed if name.startswith("x.zarr/live/cam/")]
    assert sorted(name.rpartition("/")[2] for name in inside) == [
        ".layout.json",
        "c.0.0.0",
        "zarr.json",
    ]
    assert not [name for name in listed if name.endswith((".lock", "-wal", ".reserve"))]


def test_the_snapshot_is_of_one_moment_and_needs_no_log(beamtime: Path) -> None:
    with Beamtime(beamtime) as opened:
        before = len(opened)
        emit_run(opened, beamtime.parent / "x.zarr" / "more", (ZarrWriter,))
        with gather(beamtime) as found:
            emit_run(opened, beamtime.parent / "x.zarr" / "most", (ZarrWriter,))
            uri = f"file:{quote(str(found.snapshot))}?immutable=1"
            with closing(sqlite3.connect(uri, uri=True)) as copied:
                (runs,) = copied.execute("SELECT count(*) FROM runs").fetchone()
                (mode,) = copied.execute("PRAGMA journal_mode").fetchone()
            kept = sorted(os.listdir(found.snapshot.parent))
    assert (runs, mode) == (before + 1, "delete")
    assert kept == ["snapshot.db"]


def test_two_snapshots_of_the_same_are_the_same(beamtime: Path) -> None:
    with gather(beamtime) as one, gather(beamtime) as other:
        assert one.snapshot.read_bytes() == other.snapshot.read_bytes()


def test_the_copies_are_gone_afterwards(beamtime: Path, tmp_path: Path) -> None:
    with gather(beamtime, folder=tmp_path) as found:
        assert found.snapshot.is_relative_to(tmp_path)
    assert os.listdir(tmp_path) == ["home"]


def test_the_journal_is_taken_before_the_database(
    beamtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery stores documents and then takes them out: they must not fall between."""
    journal = beamtime.with_name("x.journal.jsonl")
    journal.write_bytes(b"{}\n")
    take = belongings.take_snapshot

    def recovered_meanwhile(path: Path, target: Path) -> None:
        journal.unlink()
        take(path, target)

    monkeypatch.setattr(belongings, "take_snapshot", recovered_meanwhile)
    with gather(beamtime) as found:
        assert found.journal is not None
        assert found.journal.read_bytes() == b"{}\n"


# ---------------------------------------------------------------------------- assets


def test_files_outside_come_along_and_are_found_in_the_copy(
    beamtime: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "detector disk" / "scan_1"
    outside.mkdir(parents=True)
    (outside / "1.tiff").write_bytes(b"one")
    refer(beamtime, outside.as_uri() + "/")
    with gather(beamtime) as found:
        copy(found, tmp_path / "copy")
        assert found.absent == ()
        (asset,) = found.assets
    assert asset.name == f"x_outside{outside}"
    shutil.rmtree(outside)
    shutil.move(tmp_path / "copy", tmp_path / "carried away")
    moved = tmp_path / "carried away"
    (document,) = (
        d
        for d in documents(moved / "x.db", "stream_resource")
        if d["data_key"] == "other"
    )
    assert document["uri"] == (moved / asset.name).as_uri()
    assert (moved / asset.name / "1.tiff").read_bytes() == b"one"
    # The file itself was not touched.
    (original,) = (
        d for d in documents(beamtime, "stream_resource") if d["data_key"] == "other"
    )
    assert original["uri"] == outside.as_uri() + "/"


def test_files_of_legacy_documents_come_along(beamtime: Path, tmp_path: Path) -> None:
    root = tmp_path / "old"
    (root / "day").mkdir(parents=True)
    for number in range(3):
        (root / "day" / f"series_{number:03d}.cbf").write_bytes(b"%d" % number)
    (root / "day" / "others.cbf").write_bytes(b"")
    refer_as_of_old(beamtime, str(root), "day/series")
    with gather(beamtime) as found:
        copy(found, tmp_path / "copy")
    (document,) = documents(tmp_path / "copy" / "x.db", "resource")
    place = Path(document["root"]) / document["resource_path"]
    assert place == tmp_path / "copy" / f"x_outside{root}" / "day" / "series"
    assert sorted(os.listdir(place.parent)) == [
        f"series_{number:03d}.cbf" for number in range(3)
    ]


def test_files_beside_the_database_keep_their_place(
    beamtime: Path, tmp_path: Path
) -> None:
    (beamtime.parent / "det").mkdir()
    (beamtime.parent / "det" / "a#1.h5").write_bytes(b"a")
    (beamtime.parent / "det" / "private.txt").write_bytes(b"nobody refers to it")
    refer(beamtime, (beamtime.parent / "det" / "a#1.h5").as_uri())
    with gather(beamtime, assets=False) as found:
        assert "det/a#1.h5" in names(found)
        assert "det/private.txt" not in names(found)


def test_outside_can_be_left_out(beamtime: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(b"a document of others may name any file")
    refer(beamtime, (tmp_path / "secret.txt").as_uri())
    with gather(beamtime, assets=False) as found:
        assert not [name for name in names(found) if "secret" in name]
        copied = found.snapshot.read_bytes()
    assert b"x_outside" not in copied


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://bucket/frames.zarr/cam", "remote"),
        ("file://elsewhere/data/a.h5", "remote"),
        ("file://localhost/nowhere/at/all.h5", "missing"),
        ("file:///dev/zero", "missing"),
        ("file:///", "refused"),
        ("../../etc/passwd", "refused"),
        ("det%00.h5", "refused"),
    ],
)
def test_what_a_copy_cannot_have_is_named(
    beamtime: Path, uri: str, reason: str
) -> None:
    refer(beamtime, uri)
    with gather(beamtime) as found:
        (absent,) = found.absent
        assert found.assets == ()
    assert (absent.uri, absent.reason) == (uri, reason)
    assert uri in str(absent)


def test_what_the_copy_has_already_is_referred_to(beamtime: Path) -> None:
    refer(beamtime, "file:///nowhere/a.h5")
    with gather(beamtime, held={"x_outside/nowhere/a.h5"}) as found:
        assert found.absent == ()
        assert b"x_outside/nowhere/a.h5" in found.snapshot.read_bytes()


def test_links_are_followed_and_those_that_lead_back_end(
    beamtime: Path, tmp_path: Path
) -> None:
    store = beamtime.parent / "x.zarr"
    shutil.move(store / "frames", tmp_path / "big disk")
    (store / "frames").symlink_to(tmp_path / "big disk")
    (store / "back").symlink_to(store)
    with gather(beamtime) as found:
        listed = names(found)
    assert "x.zarr/frames/cam1/cam1/c.0.0.0" in listed
    assert not [name for name in listed if name.startswith("x.zarr/back/")]


def test_a_file_that_goes_meanwhile_is_left_out(beamtime: Path) -> None:
    extra = beamtime.parent / "x_files"
    extra.mkdir()
    (extra / "a.h5").write_bytes(b"a")
    with gather(beamtime) as found:
        listing = found.files()
        next(listing)
        shutil.rmtree(extra)
        assert "x_files/a.h5" not in [each.name for each in listing]


def test_what_is_no_beamtime_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"text")
    with pytest.raises(BeamtimeFileError), gather(tmp_path / "x.db"):
        pass
    with pytest.raises(BeamtimeFileError), gather(tmp_path / "y.db"):
        pass


def test_no_space_for_the_copy_is_said(beamtime: Path, tmp_path: Path) -> None:
    folder = tmp_path / "no"
    folder.write_bytes(b"")
    with (
        pytest.raises(DatabaseWriteError, match="cannot make a folder"),
        gather(beamtime, folder=folder),
    ):
        pass


def test_a_full_disk_for_the_copy_is_said(beamtime: Path, tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "small", 64 << 10) as disk,
        pytest.raises(DatabaseWriteError, match="No space left") as caught,
        gather(beamtime, folder=disk),
    ):
        pass
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "small") in str(caught.value)
