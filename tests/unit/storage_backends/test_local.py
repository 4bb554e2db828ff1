"""What a folder as a backend does beyond the contract."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bluesky_beamtime.errors import BackendError, KeyNotFoundError, PathError
from bluesky_beamtime.storage import to_uri
from bluesky_beamtime.storage.backends import (
    LocalBackend,
    get_size,
    open_backend,
    put_file,
)
from bluesky_beamtime.storage.backends.keys import TEMPORARY_PREFIX

root_only = pytest.mark.skipif(
    os.geteuid() == 0, reason="the superuser may read everything"
)


@pytest.mark.parametrize(
    "spelling", ["path", "file:///", "file://localhost/", "file:/"]
)
def test_every_spelling_opens_the_same_folder(tmp_path: Path, spelling: str) -> None:
    folder = tmp_path / "a b" / "é%20"
    url = {
        "path": str(folder),
        "file:///": to_uri(folder, host=""),
        "file://localhost/": to_uri(folder),
        "file:/": to_uri(folder, host="")[:5] + to_uri(folder, host="")[7:],
    }[spelling]
    backend = open_backend(url)
    assert backend.url == to_uri(folder, host="")
    assert open_backend(backend.url).url == backend.url
    assert open_backend(f"{backend.url}/").url == backend.url
    backend.put_bytes("k", b"1")
    assert (folder / "k").read_bytes() == b"1"


def test_opening_makes_nothing(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "new")
    assert not backend.exists("a")
    assert list(backend.list_prefix("", recursive=True)) == []
    backend.delete("a")
    backend.delete_prefix("", everything=True)
    assert not (tmp_path / "new").exists()
    backend.ensure_prefix("a/b")
    assert (tmp_path / "new/a/b").is_dir()
    assert list(backend.list_prefix("")) == ["a/"]


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    backend = LocalBackend(tmp_path / "link")
    backend.put_bytes("a", b"1")
    assert (tmp_path / "real/a").read_bytes() == b"1"
    assert backend.url == to_uri(tmp_path / "real", host="")


def test_links_below_the_root_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    backend = LocalBackend(root)
    backend.put_bytes("real/a", b"1")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "inside").symlink_to("real")
    (root / "broken").symlink_to("nowhere")
    for key in ("folder/secret", "inside/a", "file", "broken", "broken/a"):
        for use in (
            backend.get_bytes,
            backend.exists,
            lambda key: backend.get_range(key, 0, 1),
            lambda key: get_size(backend, key),
        ):
            with pytest.raises(PathError, match="link"):
                use(key)
    for key in ("folder/new", "inside/new", "broken/new"):
        for use in (
            lambda key: backend.put_bytes(key, b"2"),
            backend.delete,
            backend.ensure_prefix,
            backend.delete_prefix,
            lambda key: list(backend.list_prefix(key)),
        ):
            with pytest.raises(PathError, match="link"):
                use(key)
    assert list(backend.list_prefix("")) == ["real/"]
    assert list(backend.list_prefix("", recursive=True)) == ["real/a"]
    # A value takes the place of a link, it does not go through it; so does a delete.
    backend.put_bytes("file", b"own")
    backend.delete("broken")
    assert not (root / "broken").is_symlink()
    assert (outside / "secret").read_bytes() == b"secret"
    backend.delete_prefix("", everything=True)
    assert os.listdir(root) == []
    assert (outside / "secret").read_bytes() == b"secret"


def test_what_cannot_be_a_key_is_not_listed(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    backend.put_bytes("a/good", b"1")
    (tmp_path / "a" / "back\\slash").write_bytes(b"")
    (tmp_path / "a" / "line\nbreak").write_bytes(b"")
    (tmp_path / "a" / f"{TEMPORARY_PREFIX}0123").write_bytes(b"left by a crash")
    os.mkfifo(tmp_path / "a" / "pipe")
    with open(os.fsencode(tmp_path / "a") + b"/\xff", "wb"):
        pass
    assert list(backend.list_prefix("a")) == ["a/good"]
    assert list(backend.list_prefix("", recursive=True)) == ["a/good"]
    assert not backend.exists("a/pipe")
    with pytest.raises(KeyNotFoundError):
        backend.get_bytes("a/pipe")
    with pytest.raises(PathError, match="being written"):
        backend.get_bytes(f"a/{TEMPORARY_PREFIX}0123")
    backend.delete_prefix("a")
    assert os.listdir(tmp_path) == []


def test_a_value_is_no_container(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    backend.put_bytes("a", b"1")
    backend.put_bytes("b/c", b"2")
    for key in ("a/below", "b"):
        with pytest.raises(BackendError, match="value and a container"):
            backend.put_bytes(key, b"3")
    with pytest.raises(BackendError, match="value and a container"):
        backend.ensure_prefix("a")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert os.listdir(tmp_path / "b") == ["c"]
    assert backend.get_bytes("a") == b"1"


@root_only
def test_a_refusal_is_no_absence(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    backend.put_bytes("locked/a", b"1")
    backend.put_bytes("b", b"1")
    (tmp_path / "b").chmod(0)
    (tmp_path / "locked").chmod(0)
    try:
        for use in (
            lambda: backend.get_bytes("locked/a"),
            lambda: backend.get_bytes("b"),
            lambda: backend.exists("locked/a"),
            lambda: backend.exists("b"),
            lambda: backend.delete("locked/a"),
            lambda: backend.put_bytes("locked/b", b""),
            lambda: list(backend.list_prefix("locked")),
            lambda: backend.delete_prefix("locked"),
        ):
            with pytest.raises(BackendError) as caught:
                use()
            assert not isinstance(caught.value, KeyError)
            assert caught.value.errno == errno.EACCES
    finally:
        (tmp_path / "locked").chmod(0o700)


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.EACCES, errno.ENOSPC, errno.EMFILE]
)
def test_any_other_error_is_no_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    backend = LocalBackend(tmp_path)
    backend.put_bytes("a/b", b"1")
    really = os.open

    def refuse(path: object, flags: int, *args: int, **kwargs: int) -> int:
        if path == "b" or str(path).startswith(TEMPORARY_PREFIX):
            raise OSError(number, os.strerror(number))
        return really(path, flags, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    for use in (
        lambda: backend.get_bytes("a/b"),
        lambda: backend.exists("a/b"),
        lambda: backend.put_bytes("a/b", b"2"),
    ):
        with pytest.raises(BackendError, match="'a/b'") as caught:
            use()
        assert caught.value.errno == number
        assert caught.value.filename == "a/b"


def test_a_put_that_fails_leaves_the_old_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalBackend(tmp_path)
    backend.put_bytes("a", b"old")
    really = os.write
    written: list[int] = []

    def fill_up(fd: int, data: memoryview) -> int:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(really(fd, data[:2]))
        return 2

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(BackendError) as caught:
        backend.put_bytes("a", b"new value")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert written == [2]
    assert os.listdir(tmp_path) == ["a"]
    assert backend.get_bytes("a") == b"old"


def test_short_writes_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalBackend(tmp_path)
    really = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: really(fd, data[:3]))
    backend.put_bytes("a", b"0123456789")
    assert backend.get_bytes("a") == b"0123456789"


_WRITE_FOR_EVER = """
import sys
from bluesky_beamtime.storage.backends import LocalBackend
backend = LocalBackend(sys.argv[1])
turn = 0
while True:
    backend.put_bytes("a/k", bytes([turn % 256]) * 300_000)
    if turn == 0:
        print("going", flush=True)
    turn += 1
