"""A reserved scan: its buffer, who knows its axes, and when it is saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bluesky_beamtime.storage.scan_buffer import ScanBuffer
from bluesky_beamtime.storage.scan_values import Axes, check_axes

AxesOf = Sequence[Any] | Callable[[], Sequence[Any] | None] | None
"""Coordinates of each axis, or what is asked for them when the scan is saved."""


@dataclass(frozen=True, eq=False)
class Reservation:
    """One scan that is reserved, and takes points.

    Attributes
    ----------
    buffer : ScanBuffer
        What is filled.
    axes_of : sequence, callable or None
        What :meth:`ask_axes` asks.
    autosave : bool
        Whether it is saved as soon as all points are there.
    """

    buffer: ScanBuffer
    axes_of: AxesOf
    autosave: bool

    def ask_axes(self) -> tuple[Axes | None, Exception | None]:
        """Return the axes that somebody else knows, or why they are of no use.

        Not to be called under a lock: what it calls is foreign, and may take its time.

        Returns
        -------
        tuple of (list of numpy.ndarray or None, Exception or None)
            None for those that the buffer has.
        """
        if not callable(self.axes_of):
            return None, None
        try:
            axes = self.axes_of()
            known = None if axes is None else check_axes(axes, self.buffer.shape)
        except Exception as error:
            return None, error
        return known, None
