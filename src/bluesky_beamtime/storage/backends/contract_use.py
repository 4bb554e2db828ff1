"""The tests of a backend in use: closed, awaited, by many threads at once."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable

from bluesky_beamtime.errors import (
    BackendClosedError,
    KeyNotFoundError,
    PathError,
    StorageError,
)
from bluesky_beamtime.storage.backends.contract_checks import fill, raises, run_together
from bluesky_beamtime.storage.backends.protocol import StorageBackend


class UseContract:
    """What a backend promises to several users, and after its end."""

    threads = 32
    """Threads that put and get at once."""

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
