"""Where an axis was at a given moment, from the updates of its readback."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, bisect_right
from typing import Any, Protocol

from ophyd_async.core import SignalR

from bluesky_beamtime.errors import DeviceError

QUIET = 0.5
"""Seconds without an update after which an axis is taken to be at rest."""

PATIENCE = 2.0
"""Seconds that a frame waits for the position of its axis."""

_KEPT = 200_000


class AxisTrack:
    """The readback of an axis while it moves, and its position at any moment of it.

    Between two updates the position is interpolated in a straight line. An axis that
    has not told anything for half a second is taken to be at rest where it was:
    control systems send changes only. The clock is the one that stamps the updates; the
    clock that stamps frames must agree with it.

    Parameters
    ----------
    name
        Name of the axis, the end of its data keys.
    signal
        The readback.

    Attributes
    ----------
    name : str
        As given.
    units : str or None
        Units of the position, known once it follows the signal.
    source : str
        Where positions come from.

    Notes
    -----
    :meth:`start` and :meth:`stop` belong to the event loop; the others to any thread.
    """

    def __init__(self, name: str, signal: SignalR[float]) -> None:
        if not name:
            raise DeviceError(
                "an axis needs a name for its positions: create its motor inside "
                "init_devices(), or with name=…"
            )
        self.name = name
        self.units: str | None = None
        self.source = signal.source
        self._signal = signal
        self._lock = threading.Lock()
        self._times: list[float] = []
        self._values: list[float] = []
        self._updated = self._arrived = 0.0
        self._resting = False
        self._following = False

    @property
    def following(self) -> bool:
        """Whether it follows the signal."""
        return self._following

    async def start(self) -> None:
        """Begin to follow the signal; nothing happens if it does already."""
        if not self._following:
            with self._lock:
                self._times.clear()
                self._values.clear()
            self._signal.subscribe_reading(self._moved)
            self._following = True
        described = next(iter((await self._signal.describe()).values()))
        self.units = described.get("units")
        self.source = described["source"]

    def stop(self) -> None:
        """Stop following; positions until now can still be asked for."""
        if self._following:
            self._following = False
            self._signal.clear_sub(self._moved)  # pyright: ignore[reportUnknownMemberType]  # ophyd-async leaves the type open
            self.note_rest()

    def _moved(self, reading: dict[str, Any]) -> None:
        (latest,) = reading.values()
        stamp, value = float(latest["timestamp"]), float(latest["value"])
        now = time.monotonic()
        with self._lock:
            # It may have been set hours ago, and is still true.
            age = 0.0 if self._times else max(0.0, time.time() - stamp)
            quiet = min(now - self._arrived, stamp - self._updated)
            if self._times and quiet >= QUIET:
                # It was where it was until shortly before it told of a movement.
                self._rested(quiet - QUIET / 2)
            self._add(stamp, value)
            self._updated, self._arrived = stamp, now - age
            self._resting = False

    def note_rest(self) -> None:
        """Note that the axis has not moved since its last update."""
        self._rest(0.0)

    def _rest(self, quiet: float) -> None:
        """Note that the axis is where it was, if it has been quiet for so long."""
        with self._lock:
            passed = time.monotonic() - self._arrived
            if self._times and passed >= quiet:
                self._rested(passed)

    def _rested(self, passed: float) -> None:
        # Only the latest moment of a rest is kept.
        if self._resting:
            self._times[-1] = max(self._times[-1], self._updated + passed)
        else:
            self._add(self._updated + passed, self._values[-1])
            self._resting = True

    def _add(self, stamp: float, value: float) -> None:
        if self._times and stamp < self._times[-1]:
            # The clock was set back, or a rest was noted too early.
            cut = bisect_right(self._times, stamp)
            del self._times[cut:], self._values[cut:]
        self._times.append(stamp)
        self._values.append(value)
        if len(self._times) > _KEPT:
            del self._times[: _KEPT // 2], self._values[: _KEPT // 2]

    @property
    def until(self) -> float:
        """The latest moment whose position is known; -inf if there is none."""
        if self.following:
            self._rest(QUIET)
        with self._lock:
            return self._times[-1] if self._times else -math.inf

    def at(self, moment: float) -> float:
        """Return the position at a moment, NaN where it is not known.

        Parameters
        ----------
        moment
            Seconds since 1970.
        """
        with self._lock:
            times, values = self._times, self._values
            if not times or not times[0] <= moment <= times[-1]:
                return math.nan
            after = bisect_left(times, moment)
            if times[after] == moment:
                return values[bisect_right(times, moment) - 1]
            t0, t1 = times[after - 1], times[after]
            x0, x1 = values[after - 1], values[after]
            return x0 + (x1 - x0) * (moment - t0) / (t1 - t0)


class FrameTrack(Protocol):
    """What is recorded beside each frame: where an axis was, or another number.

    Attributes
    ----------
    name : str
        The end of its data keys.
    units : str or None
        Units of the number.
    source : str
        Where it comes from.
    until : float
        The latest moment at which it is known, in seconds since 1970.
    """

    @property
    def name(self) -> str:
        """The end of its data keys."""
        ...

    @property
    def units(self) -> str | None:
        """Units of the number."""
        ...

    @property
    def source(self) -> str:
        """Where it comes from."""
        ...

    @property
    def until(self) -> float:
        """The latest moment at which it is known."""
        ...

    def at(self, moment: float) -> float:
        """Return the number at a moment, NaN where it is not known."""
        ...


class PendingPositions:
    """Frames that wait for the position of an axis, oldest first.

    Not thread-safe: its owner has a lock.

    Parameters
    ----------
    track
        The axis.

    Attributes
    ----------
    settled : int
        Frames whose position is known, or given up.
    """

    def __init__(self, track: FrameTrack) -> None:
        self.track = track
        self.settled = 0
        self._waiting: list[tuple[float, float]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, moment: float) -> None:
        """Let a frame wait that was taken at ``moment``."""
        self._waiting.append((moment, time.monotonic()))

    def take(self, *, all_of_them: bool = False) -> list[float]:
        """Return the positions that have become known, NaN for what is given up.

        Parameters
        ----------
        all_of_them
            Wait no longer: a frame newer than the last update has the last position,
            if that is not older than :data:`QUIET`.
        """
        until = self.track.until
        now = time.monotonic()
        found: list[float] = []
        for moment, since in self._waiting:
            given_up = all_of_them or now - since > PATIENCE
            if moment > until and not given_up:
                break
            if given_up and until < moment < until + QUIET:
                moment = until
            found.append(self.track.at(moment))
        del self._waiting[: len(found)]
        self.settled += len(found)
        return found
