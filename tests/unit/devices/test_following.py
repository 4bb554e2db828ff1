"""Axes that are followed are let go, whenever that is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ophyd_async.core import SignalR, init_devices, soft_signal_r_and_setter
from ophyd_async.sim import SimMotor

from bluesky_beamtime.devices import FollowedAxes, MotorFlyer, PointTrajectory


def replace(device: Any, name: str, function: Any) -> None:
    """Replace a method, which a device refuses to have replaced."""
    vars(device)[name] = function


class Readback:
    """A signal, and how many follow it."""

    def __init__(self) -> None:
        self.signal: SignalR[float]
        self.signal, _ = soft_signal_r_and_setter(float, 1.0, name="x")
        self.followers = 0
        self.describing = asyncio.Event()
        self.described = asyncio.Event()
        self.described.set()
        subscribe, clear = self.signal.subscribe_reading, self.signal.clear_sub
        describe = self.signal.describe

        def counting(function: Any) -> None:
            self.followers += 1
            subscribe(function)

        def discounting(function: Any) -> None:
            self.followers -= 1
            clear(function)

        async def slow_describe() -> Any:
            self.describing.set()
            await self.described.wait()
            return await describe()

        replace(self.signal, "subscribe_reading", counting)
        replace(self.signal, "clear_sub", discounting)
        replace(self.signal, "describe", slow_describe)


async def test_stopped_as_soon_as_it_is_started() -> None:
    readback = Readback()
    axes = FollowedAxes([], [readback.signal])
    starting = asyncio.create_task(axes.start())
    # It has not looked at the signal yet.
    await asyncio.sleep(0)
    axes.stop()
    await starting
    assert readback.followers == 0


async def test_stopped_while_it_is_started() -> None:
    readback = Readback()
    readback.described.clear()
    axes = FollowedAxes([], [readback.signal])
    starting = asyncio.create_task(axes.start())
    await readback.describing.wait()
    axes.stop()
    assert readback.followers == 0
    readback.described.set()
    await starting
    assert readback.followers == 0
    await axes.start()
    assert readback.followers == 1
    axes.stop()
    assert readback.followers == 0


async def test_following_leaves_no_task_behind() -> None:
    readback = Readback()
    axes = FollowedAxes([], [readback.signal])
    before = asyncio.all_tasks()
    await axes.start()
    assert asyncio.all_tasks() == before
    assert readback.followers == 1
    axes.stop()


@pytest.mark.parametrize("moment", ["looking", "going"])
async def test_unstaged_on_the_way_to_the_beginning(moment: str) -> None:
    under_way, there = asyncio.Event(), asyncio.Event()

    class Unstoppable(SimMotor):
        async def stop(self, success: bool = False) -> None:
            """Go on."""

    readback = Readback()
    async with init_devices():
        x = Unstoppable("x")
    x.user_readback = readback.signal

    if moment == "looking":
        value = x.velocity.get_value

        async def get_value(*args: Any) -> float:
            under_way.set()
            await there.wait()
            return await value(*args)

        replace(x.velocity, "get_value", get_value)
    else:

        async def go(position: float) -> None:
            under_way.set()
            await there.wait()

        replace(x, "set", go)

    flyer = MotorFlyer(x)
    await flyer.stage()
    preparing = flyer.prepare(PointTrajectory((0.5, 1.0)))
    await under_way.wait()
    await flyer.unstage()
    there.set()
    await preparing
    assert readback.followers == 0
    await flyer.unstage()
