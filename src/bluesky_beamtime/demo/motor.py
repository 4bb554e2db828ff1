"""A simulated motor, and one whose position the simulated IOCs are told."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ophyd_async.core import (
    MovableLogic,
    SignalR,
    StandardMovable,
    StandardReadable,
    soft_signal_r_and_setter,
    soft_signal_rw,
)
from ophyd_async.core import StandardReadableFormat as Format

if TYPE_CHECKING:
    from bluesky_beamtime.devices import SimIoc

_PERIOD = 0.02


class SimMotor(StandardReadable, StandardMovable[float]):
    """A simulated motor.

    Like the one of ``ophyd_async.sim``, which needs h5py, but with a finer readback.

    Parameters
    ----------
    name
        Name of the device and of its reading.
    units
        Units of the position.
    told
        Awaited with each new position, before the motor says that it is there.

    Attributes
    ----------
    velocity : SignalRW
        In ``units`` per second; 0 moves at once.
    """

    def __init__(
        self,
        name: str = "",
        *,
        units: str = "mm",
        told: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._told = told
        with self.add_children_as_readables(Format.HINTED_SIGNAL):
            self.user_readback, self._show = soft_signal_r_and_setter(
                float, 0.0, units=units
            )
        with self.add_children_as_readables(Format.CONFIG_SIGNAL):
            self.velocity = soft_signal_rw(float, 0.0, units=f"{units}/s")
        self.user_setpoint = soft_signal_rw(float, 0.0, units=units)
        super().__init__(name=name)

    @cached_property
    def movable_logic(self) -> MovableLogic[float]:
        """How the motor moves."""
        return _Move(self.user_setpoint, self.user_readback, self.velocity, self._be_at)

    async def _be_at(self, position: float) -> None:
        if self._told is not None:
            await self._told(position)
        self._show(position)


@dataclass
class _Move(MovableLogic[float]):
    """At constant speed from where the motor is to where it shall be."""

    velocity: SignalR[float]
    be_at: Callable[[float], Awaitable[None]]
    stopping: bool = False

    async def stop(self) -> None:
        self.stopping = True

    async def move(
        self, new_position: float, timeout: Callable[[], float | None]
    ) -> None:
        self.stopping = False
        first, speed = await asyncio.gather(
            self.readback.get_value(), self.velocity.get_value()
        )
        await self.setpoint.set(new_position)
        way = new_position - first
        seconds = abs(way / speed) if speed else 0.0
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds and not self.stopping:
            await self.be_at(first + way * passed / seconds)
            await asyncio.sleep(_PERIOD)
        if not self.stopping:
            await self.be_at(new_position)


class SampleStage:
    """Tells IOCs over PVAccess how far the sample stands from the beam.

    An IOC knows one axis, and the beam is round: it is given the distance.

    Parameters
    ----------
    iocs
        The simulated IOCs.
    """

    def __init__(self, iocs: Sequence[SimIoc]) -> None:
        from p4p.client.thread import Context

        self._names = [f"{ioc.detector}SimPosition" for ioc in iocs]
        servers = "EPICS_PVA_NAME_SERVERS"
        conf = {**iocs[0].conf, servers: " ".join(ioc.conf[servers] for ioc in iocs)}
        self._context: Any = Context("pva", conf=conf, useenv=False)
        self._positions: dict[str, float] = {}

    def motor(self, axis: str) -> SimMotor:
        """Return a motor that has arrived when the IOCs know it."""

        async def told(position: float) -> None:
            self._positions[axis] = position
            distance = math.hypot(*self._positions.values())
            values = [distance] * len(self._names)
            await asyncio.to_thread(self._context.put, self._names, values)

        return SimMotor(told=told)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.close()
