"""Exposures one after another, on time."""

from __future__ import annotations

import time


class Pace:
    """Times exposures of a simulated camera.

    Exposures follow each other without a gap, so that a frame delivered a little late
    does not delay the next. One that is later than a whole exposure does: the camera
    was held back.

    Parameters
    ----------
    exposure
        In seconds.
    """

    def __init__(self, exposure: float) -> None:
        self.exposure = exposure
        self._ends = time.monotonic()

    def begin(self) -> float:
        """Begin the next exposure; returns when it began, in seconds since 1970."""
        now = time.monotonic()
        late = now - self._ends
        began = self._ends if late < self.exposure else now
        self._ends = began + self.exposure
        return time.time() - (now - began)

    def remaining(self) -> float:
        """Return the seconds until it ends, 0 if it is over."""
        return max(0.0, self._ends - time.monotonic())
