"""A beamtime in an archive: all of it, proven, and only what has changed again."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import orjson
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.cli import main
from bluesky_beamtime.errors import ArchiveError, BackendError, BeamtimeFileError
from bluesky_beamtime.exports import archive, prove, restore
from bluesky_beamtime.exports.archive_files import Bringer
from bluesky_beamtime.exports.manifest import decode_manifest
from bluesky_beamtime.storage import ZarrWriter
from bluesky_beamtime.storage.backends import (
    LocalBackend,
    MemoryBackend,
    RecordingBackend,
)
from bluesky_beamtime.storage.remote_array import Retry

from .conftest import damage, emit_run

ONCE = Retry(attempts=1)


@pytest.fixture
def beamtime(tmp_path: Path) -> Path:
    """Give a beamtime of one run with frames, closed."""
    path = tmp_path / "home" / "x.db"
    path.parent.mkdir()
    measure(path, "first")
    settle(path.parent)
    return path


def measure(path: Path, name: str) -> str:
    store = path.parent / f"{path.stem}.zarr"
    with Beamtime(path, sample="LaB6") as opened:
        return emit_run(opened, store / name, (ZarrWriter,))


def settle(folder: Path) -> None:
    """Make all files look as if they had been written a while ago."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            past = path.stat().st_mtime_ns - 10_000_000_000
            os.utime(path, ns=(past, past))


@pytest.fixture
def store() -> Iterator[RecordingBackend]:
    with RecordingBackend(MemoryBackend()) as backend:
        yield backend


def sent(store: RecordingBackend) -> list[str]:
    return [call[1] for call in store.calls if call[0] in ("put_pieces", "put_bytes")]


def content(backend: Any) -> dict[str, bytes]:
    keys = backend.list_prefix("", recursive=True)
    return {key: backend.get_bytes(key) for key in keys}


# ------------------------------------------------------------------------- all of it


def test_everything_is_there_with_its_hash(
    beamtime: Path, store: RecordingBackend
) -> None:
    (beamtime.parent / "x_files").mkdir()
    (beamtime.parent / "x_files" / "big.h5").write_bytes(os.urandom(9 << 20))
    report = archive(beamtime, store)
    found = content(store.inner)
    hashes = decode_manifest(found.pop("MANIFEST.sha256"))
    assert hashes == {
        name: hashlib.sha256(data).hexdigest() for name, data in found.items()
    }
    assert found.pop("x.db") and found.pop("ARCHIVE.json")
    assert found == {
        path.relative_to(beamtime.parent).as_posix(): path.read_bytes()
        for folder in ("x.zarr", "x_files")
        for path in (beamtime.parent / folder).rglob("*")
        if path.is_file()
    }
    assert (report.sent, report.unchanged, report.found) == (report.files, 0, 0)
    assert report.sent_size == report.size > 9 << 20
    assert not report.up_to_date
    assert sent(store)[-1] == "MANIFEST.sha256"


def test_a_folder_is_an_archive_that_sha256sum_checks(
    beamtime: Path, tmp_path: Path
) -> None:
    archive(beamtime, tmp_path / "archive")
    check = ["sha256sum", "--strict", "--quiet", "-c", "MANIFEST.sha256"]
    if shutil.which("sha256sum"):
        found = subprocess.run(check, cwd=tmp_path / "archive", capture_output=True)
        assert (found.returncode, found.stdout) == (0, b"")
    with Beamtime(tmp_path / "archive" / "x.db", mode="r") as there:
        assert there.verify().ok
        with Beamtime(beamtime, mode="r") as here:
            np.testing.assert_array_equal(
                there[-1].primary.read()["cam1"], here[-1].primary.read()["cam1"]
            )


def test_the_database_follows_its_frames_and_lengths_follow_shards(
    beamtime: Path, store: RecordingBackend
) -> None:
    archive(beamtime, store)
    order = sent(store)
    array = "x.zarr/first/cam1/cam1"
    assert order[0] == "ARCHIVE.json"
    assert order.index(f"{array}/c.0.0.0") < order.index(f"{array}/zarr.json")
    assert order[-3:] == ["x.db", "ARCHIVE.json", "MANIFEST.sha256"]


# ---------------------------------------------------------------------- once and again


