"""Motors that move along a trajectory while detectors take frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from ophyd_async.core import (
    AsyncStatus,
    FlyableLogic,
    FlyMotorInfo,
    SignalR,
    StandardDetector,
    StandardFlyable,
    WatchableAsyncStatus,
    WatcherUpdate,
    observe_value,
    soft_signal_r_and_setter,
)

from bluesky_beamtime.devices.following import FollowedAxes
from bluesky_beamtime.errors import DeviceError


@dataclass(frozen=True, slots=True)
class PointTrajectory:
    """Positions that a motor visits one after another, resting at each.

    Between them it moves with the velocity that is set.
    """

    positions: tuple[float, ...]
    """Where to go, in the motor's units."""
    dwell: float = 0.0
    """Seconds to rest at each."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", tuple(map(float, self.positions)))
        if not self.positions:
            raise ValueError("a trajectory needs at least one position")
        if not self.dwell >= 0:
            raise ValueError(f"dwell is a time in seconds, not {self.dwell!r}")


Trajectory = FlyMotorInfo | PointTrajectory
"""A line at constant velocity with a run-up before it, or points."""


@dataclass
class Flight:
    """One movement along a trajectory, from its preparation to its end."""

    trajectory: Trajectory
    """Where it leads."""
    moving: Awaitable[Any] | None = None
    """Ends when the motor is there."""


class MotorFlyLogic(FlyableLogic[Trajectory, Flight]):
    """Moves a motor along a trajectory while detectors record where it is.

    Parameters
    ----------
    motor
        A motor of ophyd-async that can fly (``prepare`` with a ``FlyMotorInfo``,
        ``kickoff``, ``complete``), such as ``epics.motor.Motor`` or ``sim.SimMotor``;
        for points alone any with ``set``.
    detectors
        Cameras beside whose frames ``<camera>_<motor>`` is recorded. Prepare them after
        the flyer.
    axes
        More motors or signals that are recorded like it.
    """

    def __init__(
        self,
        motor: Any,
        detectors: Sequence[StandardDetector] = (),
        axes: Sequence[Any] = (),
    ) -> None:
        self.motor = motor
        self._followed = FollowedAxes(detectors, [motor, *axes])
        self._velocity: float | None = None
        self._moving: asyncio.Task[None] | None = None
        self.points: SignalR[int]
        self.points, self._show = soft_signal_r_and_setter(int, 0)

    async def on_prepare(self, value: Trajectory) -> Flight:
        """Go to the beginning, and let the detectors follow.

        Raises
        ------
        DeviceError
            The motor cannot fly.
        """
        flight = self._preparing = Flight(value)
        try:
            await self._remember_velocity()
            await self._go_to_start(value)
            # Nobody would end what is begun after an unstaging.
            if self._preparing is flight:
                await self._followed.start()
        finally:
            if self._preparing is flight:
                self._preparing = None
        return flight

    _preparing: Flight | None = None

    async def _go_to_start(self, value: Trajectory) -> None:
        if isinstance(value, PointTrajectory):
            await self.motor.set(value.positions[0])
            self._show(0)
        elif hasattr(self.motor, "kickoff"):
            await self.motor.prepare(value)
        else:
            raise DeviceError(
                f"{self.motor.name} cannot move at a given velocity by itself (it has "
                "no kickoff()); give it a PointTrajectory"
            )

    async def on_kickoff(self, ctx: Flight) -> Flight:
        """Begin to move; returns when the velocity is reached."""
        if isinstance(ctx.trajectory, PointTrajectory):
            ctx.moving = self._moving = asyncio.create_task(self._visit(ctx.trajectory))
        else:
            await self.motor.kickoff()
            ctx.moving = self.motor.complete()
        self._flying = True
        return ctx

    async def on_complete(self, ctx: Flight) -> None:
        """Wait until the motor is there."""
        try:
            await cast("Awaitable[Any]", ctx.moving)
        finally:
            self._flying = False

    _flying = False

    async def _visit(self, trajectory: PointTrajectory) -> None:
        for number, position in enumerate(trajectory.positions, 1):
            await self.motor.set(position)
            await asyncio.sleep(trajectory.dwell)
            self._followed.note_rest()
            self._show(number)

    async def stop(self) -> None:
        """Stop the motor if it is flying, or on its way to the beginning."""
        task, self._moving = self._moving, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})
        preparing, self._preparing = self._preparing, None
        if not (self._flying or preparing) or not hasattr(self.motor, "stop"):
            return
        # A preparation that is cut off must not go on with the velocity.
        await self.motor.stop(success=preparing is None)
        self._flying = False

    async def on_unstage(self) -> None:
        """Stop the motor, give it its velocity back, and follow it no more."""
        try:
            await self.stop()
            velocity, self._velocity = self._velocity, None
            if velocity is not None:
                await self.motor.velocity.set(velocity)
        finally:
            self._followed.stop()

    async def _remember_velocity(self) -> None:
        velocity = getattr(self.motor, "velocity", None)
        if self._velocity is None and velocity is not None:
            self._velocity = await velocity.get_value()

    async def units(self) -> str:
        """Return the motor's units, empty if it has none."""
        with suppress(AttributeError):
            described = await self.motor.user_readback.describe()
            return str(next(iter(described.values())).get("units") or "")
        return ""