"""


def test_a_killed_writer_leaves_a_whole_value(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITE_FOR_EVER, str(tmp_path)],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"going\n"
            # Kills land wherever the writer is by then; reading takes a while.
            for _ in range(20):
                value = backend.get_bytes("a/k")
                assert len(value) == 300_000
                assert len(set(value)) == 1
            process.kill()
        value = backend.get_bytes("a/k")
        assert len(value) == 300_000
        assert len(set(value)) == 1
        assert list(backend.list_prefix("", recursive=True)) == ["a/k"]
    backend.delete_prefix("a")
    assert os.listdir(tmp_path) == []


def test_a_temporary_name_is_never_used_twice(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    seen: set[str] = set()
    really = os.replace

    def note(source: str, target: str, **where: int) -> None:
        seen.add(source)
        really(source, target, **where)

    threads = [
        threading.Thread(
            target=lambda: [backend.put_bytes("k", b"1") for _ in range(8)]
        )
        for _ in range(8)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", note)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 64
    assert all(name.startswith(TEMPORARY_PREFIX) for name in seen)


def test_power_brings_value_and_name_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    really = os.fsync

    def note(fd: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        really(fd)

    monkeypatch.setattr(os, "fsync", note)
    LocalBackend(tmp_path / "kill").put_bytes("a/b", b"1")
    assert synced == []
    backend = LocalBackend(tmp_path / "power", durability="power")
    backend.put_bytes("a/b", b"1")
    # The value under its first name, the folder of the value, the folder that got "a".
    assert [name[: len(TEMPORARY_PREFIX)] for name in synced] == [
        TEMPORARY_PREFIX,
        "a",
        "power",
    ]
    with pytest.raises(ValueError, match="durability"):
        LocalBackend(tmp_path, durability="never")  # type: ignore[arg-type]


def test_files_are_put_up_to_a_size(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "store")
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 10_000)
    assert put_file(backend, "a/whole", source) == 2_560_000
    assert backend.get_bytes("a/whole") == source.read_bytes()
    assert put_file(backend, "a/part", source, 1000) == 1000
    assert backend.get_bytes("a/part") == source.read_bytes()[:1000]


def test_a_value_being_written_survives_a_deletion(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    really = os.replace
    left: list[list[str]] = []

    def delete_first(source: str, target: str, **where: int) -> None:
        backend.delete_prefix("a")
        left.append(os.listdir(tmp_path / "a"))
        really(source, target, **where)

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"{TEMPORARY_PREFIX}crashed").write_bytes(b"part")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", delete_first)
        backend.put_bytes("a/b", b"1")
    # The rest of a crash went, the value on its way stayed, and arrived at once.
    assert len(left) == 1
    assert len(left[0]) == 1
    assert "crashed" not in left[0][0]
    assert backend.get_bytes("a/b") == b"1"


def test_it_goes_to_another_process_by_its_folder(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path, durability="power")
    backend.put_bytes("a", b"1")
    other = pickle.loads(pickle.dumps(backend))
    assert (other.url, other.durability) == (backend.url, "power")
    assert other.get_bytes("a") == b"1"


def test_roots_that_are_refused() -> None:
    for root in ("", "file:", "a\0b", "file://elsewhere.example/data"):
        with pytest.raises(PathError):
            LocalBackend(root)


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "root")
    backend.sweep()
    backend.put_bytes("a/b/value", b"1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder in (tmp_path / "root", tmp_path / "root/a/b", elsewhere):
        (folder / f"{TEMPORARY_PREFIX}0123").write_bytes(b"left by a crash")
    (tmp_path / "root/link").symlink_to(elsewhere)

    def pieces() -> Iterator[bytes]:
        # What a live thread is writing stays.
        yield b"2"
        backend.sweep()
        yield b"3"

    backend.put_pieces("a/b/other", pieces(), 2)
    assert backend.get_bytes("a/b/other") == b"23"
    left = [p for p in tmp_path.rglob("*") if p.name.startswith(TEMPORARY_PREFIX)]
    assert left == [elsewhere / f"{TEMPORARY_PREFIX}0123"]
    assert sorted(os.listdir(tmp_path / "root/a/b")) == ["other", "value"]