def test_a_second_archive_has_nothing_to_do(
    beamtime: Path, store: RecordingBackend
) -> None:
    first = archive(beamtime, store)
    store.calls.clear()
    report = archive(beamtime, store)
    assert report.up_to_date
    assert (report.unchanged, report.files) == (first.files, first.files)
    assert sent(store) == []
    # Frames are neither read here nor there.
    assert not [c for c in store.called("get_range") if "c.0" in c[1]]


def test_only_what_changed_is_sent(beamtime: Path, store: RecordingBackend) -> None:
    archive(beamtime, store)
    measure(beamtime, "second")
    store.calls.clear()
    report = archive(beamtime, store)
    again = {name for name in sent(store) if "/first/" in name}
    assert again == set()
    assert "x.zarr/second/cam1/cam1/c.0.0.0" in sent(store)
    assert report.unchanged > 0
    assert prove(store).ok


def test_what_was_touched_alone_is_not_sent(
    beamtime: Path, store: RecordingBackend
) -> None:
    archive(beamtime, store)
    for path in (beamtime.parent / "x.zarr").rglob("*"):
        if path.is_file():
            os.utime(path)
    store.calls.clear()
    assert archive(beamtime, store).up_to_date
    assert sent(store) == []


def test_a_change_that_keeps_the_size_is_sent(
    beamtime: Path, store: RecordingBackend
) -> None:
    archive(beamtime, store)
    shard = beamtime.parent / "x.zarr/first/cam1/cam1/c.0.0.0"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert archive(beamtime, store).sent == 1
    assert store.get_bytes("x.zarr/first/cam1/cam1/c.0.0.0") == bytes(data)


def test_a_change_right_after_an_archive_is_noticed(
    beamtime: Path, store: RecordingBackend
) -> None:
    """Within the granularity of times, neither size nor time tells."""
    shard = beamtime.parent / "x.zarr/first/cam1/cam1/c.0.0.0"
    os.utime(shard)
    moment = shard.stat().st_mtime_ns
    archive(beamtime, store)
    data = bytes(shard.stat().st_size)
    shard.write_bytes(data)
    os.utime(shard, ns=(moment, moment))
    archive(beamtime, store)
    assert store.get_bytes("x.zarr/first/cam1/cam1/c.0.0.0") == data


def test_what_is_gone_here_stays_there(beamtime: Path, store: RecordingBackend) -> None:
    archive(beamtime, store)
    shutil.rmtree(beamtime.parent / "x.zarr")
    report = archive(beamtime, store)
    assert report.kept > 0
    assert store.exists("x.zarr/first/cam1/cam1/c.0.0.0")
    assert prove(store).ok
    store.delete("x.zarr/first/cam1/cam1/c.0.0.0")
    with pytest.raises(ArchiveError, match="has lost it") as caught:
        archive(beamtime, store)
    assert caught.value.names == ("x.zarr/first/cam1/cam1/c.0.0.0",)


def test_a_journal_that_was_recovered_goes(
    beamtime: Path, store: RecordingBackend
) -> None:
    journal = beamtime.with_name("x.journal.jsonl")
    journal.write_bytes(b'{"run": null}\n')
    archive(beamtime, store)
    assert store.get_bytes("x.journal.jsonl") == b'{"run": null}\n'
    journal.unlink()
    archive(beamtime, store)
    assert not store.exists("x.journal.jsonl")
    assert prove(store).ok


def test_a_dry_run_writes_nothing(beamtime: Path, store: RecordingBackend) -> None:
    plan = archive(beamtime, store, dry_run=True)
    assert plan.dry_run
    assert content(store.inner) == {}
    done = archive(beamtime, store)
    assert (plan.sent, plan.sent_size) == (done.sent, done.sent_size)
    before = content(store.inner)
    assert archive(beamtime, store, dry_run=True).up_to_date
    measure(beamtime, "second")
    assert archive(beamtime, store, dry_run=True).sent > 3
    assert content(store.inner) == before


def test_progress_ends_where_it_should(beamtime: Path, store: RecordingBackend) -> None:
    told: list[tuple[str, int, int]] = []
    archive(beamtime, store, progress=lambda *values: told.append(values))
    assert told[-1][1] <= told[-1][2]
    assert {what for what, _, _ in told} == {"archive"}


# -------------------------------------------------------------------------- other hands


