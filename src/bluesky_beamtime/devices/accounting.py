"""What became of the frames that were asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FrameAccount:
    """What became of the exposures that were asked for, summed over acquisitions."""

    expected: int = 0
    """Exposures asked for; of an acquisition until stopped, those that came."""
    received: int = 0
    """Exposures that arrived in time."""
    dropped: int = 0
    """Exposures that the source took and lost on the way, by gaps in their ids."""
    late: int = 0
    """Exposures that arrived when their acquisition was over; they are not stored."""

    def counters(self) -> dict[str, int]:
        """Return the counters as they are stored with the frames."""
        return dict(vars(self))
