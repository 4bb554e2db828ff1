"""What the tests of all backends check with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from bluesky_beamtime.storage.backends.protocol import StorageBackend


@contextmanager
def raises(expected: type[BaseException]) -> Generator[None]:
    """Check that the body raises; what it raises must say something."""
    try:
        yield
    except expected as error:
        assert len(str(error)) > 10, f"{error!r} explains nothing"
    else:
        raise AssertionError(f"{expected.__name__} was not raised")


def fill(backend: StorageBackend, keys: Iterable[str]) -> None:
    """Store under each key its own name."""
    for key in keys:
        backend.put_bytes(key, key.encode())


def run_together(calls: list[Callable[[], None]]) -> None:
    """Run each call in a thread of its own and raise what any of them raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result(timeout=60)
