"""A copy that follows its store, and what a remote reader sees at every moment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bluesky_beamtime.errors import (
    BackendError,
    PathError,
    StoreReadError,
    StoreStateError,
)
from bluesky_beamtime.storage import ShardedArray, ZarrWriter, create_group
from bluesky_beamtime.storage.backends import (
    LocalBackend,
    MemoryBackend,
    RecordingBackend,
    StorageBackend,
    as_zarr_store,
    open_backend,
)
from bluesky_beamtime.storage.backends.recording import Call
from bluesky_beamtime.storage.backends.s3_server import S3TestServer
from bluesky_beamtime.storage.uploader import Retry, StoreUploader

SHAPE = (6, 10)
PER_SHARD = 4
AT_ONCE = Retry(attempts=1)


def image(number: int, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng((seed, number))
    return rng.integers(0, 60_000, SHAPE).astype("<u2")


class Store:
    """A store that is written frame by frame; every frame is published at once."""

    def __init__(self, path: Path, seed: int = 0, names: tuple[str, ...] = ("cam",)):
        self.path = path
        self.seed = seed
        create_group(path, {"sample": "LaB6"})
        self.arrays = {
            name: ShardedArray.create(
                path / name,
                dtype="<u2",
                shape=SHAPE,
                frames_per_shard=PER_SHARD,
                attributes={"units": "counts"},
            )
            for name in names
        }

    def write(self, count: int, name: str = "cam") -> None:
        array = self.arrays[name]
        for _ in range(count):
            array.append(image(array.length, self.seed))
        array.publish()

    def close(self) -> None:
        for array in self.arrays.values():
            array.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store")
    yield store
    store.close()


def seen(backend: StorageBackend, path: str = "cam", seed: int = 0) -> int:
    """Return how many frames a fresh reader sees, each of which must be right."""
    array: Any = zarr.open_array(as_zarr_store(backend), path=path, mode="r")
    for number, frame in enumerate(array[:]):
        np.testing.assert_array_equal(frame, image(number, seed), str(number))
    return array.shape[0]


def remote_tree(backend: StorageBackend, prefix: str = "") -> dict[str, bytes]:
    cut = len(prefix) + 1 if prefix else 0
    return {
        key[cut:]: backend.get_bytes(key)
        for key in backend.list_prefix(prefix, recursive=True)
    }


# ------------------------------------------------------------- what is visible when


def test_what_a_reader_sees(
    store: Store, tree: Callable[..., dict[str, bytes]]
) -> None:
    backend = MemoryBackend()
    uploader = StoreUploader(store.path, backend, "runs/1")
    uploader.push()
    # The array and its group are there before its first frame.
    group = zarr.open_group(as_zarr_store(backend), path="runs/1", mode="r")
    assert dict(group.attrs) == {"sample": "LaB6"}
    assert dict(group["cam"].attrs) == {"units": "counts"}
    assert seen(backend, "runs/1/cam") == 0
    expected = 0
    for total in range(1, 11):
        store.write(1)
        uploader.push()
        expected = total // PER_SHARD * PER_SHARD
        assert seen(backend, "runs/1/cam") == expected
        assert uploader.progress.arrays == {"cam": (total, expected)}
        assert uploader.progress.frames_behind == total - expected
    store.close()
    done = uploader.close()
    assert done.frames_behind == 0
    assert done.failure is None
    assert seen(backend, "runs/1/cam") == 10
    assert remote_tree(backend, "runs/1") == tree(store.path)


def test_every_moment_is_right(store: Store) -> None:
    # A reader that looks before and after every single change of the copy.
    inner = MemoryBackend()
    lengths: list[int] = []

    def look(call: Call) -> None:
        if call[0] in ("put_bytes", "put_file") and inner.exists("cam/zarr.json"):
            lengths.append(seen(inner))

    uploader = StoreUploader(store.path, RecordingBackend(inner, look))
    for _ in range(7):
        store.write(3)
        uploader.push()
    uploader.close()
    lengths.append(seen(inner))
    assert lengths == sorted(lengths)
    assert set(lengths) == {0, 4, 8, 12, 16, 20, 21}


def test_a_shard_goes_up_once(store: Store) -> None:
    backend = RecordingBackend(MemoryBackend())
    uploader = StoreUploader(store.path, backend)
    for _ in range(23):
        store.write(1)
        uploader.push()
        uploader.push()
    store.close()
    uploader.close()
    uploader.close()
    shards = [call[1] for call in backend.called("put_file")]
    assert shards == [f"cam/c.{number}.0.0" for number in range(6)]
    assert uploader.progress.shards == 6
    metadata = [call for call in backend.called("put_bytes") if call[1][:3] == "cam"]
    # Length 0, five full shards, the end.
    assert len(metadata) == 7


def test_the_published_length_counts_not_the_written(store: Store) -> None:
    backend = MemoryBackend()
    uploader = StoreUploader(store.path, backend)
    for number in range(9):
        store.arrays["cam"].append(image(number))
    uploader.push()
    assert seen(backend) == 0
    store.arrays["cam"].publish()
    uploader.push()
    assert seen(backend) == 8


def test_several_arrays_and_late_ones(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", names=("one", "two"))
    backend = MemoryBackend()
    uploader = StoreUploader(store.path, backend)
    store.write(5, "one")
    uploader.push()
    assert (seen(backend, "one"), seen(backend, "two")) == (4, 0)
    late = Store(store.path, names=("three",))
    late.write(9, "three")
    store.write(2, "two")
    uploader.push()
    assert (seen(backend, "two"), seen(backend, "three")) == (0, 8)
    store.close()
    late.close()
    uploader.close()
    found = [seen(backend, name) for name in ("one", "two", "three")]
    assert found == [5, 2, 9]


def test_a_store_that_is_not_there_yet(tmp_path: Path) -> None:
    backend = MemoryBackend()
    uploader = StoreUploader(tmp_path / "store", backend)
    assert uploader.push().arrays == {}
    store = Store(tmp_path / "store")
    store.write(4)
    uploader.push()
    assert seen(backend) == 4
    store.close()
    uploader.close()


def test_a_store_still_written_at_close(store: Store) -> None:
    backend = MemoryBackend()
    uploader = StoreUploader(store.path, backend)
    store.write(6)
    uploader.close()
    assert seen(backend) == 6
    # It goes on, and so can the copy: the shard is replaced when it is full.
    store.write(3)
    again = StoreUploader(store.path, backend)
    again.push()
    assert seen(backend) == 8
    store.close()
    again.close()
    assert seen(backend) == 9


def test_a_length_never_shrinks(store: Store) -> None:
    backend = MemoryBackend()
    store.write(6)
    StoreUploader(store.path, backend).close()
    assert seen(backend) == 6
    store.write(1)
    StoreUploader(store.path, backend).push()
    assert seen(backend) == 6
    store.close()
    StoreUploader(store.path, backend).close()
    assert seen(backend) == 7


def test_other_arrays_and_files_follow_at_the_end(
    store: Store, tree: Callable[..., dict[str, bytes]]
) -> None:
    path = store.path / "others"
    foreign = zarr.create_array(
        str(path / "foreign"), shape=(6, 4), chunks=(2, 4), dtype="f8"
    )
    foreign[:] = 1.5
    (path / "notes.txt").write_text("aligned")
    (path / ".hidden").write_text("not for others")
    backend = RecordingBackend(MemoryBackend())
    uploader = StoreUploader(store.path, backend)
    uploader.push()
    assert not backend.exists("others/notes.txt")
    assert not backend.exists("others/foreign/zarr.json")
    store.close()
    uploader.close()
    assert remote_tree(backend) == tree(store.path)
    array: Any = zarr.open_array(as_zarr_store(backend), path="others/foreign")
    assert (array[:] == 1.5).all()
    puts = [call[1] for call in backend.calls if call[0].startswith("put")]
    assert puts[-1] == "others/foreign/zarr.json"


# ----------------------------------------------------------------------- going on


def test_it_goes_on_where_another_stopped(store: Store) -> None:
    inner = MemoryBackend()
    store.write(9)
    StoreUploader(store.path, inner).push()
    backend = RecordingBackend(inner)
    store.write(4)
    again = StoreUploader(store.path, backend)
    again.push()
    assert [call[1] for call in backend.called("put_file")] == ["cam/c.2.0.0"]
    store.close()
    again.close()
    assert seen(inner) == 13


def test_a_shard_without_its_length_is_sent_again(store: Store) -> None:
    inner = MemoryBackend()
    store.write(4)

    def die(call: Call) -> None:
        if call[:2] == ("put_bytes", "cam/zarr.json") and inner.exists("cam/c.0.0.0"):
            raise BackendError("gone before the length was sent")

    with pytest.raises(BackendError):
        StoreUploader(store.path, RecordingBackend(inner, die), retry=AT_ONCE).push()
    assert inner.exists("cam/c.0.0.0")
    assert seen(inner) == 0
    StoreUploader(store.path, inner).push()
    assert seen(inner) == 4


def test_a_shard_that_somebody_removed_is_sent_again(store: Store) -> None:
    backend = MemoryBackend()
    store.write(14)
    StoreUploader(store.path, backend).close()
    for name in ("c.1.0.0", "c.3.0.0"):
        backend.delete(f"cam/{name}")
        StoreUploader(store.path, backend).close()
        assert seen(backend) == 14


def test_a_finished_store_is_copied_and_left_alone_afterwards(store: Store) -> None:
    store.write(10)
    store.close()
    backend = RecordingBackend(MemoryBackend())
    StoreUploader(store.path, backend).close()
    assert seen(backend) == 10
    backend.calls.clear()
    StoreUploader(store.path, backend).close()
    assert backend.called("put_file") == []


@pytest.mark.parametrize("difference", ["frames", "length", "dtype", "foreign"])
def test_another_store_is_refused(tmp_path: Path, difference: str) -> None:
    backend = MemoryBackend()
    store = Store(tmp_path / "first")
    store.write(10)
    if difference == "frames":
        other = Store(tmp_path / "second", seed=1)
        other.write(12)
    elif difference == "length":
        other = Store(tmp_path / "second")
        other.write(9)
    else:
        other = Store(tmp_path / "second", names=())
        kind = "<u4" if difference == "dtype" else "<u2"
        array = ShardedArray.create(
            other.path / "cam", dtype=kind, shape=SHAPE, frames_per_shard=PER_SHARD
        )
        other.arrays["cam"] = array
    if difference == "foreign":
        backend.put_bytes("cam/zarr.json", b'{"node_type": "array"}')
    else:
        StoreUploader(store.path, backend).close()
    before = remote_tree(backend, "cam")
    uploader = StoreUploader(other.path, backend)
    with pytest.raises(StoreStateError, match="is no copy of"):
        uploader.push()
    with pytest.raises(StoreStateError, match="is no copy of"):
        uploader.close()
    assert remote_tree(backend, "cam") == before
    store.close()
    other.close()


_UPLOAD = """
import sys
from bluesky_beamtime.storage.uploader import StoreUploader
StoreUploader(sys.argv[1], sys.argv[2]).start()
print("going", flush=True)
sys.stdin.read()
"""


def test_a_killed_uploader_leaves_a_right_copy(
    store: Store, tmp_path: Path, until: Callable[..., None]
) -> None:
    backend = LocalBackend(tmp_path / "copy")
    for turn in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _UPLOAD, str(store.path), backend.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            store.write(6)
            covered = store.arrays["cam"].length // PER_SHARD * PER_SHARD
            if turn < 2:
                until(lambda: backend.exists("cam/zarr.json"))
            else:
                until(lambda covered=covered: seen(backend) == covered)
            process.kill()
        assert seen(backend) in range(0, covered + 1, PER_SHARD)
    store.close()
    StoreUploader(store.path, backend).close()
    assert seen(backend) == 18


# ------------------------------------------------------------------ things that fail


def test_a_failing_backend_is_tried_a_few_times(store: Store) -> None:
    failures = 0

    def fail(call: Call) -> None:
        nonlocal failures
        if call[0] == "put_file" and failures < 2:
            failures += 1
            raise BackendError("for a moment")

    store.write(4)
    backend = RecordingBackend(MemoryBackend(), fail)
    uploader = StoreUploader(store.path, backend, retry=Retry(attempts=3, pause=0))
    uploader.push()
    assert seen(backend) == 4
    assert len(backend.called("put_file")) == 3
    failures = -1
    store.write(4)
    bounded = StoreUploader(store.path, backend, retry=Retry(attempts=3, pause=0))
    with pytest.raises(BackendError, match="for a moment"):
        bounded.push()
    assert len(backend.called("put_file")) == 6
    assert isinstance(bounded.progress.failure, BackendError)
    assert seen(backend) == 4
    bounded.push()
    assert bounded.progress.failure is None
    assert seen(backend) == 8


def test_what_arrives_short_is_sent_again(store: Store) -> None:
    class Short(MemoryBackend):
        cut = 1

        def put_bytes(self, key: str, data: Any) -> None:
            super().put_bytes(key, data[: len(data) - self.cut])
            self.cut = 0

    store.write(4)
    backend = Short()
    StoreUploader(store.path, backend, retry=Retry(pause=0)).push()
    assert seen(backend) == 4
    never = Short()
    never.cut = 0
    StoreUploader(store.path, never, retry=AT_ONCE).push()
    never.cut = 1
    store.write(4)
    with pytest.raises(BackendError, match="did not arrive whole"):
        StoreUploader(store.path, never, retry=AT_ONCE).push()
    assert seen(never) == 4


def test_one_broken_array_does_not_keep_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", names=("a", "b", "c"))
    for name in ("a", "b", "c"):
        store.write(5, name)
    (store.path / "a" / "c.0.0.0").unlink()
    (store.path / "b" / "zarr.json").write_bytes(b"")
    backend = MemoryBackend()
    uploader = StoreUploader(store.path, backend)
    with pytest.raises(StoreReadError, match="is gone"):
        uploader.push()
    assert isinstance(uploader.progress.failure, StoreReadError)
    assert seen(backend, "c") == 4
    assert seen(backend, "a") == 0
    assert not backend.exists("b/zarr.json")
    with pytest.raises(StoreReadError):
        uploader.close()
    assert seen(backend, "c") == 5


def test_close_gives_up_with_what_is_missing(store: Store) -> None:
    def fail(call: Call) -> None:
        raise BackendError("no route to host")

    store.write(7)
    backend = RecordingBackend(MemoryBackend(), fail)
    uploader = StoreUploader(store.path, backend, closing_timeout=0.3).start()
    start = time.monotonic()
    with pytest.raises(BackendError, match="not finished: no route to host"):
        uploader.close()
    assert time.monotonic() - start < 10
    with pytest.raises(StoreStateError, match="is closed"):
        uploader.push()
    backend.before = None
    uploader.close()
    assert seen(backend) == 7


def test_close_does_not_wait_for_ever_for_a_call_that_hangs(store: Store) -> None:
    release = threading.Event()
    hanging = threading.Event()

    def hang(call: Call) -> None:
        hanging.set()
        assert release.wait(60)

    store.write(4)
    backend = RecordingBackend(MemoryBackend(), hang)
    uploader = StoreUploader(store.path, backend, interval=0).start()
    assert hanging.wait(30)
    with pytest.raises(BackendError, match="still waiting"):
        uploader.close(0.2)
    release.set()
    uploader.close()
    assert seen(backend) == 4


def test_the_writer_never_waits(store: Store, until: Callable[..., None]) -> None:
    release = threading.Event()
    backend = RecordingBackend(MemoryBackend(), lambda call: release.wait(60) and None)
    with StoreUploader(store.path, backend, interval=0) as uploader:
        until(lambda: backend.calls)
        longest = 0.0
        for _ in range(200):
            start = time.perf_counter()
            store.write(1)
            longest = max(longest, time.perf_counter() - start)
        assert longest < 0.25
        # The look that hangs has read the length before.
        assert uploader.progress.failure is None
        release.set()
        until(lambda: uploader.progress.arrays.get("cam") == (200, 200))
    assert seen(backend) == 200


def test_what_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = MemoryBackend()
    nowhere = StoreUploader(tmp_path / "mistyped", backend)
    nowhere.push()
    with pytest.raises(StoreReadError, match="mistyped"):
        nowhere.close()
    store = Store(tmp_path / "store", names=("a", "b"))
    store.write(4, "a")
    store.write(4, "b")
    store.close()
    really = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreReadError, match="Permission denied; it was not copied"):
        StoreUploader(store.path, backend).close()
    monkeypatch.undo()
    assert seen(backend, "b") == 4
    StoreUploader(store.path, backend).close()
    assert seen(backend, "a") == 4


def test_names_that_cannot_be_keys_are_named(store: Store) -> None:
    (store.path / "bad\nname").write_text("x")
    store.write(4)
    backend = MemoryBackend()
    uploader = StoreUploader(store.path, backend)
    uploader.push()
    store.close()
    with pytest.raises(PathError, match="control character"):
        uploader.close()
    assert seen(backend) == 4


def test_an_unforeseen_error_does_not_end_it_silently(
    store: Store, until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(call: Call) -> None:
        raise ZeroDivisionError("a bug in a backend")

    backend = RecordingBackend(MemoryBackend(), fail)
    uploader = StoreUploader(store.path, backend, interval=0).start()
    until(lambda: uploader.progress.failure is not None)
    assert "a bug in a backend" in str(uploader.progress.failure)
    until(lambda: "lags" in caplog.text)
    backend.before = None
    store.write(4)
    until(lambda: uploader.progress.arrays.get("cam") == (4, 4))
    uploader.close()


# --------------------------------------------------------------- over the real thing


def test_a_live_writer_is_followed_to_s3(
    tmp_path: Path,
    s3_server: S3TestServer,
    bucket: str,
    s3: StorageBackend,
    until: Callable[..., None],
    tree: Callable[..., dict[str, bytes]],
) -> None:
    writer = ZarrWriter.get("uploader", frames_per_shard=PER_SHARD)
    writer.set_uri(str(tmp_path / "scan"))
    sink = writer.prepare("cam", "cam", np.dtype("<u2"), SHAPE)
    packed = writer.prepare(
        "packed", "packed", np.dtype("<u2"), SHAPE, compression="zstd"
    )
    writer.kickoff()
    with StoreUploader(
        writer.uri, f"{bucket}/2026", "scan", interval=0.02, **s3_server.options
    ) as uploader:
        for number in range(30):
            sink.write(image(number))
            packed.write(image(number))
        # The pacer publishes within 50 ms; the copy follows.
        both = {"cam": (30, 28), "packed": (30, 28)}
        until(lambda: uploader.progress.arrays == both)
        assert seen(s3, "2026/scan/cam") == 28
        assert seen(s3, "2026/scan/packed") == 28
        sink.close()
        packed.close()
    assert seen(s3, "2026/scan/cam") == 30
    assert seen(s3, "2026/scan/packed") == 30
    assert remote_tree(s3, "2026/scan") == tree(tmp_path / "scan")
    ZarrWriter.release("uploader")


def quick(endpoint: str) -> dict[str, Any]:
    return {
        "endpoint": endpoint,
        "access_key_id": "test",
        "secret_access_key": "test",
        "client_options": {"timeout": "1s"},
        "retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
    }


def test_s3_dies_midway_and_comes_back(
    store: Store,
    line: Any,
    bucket: str,
    s3: StorageBackend,
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    uploader = StoreUploader(
        store.path, bucket, interval=0.02, retry=AT_ONCE, **quick(line.endpoint)
    ).start()
    store.write(9)
    until(lambda: uploader.progress.arrays.get("cam") == (9, 8))
    line.cut()
    store.write(20)
    until(lambda: uploader.progress.failure is not None)
    # What was there is there still, whole.
    assert seen(s3) == 8
    assert "lags" in caplog.text
    line.mend()
    until(lambda: uploader.progress.arrays.get("cam") == (29, 28))
    assert seen(s3) == 28
    line.cut()
    store.close()
    with pytest.raises(BackendError, match="not finished"):
        uploader.close(0.5)
    assert seen(s3) == 28
    line.mend()
    uploader.close()
    assert uploader.progress.failure is None
    assert seen(s3) == 29


def test_s3_falls_silent_and_speaks_again(
    store: Store,
    s3_server: S3TestServer,
    bucket: str,
    s3: StorageBackend,
    until: Callable[..., None],
) -> None:
    uploader = StoreUploader(
        store.path, bucket, interval=0.02, retry=AT_ONCE, **quick(s3_server.endpoint)
    ).start()
    store.write(5)
    until(lambda: uploader.progress.arrays.get("cam") == (5, 4))
    s3_server.pause()
    try:
        store.write(5)
        until(lambda: uploader.progress.failure is not None)
    finally:
        s3_server.resume()
    until(lambda: uploader.progress.arrays.get("cam") == (10, 8))
    store.close()
    uploader.close()
    assert seen(s3) == 10


def test_it_closes_only_a_backend_of_its_own(store: Store) -> None:
    backend = MemoryBackend()
    StoreUploader(store.path, backend).close()
    assert backend.exists("zarr.json")
    own = StoreUploader(store.path, "memory://test_uploader")
    own.close()
    with pytest.raises(RuntimeError, match="is closed"):
        own.backend.exists("zarr.json")
    with open_backend("memory://test_uploader") as again:
        assert again.exists("zarr.json")
        again.delete_prefix("", everything=True)
