"""Exposures one after another, on time."""

from __future__ import annotations

import time


class Pace:
    """Times exposures of a simulated camera.

    Exposures follow each other on time, so that a frame delivered a little late does
    not delay the next. One that is later than a whole exposure does: the camera was
    held back.

    Parameters
    ----------
    exposure
        In seconds.
    deadtime
        Seconds between exposures.
    """

    def __init__(self, exposure: float, deadtime: float = 0.0) -> None:
        self.exposure = exposure
        self.deadtime = deadtime
        self._next = self._ends = time.monotonic()
        # Looked up once: between two looks at two clocks a busy machine may pause.
        self._wall = -time.monotonic() + time.time()

    def begin(self) -> float:
        """Begin the next exposure; returns when it began, in seconds since 1970."""
        now = time.monotonic()
        late = now - self._next
        began = self._next if late < self.exposure else now
        self._ends = began + self.exposure
        self._next = self._ends + self.deadtime
        return self._wall + began

    def rest(self) -> float:
        """Return the seconds until the next exposure begins, 0 if it is time."""
        return max(0.0, self._next - time.monotonic())

    def remaining(self) -> float:
        """Return the seconds until it ends, 0 if it is over."""
        return max(0.0, self._ends - time.monotonic())
