"""One source of frames within a writer: what it declared and how far it is."""

from __future__ import annotations

import operator
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import CapacityError, FrameMismatchError, PathError
from bluesky_beamtime.storage.submission import SubmissionQueue

# How often somebody who waits for frames looks whether the queue needs a hand.
_PAUSE = 0.02


def frame_shape(source: str, shape: Any) -> tuple[int, ...]:
    """Return the shape of a frame as plain integers.

    Raises
    ------
    FrameMismatchError
        Not a sequence of integers, or a negative one.
    """
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = (-1,)
    if any(size < 0 for size in sizes):
        raise FrameMismatchError(source, "a tuple of sizes as shape", repr(shape))
    return sizes


@dataclass(eq=False)
class SourceInfo:
    """What a writer knows of one source.

    The counters are guarded by the source's own lock, which no other source shares.
    """

    name: str
    """Name of the source, which is that of its array."""
    data_key: str
    """Name in the event descriptor."""
    dtype: np.dtype[Any]
    """Dtype of a frame."""
    shape: tuple[int, ...]
    """Shape of a frame."""
    capacity: int = 0
    """Most frames that it takes, 0 for as many as come."""
    units: str | None = None
    """Units of the values."""
    dims: tuple[str, ...] | None = None
    """Names of a frame's dimensions."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Options of the format, such as its compression."""
    metadata: dict[str, Any] | None = None
    """Metadata of its device, None if there is none."""
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    """Attributes that were set before its array was there."""
    acquisition: int = 0
    """Number of the acquisition that it was prepared for."""
    created: bool = False
    """Whether its array exists in the open store."""
    store_uri: str = ""
    """URI of the store that holds its array; empty before that exists."""
    frames_written: int = 0
    """Frames that were acknowledged."""
    frames_published: int = 0
    """Frames that fresh readers saw when it was last published."""
    collection_counter: int = 0
    """Frames that StreamDatum documents have announced."""
    resource_sent: bool = False
    """Whether its StreamResource was handed out."""
    stream_resource_uid: str = field(default_factory=lambda: str(uuid4()))
    """Uid of its StreamResource."""
    completed: bool = False
    """Whether it is closed."""
    failure: BaseException | None = field(default=None, repr=False)
    """Why it could not be closed, until a further call could."""
    closing: bool = False
    """Whether it takes no more frames, though some may still be on their way."""
    frames_accepted: int = 0
    """Frames that were written or are on their way."""
    in_flight: int = 0
    """Frames that are on their way."""
    queue: SubmissionQueue | None = field(default=None, repr=False)
    """Frames on their way through worker threads, None before the first."""
    lock: threading.Condition = field(default_factory=threading.Condition, repr=False)
    """Guards the counters and flags; never held while the disk works."""
    turn: threading.RLock = field(default_factory=threading.RLock, repr=False)
    """Held by the one thread that is writing. The lock may be taken within it, not the
    other way round."""

    @property
    def promised(self) -> str:
        """What its frames look like, in words."""
        return f"{self.dtype} {self.shape}"

    def check_frame(self, frame: Any) -> NDArray[Any]:
        """Return the frame as an array if it is what the source declared.

        Raises
        ------
        FrameMismatchError
            Another dtype or shape. Plain Python numbers are taken for frames without
            dimensions, when they fit.
        """
        if type(frame) is not np.ndarray:
            frame = self._as_array(frame)
        if frame.dtype != self.dtype or frame.shape != self.shape:
            raise FrameMismatchError(
                self.name, self.promised, f"{frame.dtype} {frame.shape}"
            )
        return frame

    def _as_array(self, frame: Any) -> NDArray[Any]:
        if self.shape == () and isinstance(frame, (bool, int, float, complex)):
            try:
                number = np.array(frame, self.dtype)
            except (OverflowError, TypeError, ValueError):
                number = None
            if number is not None and (number == frame or frame != frame):
                return number
            raise FrameMismatchError(self.name, self.promised, repr(frame))
        array = np.asarray(frame)
        native = self.dtype.newbyteorder("=")
        if isinstance(frame, np.generic) and array.dtype == native:
            # The scalars of NumPy have no byte order of their own.
            return array.astype(self.dtype)
        return array

    def check_block(self, frames: NDArray[Any]) -> None:
        """Raise :class:`FrameMismatchError` unless ``frames`` are as declared."""
        if frames.dtype != self.dtype or frames.shape[1:] != self.shape:
            raise FrameMismatchError(
                self.name, self.promised, f"{frames.dtype} {frames.shape[1:]}"
            )

    def drain_queue(self) -> None:
        """Wait until every submitted frame is written or has failed."""
        if self.queue is not None:
            self.queue.drain()

    def drain(self) -> None:
        """Wait until every frame on its way is written or has failed."""
        while True:
            # By a thread that the queue may need to get on.
            self.drain_queue()
            with self.lock:
                # A frame that was accepted may not be in the queue yet.
                if self.lock.wait_for(lambda: not self.in_flight, _PAUSE):
                    return

    def settle(self, accepted: int, written: int) -> None:
        """Take frames off their way, some of which were not written after all."""
        with self.lock:
            self.in_flight -= accepted
            self.frames_accepted -= accepted - written
            if not self.in_flight:
                self.lock.notify_all()

    def accept(self, count: int) -> None:
        """Count ``count`` frames in; the lock is held.

        Raises
        ------
        CapacityError
            They are too many.
        """
        if self.capacity and self.frames_accepted + count > self.capacity:
            raise CapacityError(
                f"source {self.name!r} has taken {self.frames_accepted} of "
                f"{self.capacity} frames, {count} more do not fit; nothing was "
                "written. Prepare it with a larger capacity, or 0 for as many as come"
            )
        self.frames_accepted += count
        self.in_flight += count


def declared_source(
    name: str,
    data_key: str | None,
    dtype: Any,
    shape: Any,
    capacity: int | None,
    units: str | None,
    dims: Any,
    options: Mapping[str, Any],
) -> SourceInfo:
    """Return a source as it was declared, after looking at every word of it.

    Raises
    ------
    PathError
        No name.
    FrameMismatchError
        A shape that is none.
    CapacityError
        A negative capacity.
    """
    if not isinstance(name, str) or not name:
        raise PathError(f"a source needs a name, got {name!r}")
    if dtype is None or shape is None:
        raise TypeError(f"source {name!r} needs the dtype and shape of its frames")
    sizes = frame_shape(name, shape)
    if capacity is not None and capacity < 0:
        raise CapacityError(
            f"source {name!r}: capacity must be 0 (no limit) or more, got {capacity}"
        )
    if dims is not None and (
        len(dims) != len(sizes) or not all(isinstance(dim, str) for dim in dims)
    ):
        raise ValueError(
            f"source {name!r}: dims must name {len(sizes)} dimensions, got {dims!r}"
        )
    return SourceInfo(
        name=name,
        data_key=name if data_key is None else data_key,
        dtype=np.dtype(dtype),
        shape=sizes,
        capacity=capacity or 0,
        units=units,
        dims=None if dims is None else tuple(dims),
        options=dict(options),
    )
