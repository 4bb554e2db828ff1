"""Counts of foreign threads reach the event loop soon, and not too often."""

from __future__ import annotations

import asyncio
import threading
import time

from bluesky_beamtime.devices.progress import PERIOD, FrameCounter


def shown(counter: FrameCounter) -> list[tuple[int, float]]:
    updates: list[tuple[int, float]] = []
    name = counter.signal.name

    def note(reading: dict[str, dict[str, int]]) -> None:
        updates.append((reading[name]["value"], time.monotonic()))

    counter.signal.subscribe_reading(note)
    return updates


async def test_a_quiet_loop_is_woken_at_once() -> None:
    counter = FrameCounter(asyncio.get_running_loop(), "written")
    updates = shown(counter)
    latencies: list[float] = []
    for count in range(1, 6):
        sent: list[float] = []

        def set_count(count: int = count, sent: list[float] = sent) -> None:
            sent.append(time.monotonic())
            counter.raise_to(count)

        thread = threading.Timer(0.1, set_count)
        thread.start()
        while updates[-1][0] != count:
            # Nothing else happens in this loop.
            await asyncio.sleep(5 * PERIOD)
        thread.join()
        (latency,) = (when - sent[0] for value, when in updates if value == count)
        latencies.append(latency)
    # A soft signal set from a thread takes a second; this takes a millisecond or two.
    assert sorted(latencies)[2] < 0.05


async def test_many_counts_share_few_updates_and_the_last_is_shown() -> None:
    counter = FrameCounter(asyncio.get_running_loop(), "written")
    updates = shown(counter)
    began = time.monotonic()

    def count() -> None:
        for n in range(1, 20_001):
            counter.raise_to(n)

    thread = threading.Thread(target=count)
    thread.start()
    while updates[-1][0] != 20_000:
        await asyncio.sleep(0.01)
    thread.join()
    took = time.monotonic() - began
    assert len(updates) <= 3 + took / PERIOD
    values = [value for value, _ in updates]
    assert values == sorted(values)


async def test_flush_does_not_wait_for_the_period() -> None:
    counter = FrameCounter(asyncio.get_running_loop(), "written")
    counter.raise_to(1)
    await asyncio.sleep(0.001)
    counter.raise_to(2)
    counter.flush()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await counter.signal.get_value() == 2


def test_a_closed_loop_is_no_error() -> None:
    async def make() -> FrameCounter:
        return FrameCounter(asyncio.get_running_loop(), "written")

    loop = asyncio.new_event_loop()
    counter = loop.run_until_complete(make())
    loop.close()
    counter.raise_to(1)
    counter.flush()
    assert counter.count == 1


async def test_a_limit_holds_the_count_back_until_it_is_lifted() -> None:
    counter = FrameCounter(asyncio.get_running_loop(), "written")
    counter.limit = 3
    updates = shown(counter)
    for count in (2, 5, 6):
        counter.raise_to(count)
        await asyncio.sleep(3 * PERIOD)
        assert await counter.signal.get_value() == min(count, 3)
    assert counter.count == 6
    counter.limit = None
    counter.sync()
    assert await counter.signal.get_value() == 6
    assert [value for value, _ in updates] == [0, 2, 3, 6]
