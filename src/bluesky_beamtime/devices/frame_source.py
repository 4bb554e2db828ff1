"""What a camera's own software has to offer, and what it delivers to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from inspect import getattr_static
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FrameStamp:
    """What a frame source knows about one frame."""

    id: int | None = None
    """The source's own number of the frame, rising by one per frame; a gap is counted
    as frames that were dropped. None if it has none: frames are then numbered as they
    come."""
    time: float | None = None
    """When the exposure began, in seconds since 1970; None for the time of arrival."""
    lost: int = 0
    """Frames lost just before this one that the id cannot show, such as the first of an
    acquisition."""
    time_ns: int | None = None
    """The same as :attr:`time`, in nanoseconds since 1970 and exact; either will do."""
    anew: bool = False
    """Whether the source has begun to count anew with this one, as after a restart: its
    id tells nothing about those before."""

    @property
    def seconds(self) -> float | None:
        """When the exposure began, whichever way it was told."""
        if self.time is None and self.time_ns is not None:
            return self.time_ns / 1e9
        return self.time


@runtime_checkable
class FrameReceiver(Protocol):
    """What a frame source delivers to."""

    def frame(self, array: NDArray[Any], stamp: FrameStamp | None = None) -> None:
        """Take one frame.

        May be called from any thread; frames are stored in the order of the calls. The
        array's memory may be used again when this returns. Blocks until the frame would
        survive the death of the process, so that a source that delivers faster than the
        disk takes is held back here.

        Raises
        ------
        BeamtimeError
            The frame was not stored, and the plan fails with this error: deliver no
            more. Frames after the end of the acquisition are counted as late and
            discarded without an error.
        """
        ...

    def fail(self, error: BaseException) -> None:
        """Fail the plan with ``error``; from any thread. Deliver no more after it."""
        ...

    def ended(self, lost: int = 0) -> None:
        """Say that no more comes, for a source that cannot deliver all of them.

        From any thread. Ends an acquisition of a given number at once, with
        :class:`~bluesky_beamtime.errors.DroppedFramesError`, instead of after its
        timeout; nothing happens if all have come.

        Parameters
        ----------
        lost
            Frames lost after the last one that was delivered.
        """
        ...


@runtime_checkable
class FrameSource(Protocol):
    """What :class:`Camera` needs of a camera's own software.

    The coroutines are awaited in the event loop of the device, one at a time: what
    blocks goes into a thread. ``start`` and ``stop`` come in pairs, also when the
    acquisition ends by itself, and ``stop`` may come alone.

    A source raises from ``configure`` and ``start`` what goes wrong there; what goes
    wrong later goes to :meth:`FrameReceiver.fail`. Both reach the plan.

    What else it may declare: an attribute ``axes``, a
    :class:`~bluesky_beamtime.devices.FrameAxis` for each axis of a frame that is no
    pixel, and triggers, see :class:`~bluesky_beamtime.devices.TriggeredSource`.

    Attributes
    ----------
    shape : tuple of int
        Shape of the frames to come, row-major: ``(height, width)``.
    dtype : numpy.dtype
        Their dtype. Both are read after ``configure`` and hold until the camera is
        prepared again.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames to come."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the frames to come."""
        ...

    async def configure(self, exposure: float | None) -> None:
        """Use this exposure from the next start on, in seconds; None keeps it.

        Called for every preparation and whenever the exposure is set.

        Raises
        ------
        ValueError
            The camera cannot expose like this.
        """
        ...

    async def start(self, number: int, receiver: FrameReceiver) -> None:
        """Begin to take frames, and return without waiting for them.

        Parameters
        ----------
        number
            Deliver exactly so many, then rest; 0: until :meth:`stop`.
        receiver
            Deliver them here.
        """
        ...

    async def stop(self) -> None:
        """Take no more frames, and return when nothing will be delivered any more.

        May be called at any time and again.
        """
        ...


def check_parts(frames: Any, source: Any) -> None:
    """Raise a TypeError for what cannot work, before a scan finds out."""
    if not hasattr(frames, "attach"):
        raise TypeError(
            f"a camera needs a FrameStore, such as beamtime.frames, not {frames!r}"
        )
    # Looked up without running properties: a source may need to be connected first.
    parts = ("shape", "dtype", "configure", "start", "stop")
    missing = [part for part in parts if getattr_static(source, part, None) is None]
    if missing:
        raise TypeError(f"{source!r} is no FrameSource: it lacks {', '.join(missing)}")


def check_exposure(exposure: float) -> float:
    """Return an exposure in seconds if it is one.

    Raises
    ------
    ValueError
        It is not a positive number.
    """
    if not (math.isfinite(exposure) and exposure > 0):
        raise ValueError(
            f"an exposure is a positive number of seconds, not {exposure!r}"
        )
    return exposure
