"""What a detector is going to put on the disk, said before it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from bluesky_beamtime.storage.space import frames_size


@dataclass(frozen=True, slots=True)
class Footprint:
    """An array that grows by one row for each frame of a detector."""

    key: str
    """Its data key."""
    dtype: Any
    """Dtype of a row."""
    shape: tuple[int, ...]
    """Shape of a row."""
    folder: str | None = None
    """Folder below which it is going to lie; None if that is not known yet."""
    compressed: bool = False
    """Whether it may take less than its pixels do."""
    rows_per_event: int = 1
    """Rows of an event, unless the detector is prepared otherwise."""

    def size(self, rows: int) -> int:
        """Return the bytes that so many rows take, before compression."""
        return frames_size(rows, self.dtype, self.shape)


@runtime_checkable
class HasFootprint(Protocol):
    """A detector that can say what a frame takes before it is prepared.

    Others are asked to describe themselves, which most can only do when the first
    frame is about to be taken.
    """

    def footprint(self) -> list[Footprint]:
        """Return the arrays that grow with each frame; none if it cannot tell yet.

        Called from the event loop before a scan begins; quick, and without an effect on
        the detector.
        """
        ...
