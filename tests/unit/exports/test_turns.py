"""Work for threads: bounded, in the order that was asked for, ended with an error."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from bluesky_beamtime.exports.turns import Turns


def nothing() -> None:
    pass


def test_what_comes_afterwards_sees_all_that_was_before() -> None:
    done: list[str] = []
    order = threading.Lock()
    violations: list[str] = []

    def work(name: str, needs: tuple[str, ...] = ()) -> str:
        with order:
            violations.extend(need for need in needs if need not in done)
            done.append(name)
        return name

    taken: list[str] = []
    with Turns(3, taken.append, nothing, nothing) as turns:
        for group in range(40):
            names = tuple(f"{group}-{number}" for number in range(group % 5))
            for name in names:
                turns.do(partial(work, name))
            turns.do_afterwards(partial(work, f"{group}-end", names))
        turns.finish()
    assert violations == []
    assert sorted(taken) == sorted(done)
    assert len(taken) == 40 + sum(group % 5 for group in range(40))


def test_never_more_is_in_hand_than_some_threads_need() -> None:
    free = threading.Semaphore(0)
    given = 0
    looked = 0

    def look() -> None:
        nonlocal looked
        looked += 1
        free.release()

    with Turns(2, lambda _: None, look, nothing) as turns:
        for _ in range(30):
            turns.do(free.acquire)
            given += 1
            # Six may wait; whoever gives out more waits for one to end.
            assert given <= looked + 6
        free.release(30)
        turns.finish()


def test_an_error_ends_the_others_and_leaves_no_thread() -> None:
    before = threading.active_count()
    stop = threading.Event()

    def fail() -> None:
        raise ValueError("no")

    with (
        pytest.raises(ValueError, match="no"),
        Turns(2, lambda _: None, nothing, stop.set) as turns,
    ):
        turns.do(lambda: stop.wait(60) or None)
        turns.do(fail)
        turns.finish()
    assert stop.is_set()
    assert threading.active_count() == before
