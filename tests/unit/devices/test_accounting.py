"""What became of frames: by array, by run, and as signals."""

from __future__ import annotations

import asyncio
import math

from bluesky_beamtime.devices import FrameAccount, FrameSignals
from bluesky_beamtime.devices.accounting import RunAccounts, SlowFollower


def test_dead_time_is_what_was_not_exposed() -> None:
    account = FrameAccount(live_time=3.0, span=4.0)
    assert account.dead_time == 0.25
    assert FrameAccount().dead_time is None
    # Times of arrival jitter; there is no negative dead time.
    assert FrameAccount(live_time=4.1, span=4.0).dead_time == 0.0
    assert account.counters()["dead_time"] == 0.25


def test_what_was_added_since() -> None:
    account = FrameAccount(expected=5, received=4, live_time=1.5, span=2.0)
    before = account.copy()
    account.received += 3
    account.span += 1.0
    added = account.since(before)
    assert (added.expected, added.received, added.span) == (0, 3, 1.0)


class Array:
    """An account of an array that runs share, as a camera raises it."""

    def __init__(self) -> None:
        self.account = FrameAccount()
        self.runs = RunAccounts(self.account)
        self.rows = 0

    def acquire(self, frames: int) -> None:
        self.runs.acquisition_begins(self.rows)
        self.account.expected += frames
        self.account.received += frames
        self.rows += frames

    def parts(self) -> dict[str, tuple[int, int, int]]:
        return {
            uid: (part["first_row"], part["received"], part["written"])
            for uid, part in self.runs.counters(self.rows).items()
        }


def test_runs_that_are_described_before_they_acquire() -> None:
    array = Array()
    for number in range(3):
        array.runs.begin(f"run{number}", array.rows)
        array.acquire(number + 1)
        array.runs.forget_acquisition()
    assert array.parts() == {"run0": (0, 1, 1), "run1": (1, 2, 2), "run2": (3, 3, 3)}


def test_runs_that_are_described_after_their_first_trigger() -> None:
    array = Array()
    for number in range(3):
        for point in range(4):
            array.acquire(2)
            if point == 0:
                array.runs.begin(f"run{number}", array.rows)
            array.runs.forget_acquisition()
    assert array.parts() == {"run0": (0, 8, 8), "run1": (8, 8, 8), "run2": (16, 8, 8)}
    parts = array.runs.counters(array.rows)
    assert parts["run0"]["stop_row"] == 8
    assert "stop_row" not in parts["run2"]


def test_a_late_frame_belongs_to_the_run_before() -> None:
    array = Array()
    array.runs.begin("first", 0)
    array.acquire(3)
    array.runs.forget_acquisition()
    array.account.late += 1
    array.runs.begin("second", array.rows)
    parts = array.runs.counters(array.rows)
    assert (parts["first"]["late"], parts["second"]["late"]) == (1, 0)


def test_nobody_has_begun() -> None:
    assert RunAccounts(FrameAccount()).counters(0) == {}


async def test_signals_follow() -> None:
    signals = FrameSignals("accounting")
    await signals.connect(mock=False)
    assert math.isnan(await signals.dead_time.get_value())
    account = FrameAccount(expected=9, received=7, dropped=2, live_time=1, span=2)
    signals.show(account, 7)
    values = {
        name: await getattr(signals, name).get_value()
        for name in ("expected", "received", "dropped", "late", "repeated", "written")
    }
    assert values == {
        "expected": 9,
        "received": 7,
        "dropped": 2,
        "late": 0,
        "repeated": 0,
        "written": 7,
    }
    assert await signals.dead_time.get_value() == 0.5
    signals.show(FrameAccount(), 0)
    assert await signals.received.get_value() == 0
    assert math.isnan(await signals.dead_time.get_value())


async def test_a_burst_is_followed_by_one_call() -> None:
    calls: list[None] = []
    follower = SlowFollower(lambda: calls.append(None), period=0.02)
    for _ in range(100):
        follower.soon()
    await asyncio.sleep(0)
    assert calls == []
    while not calls:
        await asyncio.sleep(0.005)
    follower.soon()
    follower.now()
    assert len(calls) == 2
    await asyncio.sleep(0.1)
    assert len(calls) == 2
