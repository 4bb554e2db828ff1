"""What a plan says of the frames to come, before a device is prepared."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from bluesky_beamtime.errors import CapacityError


@dataclass(frozen=True, slots=True)
class PrepareInfo:
    """How many frames a device is to write in the acquisition that begins.

    Parameters
    ----------
    capacity
        Most frames that its sink takes; 0 leaves it to the device.
    write_forever
        Go on until the plan stops it, without a number.

    Raises
    ------
    CapacityError
        A negative or broken number, or a number together with ``write_forever``.
    """

    capacity: int = 0
    write_forever: bool = False

    def __post_init__(self) -> None:
        try:
            count = operator.index(self.capacity)
        except TypeError:
            count = -1
        if count < 0:
            raise CapacityError(
                f"capacity is a number of frames, 0 or more, got {self.capacity!r}"
            )
        if count and self.write_forever:
            raise CapacityError(
                f"a device cannot both stop after {count} frames and write forever; "
                "give one of them"
            )
