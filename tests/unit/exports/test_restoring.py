"""What an archive has, and nothing else, comes back; damage is found."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ArchiveError, BackendError
from bluesky_beamtime.exports import archive, prove, restore
from bluesky_beamtime.exports.manifest import decode_manifest, encode_manifest
from bluesky_beamtime.storage import ZarrWriter
from bluesky_beamtime.storage.backends import (
    LocalBackend,
    MemoryBackend,
    RecordingBackend,
)
from bluesky_beamtime.storage.remote_array import Retry
from bluesky_beamtime.testing import assert_documents_equal

from .conftest import CAM1, emit_run

SHARD = "x.zarr/first/cam1/cam1/c.0.0.0"


@pytest.fixture
def store(tmp_path: Path) -> RecordingBackend:
    """Give the archive of a beamtime that is lost."""
    path = tmp_path / "home" / "x.db"
    path.parent.mkdir()
    with Beamtime(path, sample="LaB6") as opened:
        emit_run(opened, path.parent / "x.zarr" / "first", (ZarrWriter,))
    store = RecordingBackend(MemoryBackend())
    archive(path, store)
    return store


def damage(store: Any, name: str, how: Callable[[bytes], bytes]) -> None:
    store.put_bytes(name, how(store.get_bytes(name)))


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    }


# -------------------------------------------------------------------------- it is back


def test_what_comes_back_is_the_beamtime(
    store: RecordingBackend, tmp_path: Path
) -> None:
    report = restore(store, tmp_path / "back")
    assert report.path == tmp_path / "back" / "x.db"
    assert report.files == len(below(tmp_path / "back"))
    with (
        Beamtime(report.path, mode="r") as back,
        Beamtime(tmp_path / "home" / "x.db", mode="r") as here,
    ):
        assert back.verify().ok
        assert_documents_equal(
            list(back[-1].documents(original=True)),
            list(here[-1].documents(original=True)),
        )
        read = back[-1].primary.read()
        np.testing.assert_array_equal(read["cam1"].values.reshape(CAM1.shape), CAM1)


def test_it_can_be_recorded_into_and_archived_again(
    store: RecordingBackend, tmp_path: Path
) -> None:
    path = restore(store, tmp_path / "back").path
    # Of the database alone the copy of a copy is not the same, byte for byte.
    assert archive(path, store).sent <= 1
    assert archive(path, store).up_to_date
    with Beamtime(path) as back:
        emit_run(back, path.parent / "x.zarr" / "second", (ZarrWriter,))
        assert len(back) == 2
        assert path.with_name("x.db-wal").exists()
    assert archive(path, store).sent > 0
    assert prove(store).ok


def test_an_empty_folder_is_taken_and_a_full_one_refused(
    store: RecordingBackend, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    restore(store, tmp_path / "empty")
    with pytest.raises(ArchiveError, match="not empty"):
        restore(store, tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArchiveError, match="Not a directory"):
        restore(store, tmp_path / "file")


def test_a_place_without_an_archive_is_refused(tmp_path: Path) -> None:
    for use in (prove, lambda url: restore(url, tmp_path / "back")):
        with pytest.raises(ArchiveError, match="no archive"):
            use(tmp_path / "nowhere")
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("name", ["x.db", SHARD, "x.zarr/first/cam1/zarr.json"])
@pytest.mark.parametrize(
    "how", [flip, lambda data: data[:-1], lambda data: data + b"0"]
)
def test_other_content_is_found(
    store: RecordingBackend, tmp_path: Path, name: str, how: Callable[[bytes], bytes]
) -> None:
    damage(store, name, how)
    proof = prove(store)
    assert (proof.ok, proof.differs, proof.missing) == (False, (name,), ())
    with pytest.raises(ArchiveError, match="manifest") as caught:
        restore(store, tmp_path / "back")
    assert caught.value.names == (name,)
    assert not (tmp_path / "back").exists()
    # What was damaged there is sent again by those who look, and restored then.
    archive(tmp_path / "home" / "x.db", store, thorough=True)
    assert prove(store).ok
    assert restore(store, tmp_path / "back").resumed > 0


def test_what_is_missing_is_found(store: RecordingBackend, tmp_path: Path) -> None:
    store.delete(SHARD)
    assert prove(store).missing == (SHARD,)
    with pytest.raises(ArchiveError, match="not there") as caught:
        restore(store, tmp_path / "back")
    assert caught.value.names == (SHARD,)
    # Its absence is noticed without --thorough.
    assert archive(tmp_path / "home" / "x.db", store).sent == 1
    assert prove(store).ok


def test_a_manifest_that_is_damaged_or_lost_is_found(store: RecordingBackend) -> None:
    good = store.get_bytes("MANIFEST.sha256")
    store.delete("MANIFEST.sha256")
    proof = prove(store)
    assert (proof.ok, proof.finished, proof.differs) == (False, False, ())
    store.put_bytes("MANIFEST.sha256", b"?" + good)
    with pytest.raises(ArchiveError, match="no hash and name"):
        prove(store)
    store.put_bytes("MANIFEST.sha256", good)
    store.delete("ARCHIVE.json")
    with pytest.raises(ArchiveError, match="sha256sum"):
        prove(store)


def test_no_damage_whatever_passes(store: RecordingBackend, tmp_path: Path) -> None:
    """Bits, ends, whole files, anywhere, list and manifest included."""
    chance = random.Random(7)
    good = {key: store.get_bytes(key) for key in store.list_prefix("", recursive=True)}
    names = sorted(good)
    for number in range(60):
        name = names[number % len(names)]
        data = bytearray(good[name])
        kind = chance.choice(["flip", "cut", "more", "gone", "swap"])
        if kind == "flip":
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del data[chance.randrange(len(data)) :]
        elif kind == "more":
            data += chance.randbytes(3)
        elif kind == "swap":
            data = bytearray(good[names[(number + 1) % len(names)]])
        if kind == "gone":
            store.delete(name)
        elif data != good[name]:
            store.put_bytes(name, bytes(data))
        else:
            continue
        with suppress(ArchiveError):
            assert not prove(store).ok, (name, kind)
        # A place of its own: elsewhere a good file may have come before.
        with pytest.raises(ArchiveError):
            restore(store, tmp_path / f"back{number}")
        assert not (tmp_path / f"back{number}").exists()
        store.put_bytes(name, good[name])
    assert prove(store).ok


# --------------------------------------------------------------------------- unfinished


def test_an_unfinished_archive_is_restored_on_request_alone(
    store: RecordingBackend, tmp_path: Path
) -> None:
    home = tmp_path / "home" / "x.db"
    with Beamtime(home) as opened:
        emit_run(opened, home.parent / "x.zarr" / "second", (ZarrWriter,))

    def no_database(call: tuple[Any, ...]) -> None:
        if call[:2] == ("put_pieces", "x.db"):
            raise BackendError("gone")

    store.before = no_database
    with pytest.raises(ArchiveError):
        archive(home, store, retry=Retry(attempts=1))
    store.before = None
    assert not prove(store).ok
    with pytest.raises(ArchiveError, match="--unfinished"):
        restore(store, tmp_path / "back")
    # The database is the one of before, all of whose frames are there.
    with Beamtime(
        restore(store, tmp_path / "back", unfinished=True).path, mode="r"
    ) as back:
        assert len(back) == 1
        assert {p.kind for p in back.verify().problems} <= {"orphan"}


# ------------------------------------------------------------------------ interruptions


def test_a_restore_goes_on_where_it_stopped(
    store: RecordingBackend, tmp_path: Path
) -> None:
    total = prove(store).files
    for after in range(1, total):
        left = iter(range(after))

        def fail(call: tuple[Any, ...], left: Any = left) -> None:
            if call[0] == "get_range" and next(left, None) is None:
                raise BackendError("the server is away")

        place = tmp_path / f"back{after}"
        store.before = fail
        with pytest.raises(ArchiveError, match="restore again"):
            restore(store, place, retry=Retry(attempts=1), threads=1)
        store.before = None
        assert not place.exists()
        assert restore(store, place).resumed == after


def test_remains_of_another_restore_do_not_stay(
    store: RecordingBackend, tmp_path: Path
) -> None:
    partial = tmp_path / ".back.restoring" / "x.zarr"
    partial.mkdir(parents=True)
    (partial / "other").write_bytes(b"other")
    restore(store, tmp_path / "back")
    assert "x.zarr/other" not in below(tmp_path / "back")
    assert not (tmp_path / ".back.restoring").exists()


def test_two_restores_at_once_are_refused(
    store: RecordingBackend, tmp_path: Path
) -> None:
    def again(call: tuple[Any, ...]) -> None:
        if call[:2] == ("get_range", SHARD):
            store.before = None
            with pytest.raises(ArchiveError, match="another process"):
                restore(store.inner, tmp_path / "back")

    store.before = again
    restore(store, tmp_path / "back")


def test_a_disk_that_refuses_leaves_nothing_behind_that_looks_whole(
    store: RecordingBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    putting = LocalBackend.put_pieces

    def refuse(self: Any, key: str, pieces: Any, size: int) -> None:
        if key == SHARD:
            raise BackendError("No space left on device", errno=28)
        putting(self, key, pieces, size)

    with monkeypatch.context() as patched:
        patched.setattr(LocalBackend, "put_pieces", refuse)
        with pytest.raises(ArchiveError, match="No space") as caught:
            restore(store, tmp_path / "back")
    assert caught.value.errno == 28
    assert not (tmp_path / "back").exists()
    assert restore(store, tmp_path / "back").files > 0


# ------------------------------------------------------------------------------ malice


def make_fit(store: Any, content: Any) -> None:
    """Write what an archive says of itself, and a manifest that fits it."""
    state = orjson.dumps(content)
    hashes = decode_manifest(store.get_bytes("MANIFEST.sha256"))
    with suppress(Exception):
        hashes.update({name: value[0] for name, value in content["files"].items()})
    hashes["ARCHIVE.json"] = hashlib.sha256(state).hexdigest()
    store.put_bytes("ARCHIVE.json", state)
    store.put_bytes("MANIFEST.sha256", encode_manifest(hashes))


@pytest.mark.parametrize(
    "name",
    [
        "../out.txt",
        "x.zarr/../../out.txt",
        "/tmp/out.txt",
        "a\0b",
        "..\\out.txt",
        "./x",
        "a//b",
        "",
        "a\nb",
        "x" * 300,
        ".~beamtime-x",
    ],
)
def test_hostile_names_write_nothing(
    store: RecordingBackend, tmp_path: Path, name: str
) -> None:
    """Whoever can write the archive can make its manifest fit."""
    content = orjson.loads(store.get_bytes("ARCHIVE.json"))
    digest = hashlib.sha256(b"evil").hexdigest()
    content["files"][name] = [digest, 4, 0]
    make_fit(store, content)
    before = below(tmp_path)
    place = tmp_path / "deep" / "back"
    for unfinished in (False, True):
        with pytest.raises(ArchiveError):
            restore(store, place, unfinished=unfinished)
    with pytest.raises(ArchiveError):
        prove(store)
    assert below(tmp_path) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beamtime", 5),
        ("beamtime", "../x.db"),
        ("beamtime", "x.zarr/zarr.json"),
        ("beamtime", ""),
        ("runs", "many"),
        ("time", None),
        ("time", True),
        ("absent", [1]),
        ("absent", 5),
        ("files", []),
        ("files", {"x.db": 1}),
        ("files", {"x.db": ["0", 1, 2]}),
        ("files", {"x.db": ["0" * 64, "1", 2]}),
        ("files", {"x.db": ["0" * 64, 1, -1]}),
        ("files", {"x.db": ["0" * 64, 1, 1 << 63]}),
        ("format", "1"),
        ("session", {}),
    ],
)
def test_a_state_that_makes_no_sense_is_refused_in_words(
    store: RecordingBackend, tmp_path: Path, key: str, value: Any
) -> None:
    content = orjson.loads(store.get_bytes("ARCHIVE.json"))
    make_fit(store, {**content, key: value})
    for unfinished in (False, True):
        with pytest.raises(ArchiveError):
            restore(store, tmp_path / "back", unfinished=unfinished)
    assert not (tmp_path / "back").exists()
    with pytest.raises(ArchiveError):
        archive(tmp_path / "home" / "x.db", store)


def test_a_link_in_the_way_is_not_followed(
    store: RecordingBackend, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    partial = tmp_path / ".back.restoring"
    partial.mkdir()
    (partial / "x.zarr").symlink_to(elsewhere)
    with pytest.raises((ArchiveError, ValueError)):
        restore(store, tmp_path / "back")
    assert os.listdir(elsewhere) == []


def test_a_database_that_is_none_is_not_given_its_place(
    store: RecordingBackend, tmp_path: Path
) -> None:
    content = orjson.loads(store.get_bytes("ARCHIVE.json"))
    store.put_bytes("x.db", b"text")
    content["files"]["x.db"][0] = hashlib.sha256(b"text").hexdigest()
    make_fit(store, content)
    with pytest.raises(Exception, match="not a beamtime"):
        restore(store, tmp_path / "back")
    assert not (tmp_path / "back").exists()