class MotorFlyer(StandardFlyable[Trajectory, Flight]):
    """A :class:`MotorFlyLogic` as a device for plans, with a progress bar.

    Prepare it with a :class:`~ophyd_async.core.FlyMotorInfo` or a
    :class:`PointTrajectory` before the detectors, and stage it with them: unstaging
    stops the motor and gives it its velocity back.

    Parameters
    ----------
    motor, detectors, axes
        As for :class:`MotorFlyLogic`.
    name
        Name of the device, by default ``<motor>_flyer``.
    """

    def __init__(
        self,
        motor: Any,
        detectors: Sequence[StandardDetector] = (),
        axes: Sequence[Any] = (),
        name: str = "",
    ) -> None:
        self._logic = MotorFlyLogic(motor, detectors, axes)
        self._trajectory: Trajectory | None = None
        super().__init__(name=name or f"{motor.name}_flyer")  # pyright: ignore[reportUnknownMemberType]  # ophyd-async leaves the type open

    @cached_property
    def flyable_logic(self) -> MotorFlyLogic:
        """How it flies."""
        return self._logic

    @AsyncStatus.wrap
    async def prepare(self, value: Trajectory) -> None:
        """Go to the beginning of a trajectory."""
        self._trajectory = value
        await super().prepare(value)

    @WatchableAsyncStatus.wrap
    async def complete(self) -> AsyncIterator[WatcherUpdate[Any]]:
        """Wait until the motor is at the end of the trajectory."""
        trajectory, logic = self._trajectory, self._logic
        status = cast("WatchableAsyncStatus[Any]", super().complete())
        if isinstance(trajectory, FlyMotorInfo):
            signal: SignalR[Any] = logic.motor.user_readback
            first, last = trajectory.start_position, trajectory.end_position
            unit = await logic.units()
        else:
            signal, unit = logic.points, "points"
            first, last = 0, 0 if trajectory is None else len(trajectory.positions)
        low, high = sorted((first, last))
        async for value in watch_signal(status, signal):
            # The run-down lies behind the end of the bar.
            yield WatcherUpdate(
                current=min(max(value, low), high),
                initial=first,
                target=last,
                name=self.name,
                unit=unit,
            )


async def watch_signal(
    status: WatchableAsyncStatus[Any], signal: SignalR[Any]
) -> AsyncIterator[Any]:
    """Yield what a signal says until a status is done, then raise what it failed with.

    Parameters
    ----------
    status
        What is waited for.
    signal
        What is shown meanwhile.
    """
    async for value in observe_value(signal, done_status=status):
        yield value
    await status
