"""The tests that every backend passes; run them on your own.

In a test module of yours::

    import pytest
    from bluesky_beamtime.storage.backends.contract import StorageBackendContract

    class TestMyBackend(StorageBackendContract):
        @pytest.fixture
        def backend(self, tmp_path):
            with MyBackend(tmp_path) as backend:
                yield backend

The fixture gives an open, empty backend that the test may close. pytest itself is not
needed to import this module.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from bluesky_beamtime.errors import (
    BackendClosedError,
    KeyNotFoundError,
    PathError,
    StorageError,
)
from bluesky_beamtime.storage.backends.protocol import StorageBackend
from bluesky_beamtime.storage.backends.values import get_size, put_pieces

GOOD_KEYS = (
    "zarr.json",
    "a/b/c.0.0",
    "with space/é ü/日本",
    "100%/100%20",
    "q?x#y&z=1+2",
    "..a/b..",
    ".hidden/~home",
    "[br]{ac}|<ket>'\"*!",
    "A/b",
)
"""Keys that every backend takes."""

BAD_KEYS = (
    "",
    "/",
    "/a",
    "//",
    "a//b",
    "a/",
    ".",
    "..",
    "a/../b",
    "./a",
    "a/.",
    "a\\b",
    "..\\b",
    "a\0b",
    "a\nb",
    "a\x7f",
    "\ud800",
    "x" * 256,
    "/".join(["y" * 200] * 6),
)
"""Keys that every backend refuses."""


@contextmanager
def raises(expected: type[BaseException]) -> Generator[None]:
    """Check that the body raises; what it raises must say something."""
    try:
        yield
    except expected as error:
        assert len(str(error)) > 10, f"{error!r} explains nothing"
    else:
        raise AssertionError(f"{expected.__name__} was not raised")


class StorageBackendContract:
    """What a backend promises, one test each; give it a fixture ``backend``."""

    threads = 32
    """Threads that put and get at once."""

    # ----------------------------------------------------------------- the object

    def test_it_is_a_storage_backend(self, backend: StorageBackend) -> None:
        """It has every member of the protocol."""
        assert isinstance(backend, StorageBackend)

    def test_url_is_canonical(self, backend: StorageBackend) -> None:
        """The URL has a scheme, no last slash, no blanks and no credentials."""
        scheme, colon, rest = backend.url.partition("://")
        assert scheme == scheme.lower() and scheme and colon, backend.url
        assert not rest.endswith("/"), backend.url
        assert not set(" @?#") & set(rest), backend.url
        assert rest.isascii(), backend.url

    # --------------------------------------------------------------------- values

    def test_put_then_get(self, backend: StorageBackend) -> None:
        """What was put comes back, empty values too."""
        for value in (b"", b"\0", b"abc", bytes(range(256)) * 300):
            backend.put_bytes("a/b", value)
            found = backend.get_bytes("a/b")
            assert isinstance(found, bytes)
            assert found == value
            assert get_size(backend, "a/b") == len(value)

    def test_the_last_put_counts(self, backend: StorageBackend) -> None:
        """A second value replaces the first, also when it is shorter."""
        backend.put_bytes("k", b"first and long")
        backend.put_bytes("k", b"second")
        assert backend.get_bytes("k") == b"second"
        assert list(backend.list_prefix("")) == ["k"]

    def test_a_value_of_many_mib(self, backend: StorageBackend) -> None:
        """Values as large as shards, beyond what one request of S3 takes at a time."""
        value = np.arange(3 << 20, dtype="<u4")
        backend.put_bytes("large", value)
        assert backend.get_bytes("large") == value.tobytes()
        middle = value[1 << 20 : (1 << 20) + 10]
        assert backend.get_range("large", 4 << 20, 40) == middle.tobytes()

    def test_a_value_in_pieces(self, backend: StorageBackend) -> None:
        """A value that is made piece by piece appears as a whole, or not at all."""
        piece = bytes(range(256)) * 4096

        def broken() -> Iterator[bytes]:
            yield piece
            raise StorageError("the pieces end before they should")

        for count, size in ((0, 0), (1, 5), (7, 7 << 20), (7, 1)):
            put_pieces(backend, "a/pieces", [piece] * count, size)
            assert backend.get_bytes("a/pieces") == piece * count
        with raises(StorageError):
            put_pieces(backend, "a/pieces", broken(), 6 << 20)
        assert backend.get_bytes("a/pieces") == piece * 7
        assert list(backend.list_prefix("a")) == ["a/pieces"]

    def test_anything_with_bytes_can_be_put(self, backend: StorageBackend) -> None:
        """Buffers of all kinds, in C order; a later change does not reach the store."""
        array = np.arange(24, dtype=">u2").reshape(4, 6)
        changing = bytearray(b"before")
        samples = {
            "bytearray": (changing, b"before"),
            "view": (memoryview(b"abcdef")[1:4], b"bcd"),
            "strided": (memoryview(b"abcdef")[::2], b"ace"),
            "array": (array, array.tobytes()),
            "column": (array[:, 1], array[:, 1].tobytes()),
            "transposed": (array.T, array.T.tobytes()),
            "empty": (np.empty((0, 4)), b""),
            "scalar": (np.array(7.5), np.array(7.5).tobytes()),
        }
        for key, (data, _) in samples.items():
            backend.put_bytes(key, data)
        changing[:] = b"after!"
        for key, (_, expected) in samples.items():
            assert backend.get_bytes(key) == expected, key

    def test_text_is_refused(self, backend: StorageBackend) -> None:
        """Text and objects have no bytes of their own."""
        for data in ("text", 7, None, np.array([{}])):
            with raises(TypeError):
                backend.put_bytes("k", data)  # pyright: ignore[reportArgumentType]  # on purpose
        assert not backend.exists("k")

    def test_ranges(self, backend: StorageBackend) -> None:
        """Ranges are cut at the end of the value; negative ones are refused."""
        backend.put_bytes("k", b"0123456789")
        assert backend.get_range("k", 0, 10) == b"0123456789"
        assert backend.get_range("k", 3, 4) == b"3456"
        assert backend.get_range("k", 9, 1) == b"9"
        assert backend.get_range("k", 8, 100) == b"89"
        assert backend.get_range("k", 10, 1) == b""
        assert backend.get_range("k", 1000, 1) == b""
        assert backend.get_range("k", 5, 0) == b""
        for start, length in ((-1, 1), (0, -1)):
            with raises(ValueError):
                backend.get_range("k", start, length)
        for length in (0, 1):
            with raises(KeyNotFoundError):
                backend.get_range("other", 0, length)

    # -------------------------------------------------------------------- absence

    def test_a_missing_key(self, backend: StorageBackend) -> None:
        """Absence is a ``KeyError`` that names the key."""
        backend.put_bytes("a/b", b"1")
        for key in ("c", "a/c", "a/b/c", "ab"):
            with raises(KeyError):
                backend.get_bytes(key)
            try:
                backend.get_bytes(key)
            except KeyNotFoundError as error:
                assert (error.key, error.url) == (key, backend.url)
                assert repr(key) in str(error)

    def test_a_container_is_no_value(self, backend: StorageBackend) -> None:
        """A container can be neither read nor measured."""
        backend.put_bytes("a/b/c", b"1")
        for key in ("a", "a/b"):
            with raises(KeyNotFoundError):
                backend.get_bytes(key)
            with raises(KeyNotFoundError):
                backend.get_range(key, 0, 1)
            with raises(KeyNotFoundError):
                get_size(backend, key)

    def test_exists(self, backend: StorageBackend) -> None:
        """Only values exist."""
        backend.put_bytes("a/b", b"")
        assert backend.exists("a/b")
        for key in ("", "a", "a/", "a/c", "a/b/c", "b"):
            assert not backend.exists(key), key

    # ----------------------------------------------------------------------- keys

    def test_good_keys(self, backend: StorageBackend) -> None:
        """Whatever a key may hold survives storing and listing."""
        for number, key in enumerate(GOOD_KEYS):
            backend.put_bytes(key, str(number).encode())
        assert list(backend.list_prefix("", recursive=True)) == sorted(GOOD_KEYS)
        for number, key in enumerate(GOOD_KEYS):
            assert backend.get_bytes(key) == str(number).encode(), key
            assert backend.exists(key), key
            backend.delete(key)
        assert list(backend.list_prefix("", recursive=True)) == []

    def test_bad_keys(self, backend: StorageBackend) -> None:
        """Whatever a key may not hold is refused everywhere, and nothing is written."""
        calls: tuple[Callable[[str], object], ...] = (
            lambda key: backend.put_bytes(key, b"1"),
            backend.get_bytes,
            lambda key: backend.get_range(key, 0, 1),
            backend.delete,
        )
        for key, call in itertools.product(BAD_KEYS, calls):
            with raises(PathError):
                call(key)
        for key in set(BAD_KEYS) - {"", "a/"}:
            for call in (
                backend.exists,
                backend.list_prefix,
                backend.delete_prefix,
                backend.ensure_prefix,
            ):
                with raises(PathError):
                    call(key)
        assert list(backend.list_prefix("", recursive=True)) == []

    # -------------------------------------------------------------------- deleting

    def test_delete(self, backend: StorageBackend) -> None:
        """One value goes; twice, or without a value, nothing happens."""
        fill(backend, ("a/b", "a/c"))
        backend.delete("a/b")
        backend.delete("a/b")
        backend.delete("never/there")
        backend.delete("a/c/below a value")
        assert list(backend.list_prefix("", recursive=True)) == ["a/c"]

    def test_delete_never_takes_a_tree(self, backend: StorageBackend) -> None:
        """Deleting the name of a container leaves what is in it."""
        fill(backend, ("a/b/c",))
        backend.delete("a")
        backend.delete("a/b")
        assert backend.get_bytes("a/b/c") == b"a/b/c"

    def test_delete_prefix(self, backend: StorageBackend) -> None:
        """A prefix is made of whole parts: ``runs/a`` is no prefix of ``runs/ab/y``."""
        fill(backend, ("runs/a/x", "runs/a/s/z", "runs/ab/y", "runs/a.json", "other"))
        backend.delete_prefix("runs/a")
        backend.delete_prefix("runs/a")
        backend.delete_prefix("not/there")
        kept = ["other", "runs/a.json", "runs/ab/y"]
        assert list(backend.list_prefix("", recursive=True)) == kept
        backend.delete_prefix("runs/")
        assert list(backend.list_prefix("", recursive=True)) == ["other"]

    def test_delete_prefix_leaves_a_value_of_that_name(
        self, backend: StorageBackend
    ) -> None:
        """What ``list_prefix`` does not list, ``delete_prefix`` does not remove."""
        fill(backend, ("a/b",))
        backend.delete_prefix("a/b")
        assert backend.exists("a/b")

    def test_deleting_everything_must_be_said(self, backend: StorageBackend) -> None:
        """An empty prefix alone is refused."""
        fill(backend, ("a", "b/c"))
        with raises(PathError):
            backend.delete_prefix("")
        assert list(backend.list_prefix("", recursive=True)) == ["a", "b/c"]
        backend.delete_prefix("", everything=True)
        assert list(backend.list_prefix("", recursive=True)) == []
        backend.put_bytes("a", b"usable afterwards")
        assert backend.exists("a")

    # --------------------------------------------------------------------- listing

    def test_list_all(self, backend: StorageBackend) -> None:
        """All values below a prefix, full keys, sorted by code point."""
        keys = ("g/z", "g/s/a", "g/s/t/b", "g-1", "g.1", "g0", "h")
        fill(backend, keys)
        assert list(backend.list_prefix("", recursive=True)) == sorted(keys)
        below = ["g/s/a", "g/s/t/b", "g/z"]
        assert list(backend.list_prefix("g", recursive=True)) == below
        assert list(backend.list_prefix("g/", recursive=True)) == below

    def test_list_children(self, backend: StorageBackend) -> None:
        """The children of a prefix as full keys; containers end in a slash."""
        fill(backend, ("g/file", "g/sub/a", "g/sub/b", "g/sub.x", "top"))
        children = ["g/file", "g/sub.x", "g/sub/"]
        assert list(backend.list_prefix("g")) == children
        assert list(backend.list_prefix("g/")) == children
        assert list(backend.list_prefix("")) == ["g/", "top"]
        assert list(backend.list_prefix("g/sub/")) == ["g/sub/a", "g/sub/b"]

    def test_list_nothing(self, backend: StorageBackend) -> None:
        """A prefix that is not there, or that is a value, holds nothing."""
        fill(backend, ("a/b",))
        for prefix, recursive in itertools.product(("x", "a/b", "a/b/c"), (0, 1)):
            assert list(backend.list_prefix(prefix, recursive=bool(recursive))) == []

    def test_list_is_an_iterator(self, backend: StorageBackend) -> None:
        """Keys come one by one."""
        fill(backend, ("a", "b", "c"))
        keys = backend.list_prefix("", recursive=True)
        assert iter(keys) is keys
        assert [next(keys), next(keys), next(keys)] == ["a", "b", "c"]

    def test_deleting_while_listing(self, backend: StorageBackend) -> None:
        """Every value is met once, though each is deleted as it is met."""
        keys = [f"{group}/{n:02}" for group in "abc" for n in range(12)]
        fill(backend, keys)
        seen: list[str] = []
        for key in backend.list_prefix("", recursive=True):
            seen.append(key)
            backend.delete(key)
        assert seen == keys
        assert list(backend.list_prefix("", recursive=True)) == []

    def test_a_tree_deleted_while_listing(self, backend: StorageBackend) -> None:
        """What was there all the time is yielded, though other parts vanish."""
        fill(backend, ("a/1", "b/1", "b/2", "c/1"))
        keys = backend.list_prefix("", recursive=True)
        assert next(keys) == "a/1"
        backend.delete_prefix("b")
        assert [key for key in keys if not key.startswith("b/")] == ["c/1"]

    def test_ensure_prefix(self, backend: StorageBackend) -> None:
        """It may be repeated, and changes no value; containers may be listed or not."""
        fill(backend, ("a/b",))
        for prefix in ("a", "new/deep", "new/deep/", ""):
            backend.ensure_prefix(prefix)
            backend.ensure_prefix(prefix)
        assert list(backend.list_prefix("", recursive=True)) == ["a/b"]
        assert set(backend.list_prefix("")) - {"new/"} == {"a/"}
        assert not backend.exists("new/deep")

    # --------------------------------------------------------------------- closing

    def test_close(self, backend: StorageBackend) -> None:
        """Closing twice is fine; any other use afterwards says what is wrong."""
        fill(backend, ("a/b",))
        url = backend.url
        running = backend.list_prefix("", recursive=True)
        backend.close()
        backend.close()
        assert backend.url == url
        calls: tuple[Callable[[], object], ...] = (
            lambda: backend.put_bytes("a", b""),
            lambda: backend.get_bytes("a/b"),
            lambda: backend.get_range("a/b", 0, 1),
            lambda: backend.exists("a/b"),
            lambda: backend.exists(""),
            lambda: backend.delete("a/b"),
            lambda: backend.delete_prefix("a"),
            lambda: backend.list_prefix(""),
            lambda: backend.ensure_prefix("a"),
            lambda: next(running),
            backend.as_async,
            backend.__enter__,
        )
        for call in calls:
            with raises(BackendClosedError):
                call()

    def test_context_manager(self, backend: StorageBackend) -> None:
        """``with`` gives the backend and closes it."""
        with backend as same:
            assert same is backend
            backend.put_bytes("a", b"1")
        with raises(RuntimeError):
            backend.get_bytes("a")

    # --------------------------------------------------------------- at the same time

    def test_async_twin(self, backend: StorageBackend) -> None:
        """The twin does the same, awaited, many calls at a time."""

        async def use() -> None:
            twin = backend.as_async()
            assert twin.url == backend.url
            keys = [f"n/{number:03}" for number in range(40)]
            await asyncio.gather(*(twin.put_bytes(key, key.encode()) for key in keys))
            values = await asyncio.gather(*map(twin.get_bytes, keys))
            assert values == [key.encode() for key in keys]
            assert await twin.get_range("n/007", 2, 2) == b"00"
            assert await twin.exists("n/000")
            assert not await twin.exists("n")
            assert [key async for key in twin.list_prefix("n")] == keys
            assert [key async for key in twin.list_prefix("", True)] == keys
            await twin.ensure_prefix("n")
            await twin.delete("n/000")
            with raises(KeyNotFoundError):
                await twin.get_bytes("n/000")
            with raises(PathError):
                await twin.get_bytes("../n")
            await twin.delete_prefix("n")
            assert not backend.exists("n/001")
            async with twin as same:
                assert same is twin
            await twin.close()
            with raises(BackendClosedError):
                await twin.exists("n/001")

        asyncio.run(use())
        with raises(BackendClosedError):
            backend.exists("n/001")

    def test_many_threads(self, backend: StorageBackend) -> None:
        """Threads put, get, list and delete keys of their own without disturbance."""

        def work(number: int) -> None:
            for turn in range(4):
                key = f"t{number % 4}/{number:02}/{turn}"
                value = f"{number} {turn} ".encode() * 50
                backend.put_bytes(key, value)
                assert backend.get_bytes(key) == value
                own = f"t{number % 4}/{number:02}"
                assert key in list(backend.list_prefix(own))
            backend.delete_prefix(f"t{number % 4}/{number:02}")

        run_together([lambda n=n: work(n) for n in range(self.threads)])
        assert list(backend.list_prefix("", recursive=True)) == []

    def test_readers_never_see_a_part(self, backend: StorageBackend) -> None:
        """While a value is replaced again and again, readers get one of them whole."""
        values = [bytes([letter]) * size for letter, size in ((65, 9), (66, 70_000))]
        backend.put_bytes("a/k", values[0])
        done = threading.Event()

        def write() -> None:
            try:
                # Long enough for many changes between threads, which come every 5 ms.
                stop = time.monotonic() + 0.4
                for turn in itertools.count():
                    backend.put_bytes("a/k", values[turn % 2])
                    if turn >= 10 and time.monotonic() > stop:
                        return
            finally:
                done.set()

        def read() -> None:
            while not done.is_set():
                assert backend.get_bytes("a/k") in values
                assert list(backend.list_prefix("", recursive=True)) == ["a/k"]

        run_together([write, read, read, read])

    def test_putting_while_the_tree_is_deleted(self, backend: StorageBackend) -> None:
        """A put that returned has stored its value, or a later delete removed it."""
        done = threading.Event()

        def write() -> None:
            try:
                for turn in range(20):
                    backend.put_bytes(f"a/b/{turn}", b"1")
            finally:
                done.set()

        def delete() -> None:
            while not done.is_set():
                backend.delete_prefix("a")

        run_together([write, delete])
        backend.put_bytes("a/b/last", b"1")
        assert backend.exists("a/b/last")

    def test_errors_share_one_root(self, backend: StorageBackend) -> None:
        """Every error on purpose is a ``StorageError``."""
        for call in (lambda: backend.get_bytes("none"), lambda: backend.get_bytes("")):
            with raises(StorageError):
                call()


def fill(backend: StorageBackend, keys: Iterable[str]) -> None:
    """Store under each key its own name."""
    for key in keys:
        backend.put_bytes(key, key.encode())


def run_together(calls: list[Callable[[], None]]) -> None:
    """Run each call in a thread of its own and raise what any of them raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result(timeout=60)
