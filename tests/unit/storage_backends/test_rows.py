"""The rows Z-01 to Z-21 of the byte stores, one test each, as users check them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bluesky_beamtime.errors import (
    BackendClosedError,
    BackendError,
    KeyNotFoundError,
    MissingExtraError,
    PathError,
    StorageError,
)
from bluesky_beamtime.storage.backends import (
    Backend,
    BytesLike,
    LocalBackend,
    MemoryBackend,
    RecordingBackend,
    StorageBackend,
    as_buffer,
    listing,
    open_backend,
    register_backend,
    registry,
)


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest) -> Iterator[StorageBackend]:
    if request.param == "s3":
        yield request.getfixturevalue("s3")
        return
    folder = request.getfixturevalue("tmp_path") / "root"
    with open_backend("memory://" if request.param == "memory" else folder) as backend:
        yield backend


def keys(store: StorageBackend, prefix: str = "", recursive: bool = True) -> list[str]:
    return list(store.list_prefix(prefix, recursive=recursive))


MEMBERS = [
    "put_bytes",
    "get_bytes",
    "get_range",
    "exists",
    "delete",
    "delete_prefix",
    "list_prefix",
    "ensure_prefix",
    "close",
    "as_async",
    "__enter__",
    "__exit__",
]


def test_z01_anything_with_the_members_is_a_backend() -> None:
    def member(*_: object) -> None: ...

    whole = type("Duck", (), {"url": "duck://", **dict.fromkeys(MEMBERS, member)})
    assert isinstance(whole(), StorageBackend)
    for missing in (*MEMBERS, "url"):
        members = {"url": "duck://", **dict.fromkeys(MEMBERS, member)}
        del members[missing]
        assert not isinstance(type("Duck", (), members)(), StorageBackend), missing
    # A check of the kind asks for the URL, which answers at any time.
    closed = MemoryBackend()
    closed.close()
    assert isinstance(closed, StorageBackend)


def test_z02_it_knows_nothing_of_zarr(store: StorageBackend) -> None:
    store.put_bytes("zarr.json", b"\xff no JSON")
    store.put_bytes("c/0/0", b"no chunk")
    assert keys(store) == ["c/0/0", "zarr.json"]


def test_z03_keys_are_relative_paths(store: StorageBackend) -> None:
    store.put_bytes("a/b", b"1")
    assert keys(store) == ["a/b"]
    for bad in ("", "/a", "a//b", ".", "a/./b", "..", "a/../b", "a\\b", "a\0b"):
        with pytest.raises(PathError, match="is no key"):
            store.put_bytes(bad, b"1")
        with pytest.raises(PathError, match="is no key"):
            store.get_bytes(bad)
    assert keys(store) == ["a/b"]


def test_z04_the_url_is_canonical(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/a%20b"
    for given in (url, f"{url}/", f"{tmp_path}/a b", f"FILE://localhost{tmp_path}/a b"):
        assert open_backend(given).url == url
    memory = open_backend("memory://test z04/p")
    assert memory.url == "memory://test%20z04/p"
    assert open_backend(memory.url).url == memory.url
    pytest.importorskip("obstore")
    assert open_backend("S3://bucket/a b/").url == "s3://bucket/a%20b"
    with pytest.raises(PathError, match="credentials"):
        open_backend("s3://user:password@bucket/a")


def test_z05_put_writes_over(store: StorageBackend) -> None:
    for value in (b"first", bytearray(b"2"), memoryview(b"third"), np.arange(3.0)):
        store.put_bytes("deep/er/k", value)
        assert store.get_bytes("deep/er/k") == bytes(as_buffer(value))


def test_z05_readers_see_the_old_or_the_new(store: StorageBackend) -> None:
    values = [bytes([turn]) * 200_000 for turn in range(2)]
    store.put_bytes("k", values[0])
    stop = threading.Event()

    def read() -> int:
        count = 0
        while not stop.is_set():
            assert store.get_bytes("k") in values
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for turn in range(40):
                store.put_bytes("k", values[turn % 2])
        finally:
            stop.set()
        assert all(reader.result() > 0 for reader in readers)


def test_z06_get_returns_what_was_put(store: StorageBackend) -> None:
    for value in (b"", b"\0\xff", bytes(1 << 20)):
        store.put_bytes("k", value)
        assert store.get_bytes("k") == value


def test_z06_a_range_can_be_read(store: StorageBackend) -> None:
    store.put_bytes("k", bytes(range(100)))
    assert store.get_range("k", 10, 5) == bytes(range(10, 15))


def test_z07_only_absence_is_a_key_error(store: StorageBackend) -> None:
    with pytest.raises(KeyError, match="'none'"):
        store.get_bytes("none")

    def denied(call: object) -> None:
        raise BackendError("permission denied: no such key for you")

    with pytest.raises(BackendError) as caught:
        RecordingBackend(store, denied).get_bytes("none")
    assert not isinstance(caught.value, KeyError)


def test_z08_a_container_has_no_bytes(store: StorageBackend) -> None:
    store.put_bytes("a/b", b"1")
    with pytest.raises(KeyError):
        store.get_bytes("a")


def test_z09_only_values_exist(store: StorageBackend) -> None:
    store.put_bytes("a/b", b"")
    assert store.exists("a/b")
    assert [store.exists(key) for key in ("", "a", "a/", "a/c")] == [False] * 4


def test_z10_delete_removes_one_key(store: StorageBackend) -> None:
    store.put_bytes("a/b/c", b"1")
    store.put_bytes("d", b"1")
    for key in ("a", "a/b", "d", "d", "never"):
        store.delete(key)
    assert keys(store) == ["a/b/c"]


def test_z11_delete_prefix_goes_by_whole_names(store: StorageBackend) -> None:
    for key in ("runs/a/x", "runs/a/deep/er", "runs/ab/y", "z"):
        store.put_bytes(key, b"1")
    store.delete_prefix("runs/a")
    assert keys(store) == ["runs/ab/y", "z"]
    with pytest.raises(PathError, match="everything=True"):
        store.delete_prefix("")
    assert keys(store) == ["runs/ab/y", "z"]
    store.delete_prefix("", everything=True)
    assert keys(store) == []


def test_z12_recursive_listing(store: StorageBackend) -> None:
    for key in ("g/sub/b", "g/file", "g/sub/a", "g.x/c"):
        store.put_bytes(key, b"1")
    assert keys(store, "g") == ["g/file", "g/sub/a", "g/sub/b"]
    assert keys(store) == ["g.x/c", "g/file", "g/sub/a", "g/sub/b"]


def test_z13_children_are_full_keys(store: StorageBackend) -> None:
    for key in ("g/file", "g/sub/a", "g/sub/b"):
        store.put_bytes(key, b"1")
    assert set(store.list_prefix("g")) == {"g/file", "g/sub/"}
    assert set(store.list_prefix("")) == {"g/"}


def test_z14_a_missing_prefix_is_empty(store: StorageBackend) -> None:
    store.put_bytes("a", b"1")
    for prefix in ("none", "no/ne", "a"):
        assert list(store.list_prefix(prefix)) == keys(store, prefix) == []


def test_z15_deleting_while_listing_is_safe(store: StorageBackend) -> None:
    names = [f"a/{number}" for number in range(9)]
    for name in names:
        store.put_bytes(name, b"1")
    listed = store.list_prefix("a")
    assert iter(listed) is listed
    for key in listed:
        store.delete(key)
    assert keys(store) == []


def test_z16_ensure_prefix_may_be_repeated(
    store: StorageBackend, tmp_path: Path
) -> None:
    store.ensure_prefix("a/b")
    store.ensure_prefix("a/b/")
    assert keys(store) == []
    assert list(store.list_prefix("a")) in ([], ["a/b/"])
    local = LocalBackend(tmp_path)
    local.ensure_prefix("a/b")
    assert list(local.list_prefix("a")) == ["a/b/"]
    local.put_bytes("file", b"1")
    with pytest.raises(BackendError, match="value and a container"):
        local.ensure_prefix("file")


def test_z17_close(store: StorageBackend) -> None:
    with store as same:
        assert same is store
        store.put_bytes("a", b"1")
    store.close()
    with pytest.raises(BackendClosedError, match="is closed"):
        store.get_bytes("a")


class FewLines(Backend):
    url = "few://lines"

    def __init__(self, url: str = "") -> None:
        self.values: dict[str, bytes] = {}

    def put_bytes(self, key: str, data: BytesLike) -> None:
        self.values[self._key(key)] = bytes(as_buffer(data))

    def get_bytes(self, key: str) -> bytes:
        if self._key(key) not in self.values:
            raise KeyNotFoundError(key, self.url)
        return self.values[key]

    def exists(self, key: str) -> bool:
        return self._prefix(key) in self.values and not key.endswith("/")

    def delete(self, key: str) -> None:
        self.values.pop(self._key(key), None)

    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        return listing(sorted(self.values), self._prefix(prefix), recursive)


def test_z18_a_backend_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # tests/contract runs the whole contract over one like it.
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    register_backend("few")(FewLines)
    with open_backend("few://lines") as backend:
        backend.put_bytes("a/b", b"123")
        assert backend.get_range("a/b", 1, 9) == b"23"
        assert list(backend.list_prefix("")) == ["a/"]
        backend.delete_prefix("a")
        assert not backend.exists("a/b")


def test_z19_the_twin_never_blocks_the_loop() -> None:
    release = threading.Event()
    backend = RecordingBackend(MemoryBackend(), lambda _: release.wait(60) and None)

    async def use() -> bytes:
        twin = backend.as_async()
        put = asyncio.create_task(twin.put_bytes("a", b"1"))
        while not backend.calls:
            await asyncio.sleep(0)
        # The store hangs in its thread; the loop has come this far all the same.
        assert not put.done()
        release.set()
        await put
        return await twin.get_bytes("a")

    assert asyncio.run(use()) == b"1"


def test_z20_32_threads(store: StorageBackend) -> None:
    def work(number: int) -> None:
        for turn in range(3):
            value = f"{number}.{turn}".encode() * 100
            store.put_bytes(f"own/{number}", value)
            assert store.get_bytes(f"own/{number}") == value
            store.put_bytes("shared", value)
            assert len(set(store.get_bytes("shared").split(b"."))) >= 2

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    assert len(keys(store)) == 33


def test_z21_argument_environment_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_backend("memory://"), MemoryBackend)
    monkeypatch.setenv("BLUESKY_BEAMTIME_BACKEND_DEMO", "memory")
    with pytest.raises(PathError):
        open_backend("demo://x")  # taken to memory, which refuses its URL
    with pytest.raises(StorageError, match="'other'"):
        open_backend("demo://x", backend="other")
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(MissingExtraError, match=r"bluesky-beamtime\[s3\]"):
        open_backend("s3://bucket")