def test_the_archive_of_another_beamtime_is_refused(
    beamtime: Path, tmp_path: Path, store: RecordingBackend
) -> None:
    archive(beamtime, store)
    before = content(store.inner)
    other = tmp_path / "other" / "x.db"
    other.parent.mkdir()
    measure(other, "first")
    renamed = tmp_path / "other" / "y.db"
    measure(renamed, "renamed")
    for path in (other, renamed):
        with pytest.raises(ArchiveError, match="another beamtime"):
            archive(path, store)
    assert content(store.inner) == before


def test_an_older_copy_does_not_overwrite_a_newer_archive(
    beamtime: Path, tmp_path: Path, store: RecordingBackend
) -> None:
    shutil.copytree(beamtime.parent, tmp_path / "backup")
    measure(beamtime, "second")
    archive(beamtime, store)
    with pytest.raises(ArchiveError, match="older copy"):
        archive(tmp_path / "backup" / "x.db", store)


def test_two_beamtimes_in_one_store_have_places_of_their_own(
    beamtime: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "y.db"
    other.parent.mkdir()
    measure(other, "first")
    with MemoryBackend() as whole:
        archive(beamtime, f"{whole.url}/x")
        archive(other, f"{whole.url}/y")
        assert prove(f"{whole.url}/x").ok
        assert prove(f"{whole.url}/y").beamtime == "y.db"


@pytest.mark.parametrize("name", ["x.db", "x.zarr/zarr.json"])
def test_files_of_others_are_not_overwritten(
    beamtime: Path, store: RecordingBackend, name: str
) -> None:
    store.put_bytes(name, b"mine")
    with pytest.raises(ArchiveError, match="already"):
        archive(beamtime, store)
    assert content(store.inner) == {name: b"mine"}


def test_a_place_inside_the_beamtime_is_refused(beamtime: Path) -> None:
    with pytest.raises(ArchiveError, match="inside"):
        archive(beamtime, beamtime.parent / "x.zarr" / "archive")
    with pytest.raises(ArchiveError, match="already"):
        archive(beamtime, beamtime.parent)


def test_two_archives_at_once_are_noticed(
    beamtime: Path, store: RecordingBackend
) -> None:
    def other_starts(call: tuple[Any, ...]) -> None:
        if call[:2] == ("put_pieces", "x.db"):
            store.before = None
            archive(beamtime, store.inner)

    store.before = other_starts
    with pytest.raises(ArchiveError, match="another process"):
        archive(beamtime, store)
    assert archive(beamtime, store).files > 0
    assert prove(store).ok


def test_what_is_no_beamtime_is_refused(
    tmp_path: Path, store: RecordingBackend
) -> None:
    (tmp_path / "x.db").write_bytes(b"no")
    with pytest.raises(BeamtimeFileError):
        archive(tmp_path / "x.db", store)
    assert content(store.inner) == {}


@pytest.mark.parametrize("table", ["runs", "stream_resources"])
def test_a_database_that_is_damaged_is_refused(
    beamtime: Path, store: RecordingBackend, table: str
) -> None:
    damage(beamtime, table)
    with pytest.raises(BeamtimeFileError, match="is damaged") as caught:
        archive(beamtime, store)
    assert str(beamtime) in str(caught.value)
    assert not content(store)


def test_a_state_that_is_damaged_or_newer_is_refused(
    beamtime: Path, store: RecordingBackend
) -> None:
    archive(beamtime, store)
    good = store.get_bytes("ARCHIVE.json")
    for bad, sentence in (
        (b"{", "cannot be read"),
        (good.replace(b'"format": 1', b'"format": 2'), "newer version"),
        (b"[]", "cannot be read"),
        (re.sub(rb'"time": [0-9.]+', b'"time": 1e300', good), "cannot be read"),
        (re.sub(rb'"time": [0-9.]+', b'"time": -1e18', good), "cannot be read"),
    ):
        store.put_bytes("ARCHIVE.json", bad)
        with pytest.raises(ArchiveError, match=sentence):
            archive(beamtime, store)


# ---------------------------------------------------------------------- what goes wrong


def failing(after: int, error: Callable[[], Exception]) -> Callable[[Any], None]:
    """Return what lets some values be written and fails then."""
    left = iter(range(after))

    def before(call: tuple[Any, ...]) -> None:
        if call[0] in ("put_pieces", "put_bytes") and next(left, None) is None:
            raise error()

    return before


def test_an_archive_that_fails_is_completed_by_the_next(
    beamtime: Path, store: RecordingBackend
) -> None:
    files = archive(beamtime, MemoryBackend()).files
    for after in range(files + 2):
        store.inner.delete_prefix("", everything=True)
        store.before = failing(after, lambda: BackendError("the server is away"))
        with pytest.raises(ArchiveError, match="the server is away"):
            archive(beamtime, store, retry=ONCE, threads=1)
        store.before = None
        arrived = {name for name in content(store.inner) if name != "ARCHIVE.json"}
        assert "MANIFEST.sha256" not in arrived
        store.calls.clear()
        report = archive(beamtime, store)
        # What had arrived was not sent again.
        assert not arrived & set(sent(store)), after
        assert report.found + report.unchanged == len(arrived)
        assert prove(store).ok


def test_what_was_noted_is_not_even_read_again(
    beamtime: Path, store: RecordingBackend
) -> None:
    """The next archive goes on from the list that the failed one left behind."""

    def no_database(call: tuple[Any, ...]) -> None:
        if call[:2] == ("put_pieces", "x.db"):
            raise BackendError("gone")

    store.before = no_database
    with pytest.raises(ArchiveError):
        archive(beamtime, store, retry=ONCE)
    store.before = None
    store.calls.clear()
    report = archive(beamtime, store)
    assert report.found == 0
    assert not [call for call in store.called("get_range") if "c.0" in call[1]]


def test_a_store_that_fails_now_and_then_is_asked_again(
    beamtime: Path, store: RecordingBackend
) -> None:
    calls = iter(range(10**6))

    def sometimes(call: tuple[Any, ...]) -> None:
        if call[0] != "list_prefix" and next(calls) % 3 == 0:
            raise BackendError("try again")

    store.before = sometimes
    archive(beamtime, store, retry=Retry(attempts=4, pause=0.001), threads=1)
    store.before = None
    assert prove(store).ok


def test_a_full_store_is_named(beamtime: Path, store: RecordingBackend) -> None:
    store.before = failing(3, lambda: BackendError("No space", errno=errno.ENOSPC))
    with pytest.raises(ArchiveError, match="archive again") as caught:
        archive(beamtime, store, retry=ONCE)
    assert caught.value.errno == errno.ENOSPC


class Lying(MemoryBackend):
    """Changes what it is given, as often as it is told."""

    def __init__(self, name: str, times: int) -> None:
        super().__init__()
        self.name, self.times = name, times

    def put_bytes(self, key: str, data: Any) -> None:
        if key == self.name and self.times:
            self.times -= 1
            data = bytes(data)[:-1] + b"?"
        super().put_bytes(key, data)


@pytest.mark.parametrize(
    "name", ["x.db", "x.zarr/first/cam1/cam1/c.0.0.0", "x.zarr/first/cam1/zarr.json"]
)
def test_what_arrives_otherwise_is_found(beamtime: Path, name: str) -> None:
    with Lying(name, times=1) as store:
        archive(beamtime, store)
        assert prove(store).ok
    with Lying(name, times=99) as store:
        with pytest.raises(ArchiveError, match="does not arrive") as caught:
            archive(beamtime, store)
        assert name in caught.value.names
        assert not store.exists("MANIFEST.sha256")


def refuse_to_open(patch: pytest.MonkeyPatch, refused: Path, reason: int) -> None:
    opening = os.open

    def refuse(path: Any, *args: Any, **more: Any) -> int:
        if os.fspath(path) == str(refused):
            raise OSError(reason, os.strerror(reason), str(path))
        return opening(path, *args, **more)

    patch.setattr(os, "open", refuse)


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_there(
    beamtime: Path, store: RecordingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = beamtime.parent / "x.zarr/first/cam1/cam1/c.0.0.0"
    with monkeypatch.context() as patched:
        refuse_to_open(patched, shard, reason=errno.EACCES)
        with pytest.raises(ArchiveError, match="Permission denied") as caught:
            archive(beamtime, store)
    assert "x.zarr/first/cam1/cam1/c.0.0.0" in caught.value.names
    # No database that promises it, no length that covers it.
    assert not store.exists("x.db")
    assert not store.exists("x.zarr/first/cam1/cam1/zarr.json")
    archive(beamtime, store)
    assert prove(store).ok


def test_what_cannot_be_read_is_left_out_on_request(
    beamtime: Path, store: RecordingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk with damage is one whose other files have to be brought elsewhere."""
    name = "x.zarr/first/cam1/cam1/c.0.0.0"
    shard = beamtime.parent / name
    with monkeypatch.context() as patched:
        refuse_to_open(patched, shard, reason=errno.EIO)
        with pytest.raises(ArchiveError, match="--leave-unreadable"):
            archive(beamtime, store)
        report = archive(beamtime, store, leave_unreadable=True)
        assert list(report.unreadable) == [name]
        assert "Input/output error" in report.unreadable[name]
        proof = prove(store)
        assert proof.ok
        assert any(name in line for line in proof.absent)
        assert not store.exists(name)
    # Readable again, it comes with the next one; then what is there stays.
    assert archive(beamtime, store).unreadable == {}
    assert prove(store).absent == ()
    content = store.get_bytes(name)
    with monkeypatch.context() as patched:
        refuse_to_open(patched, shard, reason=errno.EIO)
        report = archive(beamtime, store, leave_unreadable=True, thorough=True)
    assert list(report.unreadable) == [name]
    assert report.kept == 1
    assert store.get_bytes(name) == content
    assert prove(store).ok


def test_metadata_that_cannot_be_read_are_left_out_too(
    beamtime: Path, store: RecordingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = beamtime.parent / "x.zarr/first/cam1/cam1/zarr.json"
    reading = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == metadata:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return reading(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    report = archive(beamtime, store, leave_unreadable=True)
    assert list(report.unreadable) == ["x.zarr/first/cam1/cam1/zarr.json"]
    assert prove(store).ok


def test_a_damaged_disk_of_the_archive_is_said_file_by_file(
    beamtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "archive"
    files = archive(beamtime, place).files
    name = "x.zarr/first/cam1/cam1/c.0.0.0"
    getting = LocalBackend.get_range

    def refuse(self: LocalBackend, key: str, *args: Any) -> bytes:
        if key == name and Path(self.root) == place:
            raise BackendError(f"cannot read {key!r}", errno=errno.EIO)
        return getting(self, key, *args)

    monkeypatch.setattr(LocalBackend, "get_range", refuse)
    proof = prove(place, retry=Retry(attempts=1))
    assert (proof.ok, proof.unreadable) == (False, (name,))
    assert proof.files == files - 1
    with pytest.raises(ArchiveError, match="one file of the archive") as caught:
        restore(place, tmp_path / "back", retry=Retry(attempts=1))
    assert caught.value.names == (name,)
    assert not (tmp_path / "back").exists()


def test_a_link_in_a_circle_is_passed_by(
    beamtime: Path, store: RecordingBackend
) -> None:
    files = beamtime.parent / "x_files"
    files.mkdir(exist_ok=True)
    (files / "circle").symlink_to("circle")
    (files / "a.txt").write_text("a")
    archive(beamtime, store)
    assert store.exists("x_files/a.txt")
    assert not store.exists("x_files/circle")


def test_frames_that_are_lost_are_named_until_the_archive_has_them(
    beamtime: Path, store: RecordingBackend
) -> None:
    array = beamtime.parent / "x.zarr/first/cam1/cam1"
    array.rename(beamtime.parent / "aside")
    (absent,) = archive(beamtime, store).absent
    assert (absent.uri, absent.reason) == ("x.zarr/first/cam1/cam1", "missing")
    assert prove(store).absent == (str(absent),)
    array.symlink_to("nowhere")
    assert archive(beamtime, store).absent == (absent,)
    array.unlink()
    (beamtime.parent / "aside").rename(array)
    assert archive(beamtime, store).absent == ()
    shutil.rmtree(array)
    report = archive(beamtime, store)
    assert report.kept
    assert report.absent == ()


def test_a_shard_that_goes_while_it_is_archived_is_said(
    beamtime: Path, store: RecordingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = beamtime.parent / "x.zarr/first/cam1/cam1/c.0.0.0"
    bring = Bringer.bring

    def remove_first(self: Bringer, each: Any) -> Any:
        if each.path == shard:
            shard.unlink()
        return bring(self, each)

    monkeypatch.setattr(Bringer, "bring", remove_first)
    with pytest.raises(ArchiveError, match="removed while it was being") as caught:
        archive(beamtime, store)
    assert "x.zarr/first/cam1/cam1/c.0.0.0" in caught.value.names


def test_the_command_does_not_archive_into_memory(
    beamtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["beamtime", "archive", str(beamtime), "memory://"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "give a folder" in capsys.readouterr().err


def test_a_name_that_no_store_takes_is_said(
    beamtime: Path, store: RecordingBackend
) -> None:
    (beamtime.parent / "x_files").mkdir()
    (beamtime.parent / "x_files" / "a\\b.h5").write_bytes(b"")
    with pytest.raises(ArchiveError, match="backslash") as caught:
        archive(beamtime, store)
    assert caught.value.names == ("x_files/a\\b.h5",)


def test_an_interruption_leaves_a_list_and_no_thread(
    beamtime: Path, store: RecordingBackend
) -> None:
    def stop(*_: object) -> None:
        if sent(store):
            raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        archive(beamtime, store, progress=stop)
    assert threading.active_count() == threads
    assert store.exists("ARCHIVE.json")
    archive(beamtime, store)
    assert prove(store).ok


# ----------------------------------------------------------------- while it is recorded


def test_a_run_that_goes_on_is_archived_as_far_as_it_is(
    beamtime: Path, store: RecordingBackend, tmp_path: Path
) -> None:
    with Beamtime(beamtime) as opened:
        composed = event_model.compose_run()
        opened("start", composed.start_doc)
        writer = ZarrWriter.get("archive-live")
        writer.set_uri(str(beamtime.parent / "x.zarr" / "live"))
        sink = writer.prepare("cam", "cam", np.dtype("u2"), (4, 4))
        writer.kickoff()
        sink.write(np.full((4, 4), 1, "u2"))
        writer.flush()
        assert archive(beamtime, store).live
        assert prove(store).ok
        sink.write(np.full((4, 4), 2, "u2"))
        sink.close()
        ZarrWriter.release("archive-live")
        opened("stop", composed.compose_stop())
    report = archive(beamtime, store)
    assert not report.live
    assert orjson.loads(store.get_bytes("x.zarr/live/cam/zarr.json"))["shape"][0] == 2
    assert prove(store).ok


def test_frames_that_come_while_it_is_copied_harm_nothing(
    beamtime: Path, tmp_path: Path
) -> None:
    """Lengths are read before the frames: the copy promises no more than it has."""
    store = tmp_path / "archive"
    stop = threading.Event()
    writer = ZarrWriter.get("archive-growing")
    writer.set_uri(str(beamtime.parent / "x.zarr" / "live"))
    sink = writer.prepare("cam", "cam", np.dtype("u2"), (64, 64), frames_per_shard=64)
    writer.kickoff()
    frame = np.full((64, 64), 7, "u2")

    def grow() -> None:
        while not stop.is_set():
            sink.write(frame)
            writer.get_indices_written()

    growing = threading.Thread(target=grow)
    growing.start()
    try:
        for number in range(5):
            archive(beamtime, store)
            assert prove(store).ok
            with Beamtime(store / "x.db", mode="r") as copied:
                # Frames that no length covers yet are none that are missing.
                problems = [p.what for p in copied.verify().problems]
            assert all("are written, readers see" in p for p in problems), number
    finally:
        stop.set()
        growing.join()
        sink.close()
        ZarrWriter.release("archive-growing")


def test_a_file_that_is_rewritten_all_the_time_is_named(beamtime: Path) -> None:
    (beamtime.parent / "x_files").mkdir()
    path = beamtime.parent / "x_files" / "det.h5"
    path.write_bytes(b"0")

    class Slow(LocalBackend):
        def put_pieces(self, key: str, pieces: Any, size: int) -> None:
            def growing() -> Iterator[bytes]:
                for piece in pieces:
                    if key.endswith("det.h5"):
                        path.write_bytes(path.read_bytes() + b"1")
                    yield piece

            super().put_pieces(key, growing(), size)

    with Slow(beamtime.parent.parent / "slow") as slow:
        report = archive(beamtime, slow)
        assert report.changing == ["x_files/det.h5"]
        assert archive(beamtime, slow).sent >= 1
