"""Axes whose positions cameras record beside their frames."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

from ophyd_async.core import SignalR, StandardDetector

from bluesky_beamtime.devices.data_logic import FrameDataLogic
from bluesky_beamtime.devices.positions import AxisTrack


@runtime_checkable
class HasReadback(Protocol):
    """A motor of ophyd-async."""

    user_readback: SignalR[float]

    @property
    def name(self) -> str:
        """Name of the motor."""
        ...


class FollowedAxes:
    """Lets detectors record where axes are at each of their frames.

    Parameters
    ----------
    detectors
        Those that stream into a :class:`~bluesky_beamtime.storage.FrameStore` record
        the positions; others are left as they are.
    axes
        Motors of ophyd-async, or signals of a position.
    """

    def __init__(
        self, detectors: Sequence[StandardDetector], axes: Sequence[Any]
    ) -> None:
        self._logics = [
            logic for detector in detectors for logic in FrameDataLogic.of(detector)
        ]
        self._axes = list(axes)
        self._tracks: list[AxisTrack] = []

    async def start(self) -> None:
        """Follow the axes, from the detectors' next preparation on."""
        if not self._tracks:
            self._tracks = [AxisTrack(*_axis(axis)) for axis in self._axes]
        tracks = self._tracks
        try:
            await asyncio.gather(*(track.start() for track in tracks))
        finally:
            # It may have been stopped meanwhile.
            if self._tracks is not tracks:
                for track in tracks:
                    track.stop()
        for logic in self._logics:
            logic.follow(self._tracks)

    def note_rest(self) -> None:
        """Note that the first axis has not moved since it has told where it is."""
        if self._tracks:
            self._tracks[0].note_rest()

    def stop(self) -> None:
        """Follow them no more; frames that were taken keep their positions."""
        for logic in self._logics:
            if logic.tracks == tuple(self._tracks):
                logic.follow(())
        for track in self._tracks:
            track.stop()
        self._tracks = []


def _axis(axis: Any) -> tuple[str, SignalR[float]]:
    if isinstance(axis, HasReadback):
        return axis.name, axis.user_readback
    if isinstance(axis, SignalR):
        signal = cast("SignalR[float]", axis)
        return signal.name, signal
    raise TypeError(f"{axis!r} tells no position: give a motor or a readable signal")
