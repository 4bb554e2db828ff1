"""Frames that software asks for, one by one, at given times."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise, starmap
from typing import Any, cast

from ophyd_async.core import (
    AsyncStatus,
    FlyableLogic,
    SignalR,
    StandardDetector,
    StandardFlyable,
    TriggerInfo,
    WatchableAsyncStatus,
    WatcherUpdate,
    soft_signal_r_and_setter,
)

from bluesky_beamtime.devices.flying import watch_signal
from bluesky_beamtime.devices.following import FollowedAxes
from bluesky_beamtime.errors import DeviceError

TOLERANCE = 0.01
"""Seconds after its time from which a trigger counts as late."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """When to take events."""

    times: tuple[float, ...]
    """Seconds after the kickoff, ascending."""

    def __post_init__(self) -> None:
        times = tuple(map(float, self.times))
        object.__setattr__(self, "times", times)
        if not times:
            raise ValueError("a timetable needs at least one time")
        if not all(map(math.isfinite, times)) or times[0] < 0:
            raise ValueError("times are seconds after the kickoff, from 0 on")
        if any(b < a for a, b in pairwise(times)):
            raise ValueError("times must ascend")

    @classmethod
    def at_rate(cls, number: int, rate: float) -> Timetable:
        """Return a timetable of ``number`` events, ``rate`` of them in a second."""
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"a rate is a positive number per second, not {rate!r}")
        return cls(tuple(n / rate for n in range(number)))


class PaceLogic(FlyableLogic[Timetable, None]):
    """Triggers detectors together, by software, at the times of a timetable.

    A trigger whose time comes while the detectors are busy follows as soon as they are
    not: none is left out, and ``late`` counts those.

    Parameters
    ----------
    detectors
        Prepare each for one event before the kickoff.
    infos
        What each takes for an event, by which it is prepared again for those after the
        first; by default one exposure as it is set.
    axes
        Motors or signals whose positions are recorded beside the frames; prepare the
        detectors after the flyer then.
    """

    def __init__(
        self,
        detectors: Sequence[StandardDetector],
        infos: Sequence[TriggerInfo] | None = None,
        axes: Sequence[Any] = (),
    ) -> None:
        self.detectors = list(detectors)
        self.infos = [TriggerInfo()] * len(self.detectors) if infos is None else infos
        if len(self.infos) != len(self.detectors) or any(
            info.number_of_events != 1 for info in self.infos
        ):
            raise ValueError("each detector needs a TriggerInfo of one event")
        self._followed = FollowedAxes(detectors, axes)
        self._timetable: Timetable | None = None
        self._task: asyncio.Task[None] | None = None
        self.done: SignalR[int]
        self.done, self._show_done = soft_signal_r_and_setter(int, 0)
        self.late: SignalR[int]
        self.late, self._show_late = soft_signal_r_and_setter(int, 0)

    @property
    def number(self) -> int:
        """Events of the timetable."""
        return 0 if self._timetable is None else len(self._timetable.times)

    async def on_prepare(self, value: Timetable) -> None:
        """Take a timetable, and let the detectors follow the axes."""
        self._timetable = value
        self._show_done(0)
        self._show_late(0)
        await self._followed.start()

    async def on_kickoff(self, ctx: None) -> None:
        """Begin."""
        timetable = self._timetable
        if timetable is None:
            raise DeviceError("there is no timetable; prepare() with one")
        self._task = asyncio.create_task(self._run(timetable.times))

    async def on_complete(self, ctx: None) -> None:
        """Wait for the last event, or until it is stopped.

        Raises
        ------
        BeamtimeError
            What a detector failed with.
        """
        task = self._task
        if task is None:
            return
        await asyncio.wait({task})
        # Whoever stopped it knows.
        if not task.cancelled():
            task.result()

    async def _run(self, times: Sequence[float]) -> None:
        began = time.monotonic()
        late = 0
        for number, moment in enumerate(times, 1):
            wait = began + moment - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            elif wait < -TOLERANCE:
                late += 1
                self._show_late(late)
            await asyncio.gather(*starmap(partial(_take_event, number), self._each()))
            self._show_done(number)

    def _each(self) -> Iterator[tuple[StandardDetector, TriggerInfo]]:
        return zip(self.detectors, self.infos, strict=True)

    def trigger_no_more(self) -> None:
        """Begin no event any more, from this moment on."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Trigger no more."""
        self.trigger_no_more()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait({task})

    async def on_unstage(self) -> None:
        """Trigger no more, and follow no axis any more."""
        try:
            await self.stop()
        finally:
            self._followed.stop()


async def _take_event(
    number: int, detector: StandardDetector, info: TriggerInfo
) -> None:
    # A stock detector takes all that it was prepared for at each kickoff.
    if number > 1:
        await detector.prepare(info)
    await detector.kickoff()
    await detector.complete()


class SoftwarePacer(StandardFlyable[Timetable, None]):
    """A :class:`PaceLogic` as a device for plans, with a progress bar.

    Parameters
    ----------
    detectors, infos, axes
        As for :class:`PaceLogic`.
    name
        Name of the device.

    Attributes
    ----------
    late : SignalR of int
        Triggers since the preparation that came more than 10 ms late.
    """

    def __init__(
        self,
        detectors: Sequence[StandardDetector],
        infos: Sequence[TriggerInfo] | None = None,
        axes: Sequence[Any] = (),
        name: str = "pacer",
    ) -> None:
        self._logic = PaceLogic(detectors, infos, axes)
        self.late = self._logic.late
        super().__init__(name=name)  # pyright: ignore[reportUnknownMemberType]  # ophyd-async leaves the type open

    @cached_property
    def flyable_logic(self) -> PaceLogic:
        """How it triggers."""
        return self._logic

    def unstage(self) -> AsyncStatus[None]:
        """Trigger no more, and follow no axis any more."""
        # At once: a detector that is unstaged beside it must not be prepared again.
        self._logic.trigger_no_more()
        return super().unstage()

    @WatchableAsyncStatus.wrap
    async def complete(self) -> AsyncIterator[WatcherUpdate[int]]:
        """Wait for the last event of the timetable."""
        number = self._logic.number
        status = cast("WatchableAsyncStatus[Any]", super().complete())
        async for done in watch_signal(status, self._logic.done):
            yield WatcherUpdate(
                current=done, initial=0, target=number, name=self.name, unit="events"
            )
