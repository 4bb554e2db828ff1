"""The thread that syncs and publishes: what fails there is never lost silently."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from bluesky_beamtime.errors import StoreWriteError
from bluesky_beamtime.storage.pacer import Pacer


class Array:
    """Something that grows; its hooks are what the test puts there."""

    def __init__(self) -> None:
        self.unsynced = True
        self.ticks = 0
        self.on_sync: Callable[[], None] = lambda: None
        self.on_publish: Callable[[], None] = lambda: None

    def sync(self) -> None:
        self.on_sync()

    def publish(self) -> int:
        self.ticks += 1
        self.on_publish()
        return 0


def fail(number: int = errno.EIO) -> None:
    raise StoreWriteError("refused", errno=number)


@pytest.fixture
def pacer() -> Iterator[Callable[..., Pacer]]:
    made: list[Pacer] = []

    def make(*arrays: Array) -> Pacer:
        made.append(Pacer(lambda: arrays, "test"))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def rounds(*arrays: Array, count: int = 2) -> None:
    """Wait until the thread has looked at every array anew."""
    goals = [array.ticks + count for array in arrays]
    until(lambda: all(a.ticks >= g for a, g in zip(arrays, goals, strict=True)))


def fails(pacer: Pacer, array: Array) -> bool:
    try:
        pacer.check(array)
    except StoreWriteError:
        return True
    return False


def test_a_failure_is_raised_for_its_own_array_only(pacer: Callable[..., Pacer]):
    """A camera does not stop for what another one's file cannot do."""
    good, bad = Array(), Array()
    bad.on_publish = fail
    thread = pacer(good, bad)
    rounds(good, bad)
    assert fails(thread, bad)
    assert not fails(thread, good)


def test_a_failure_lasts_as_long_as_its_cause(pacer: Callable[..., Pacer]):
    """Every frame that comes meanwhile is refused; then it goes on."""
    array = Array()
    array.on_publish = fail
    thread = pacer(array)
    rounds(array)
    assert all(fails(thread, array) for _ in range(5))
    array.on_publish = lambda: None
    rounds(array)
    assert not fails(thread, array)


def test_a_sync_that_failed_is_raised_although_the_next_one_succeeds(
    pacer: Callable[..., Pacer],
):
    """The kernel reports lost pages once; whoever writes next must hear of it."""
    array = Array()
    failures = iter([True])
    array.on_sync = lambda: fail() if next(failures, False) else None
    thread = pacer(array)
    rounds(array)
    assert fails(thread, array)
    assert not fails(thread, array)


def test_a_sync_that_failed_is_raised_by_closing(pacer: Callable[..., Pacer]):
    """At the latest, also when no frame comes any more."""
    array = Array()
    failures = iter([True])
    array.on_sync = lambda: fail(errno.ENOSPC) if next(failures, False) else None
    thread = pacer(array)
    rounds(array)
    with pytest.raises(StoreWriteError):
        thread.check_synced(array)
    thread.check_synced(array)


def test_a_full_disk_is_told_by_the_next_frame_itself(pacer: Callable[..., Pacer]):
    """A length that lags is no loss, and the frame that does not fit says so."""
    array = Array()
    array.on_publish = lambda: fail(errno.ENOSPC)
    thread = pacer(array)
    rounds(array)
    assert not fails(thread, array)


@pytest.mark.parametrize("what", ["on_sync", "on_publish"])
def test_the_thread_survives_what_nobody_expected(
    pacer: Callable[..., Pacer], what: str
):
    """It would die in silence, and the lengths would stay where they are."""
    array, other = Array(), Array()

    def surprise() -> None:
        raise RuntimeError("surprise")

    setattr(array, what, surprise)
    thread = pacer(array, other)
    rounds(other)
    with pytest.raises(StoreWriteError, match="surprise"):
        thread.check(array)
    rounds(other)


def test_stopping_ends_the_thread_and_may_be_done_by_itself(
    pacer: Callable[..., Pacer],
):
    array = Array()
    thread = pacer(array)
    array.on_publish = thread.stop
    until(
        lambda: not any(t.name == "beamtime-pacer test" for t in threading.enumerate())
    )
    thread.stop()
    ticks = array.ticks
    assert ticks == 1
