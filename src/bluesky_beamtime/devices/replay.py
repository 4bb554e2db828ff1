"""Frames of last beamtime, as from a camera."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ophyd_async.core import soft_signal_r_and_setter

from bluesky_beamtime.devices.camera import Camera, FrameReceiver, FrameStamp
from bluesky_beamtime.devices.pace import Pace
from bluesky_beamtime.devices.recordings import Recording, open_recording
from bluesky_beamtime.devices.threads import AcquisitionThread
from bluesky_beamtime.errors import SourceError
from bluesky_beamtime.storage import FrameStore


class ReplaySource:
    """Frames that were recorded before, one for each exposure; a frame source.

    An acquisition goes on where the one before has stopped.

    Parameters
    ----------
    recording
        The frames.
    rate
        Frames per second; None for one per exposure.
    loop
        Whether to begin again after the last one.
    """

    def __init__(
        self, recording: Recording, rate: float | None = None, loop: bool = False
    ) -> None:
        if rate is not None and not rate > 0:
            raise ValueError(
                f"a rate is a positive number of frames per second, not {rate!r}; "
                "leave it out for one per exposure"
            )
        self.recording = recording
        self._rate = rate
        self._loop = loop
        self._exposure = 0.1
        self._frames: Iterator[NDArray[Any]] | None = None
        self._waiting: NDArray[Any] | None = None
        self._position = 0
        self._thread: AcquisitionThread | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames."""
        return self.recording.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the frames."""
        return self.recording.dtype

    @property
    def position(self) -> int:
        """Number of the frame that comes next, counted from 0 in the recording."""
        return self._position

    def rewind(self) -> None:
        """Let the next acquisition begin with the first frame."""
        self._frames = self._waiting = None
        self._position = 0

    async def configure(self, exposure: float | None) -> None:
        """Use this exposure from the next start on."""
        if exposure is not None:
            self._exposure = exposure

    async def start(self, number: int, receiver: FrameReceiver) -> None:
        """Begin to deliver frames."""
        await self.stop()
        period = self._exposure if self._rate is None else 1 / self._rate

        def acquire(stopping: threading.Event) -> None:
            pace = Pace(period)
            taken = 0
            while not (number and taken == number):
                began = pace.begin()
                frame = self._next()
                if frame is None:
                    if number:
                        raise self._at_end(taken, number)
                    receiver.ended()
                    return
                # At an unlimited rate there is nothing to wait for.
                if stopping.wait(pace.remaining()) or stopping.is_set():
                    return
                stamp = FrameStamp(
                    id=self._position, time=began, anew=self._position == 0 < taken
                )
                # Taken before it is delivered: one that is refused is not sent again.
                self._waiting = None
                self._position += 1
                taken += 1
                receiver.frame(frame, stamp)

        self._thread = AcquisitionThread("replay", acquire, receiver)

    async def stop(self) -> None:
        """Deliver no more; the frame that was not delivered is the next."""
        if self._thread is not None:
            await self._thread.stop()
            self._thread = None

    def _next(self) -> NDArray[Any] | None:
        """Return the frame at the position; None at the end."""
        if self._waiting is None:
            self._waiting = self._read()
            if self._waiting is None and self._loop and self._position:
                self.rewind()
                self._waiting = self._read()
        return self._waiting

    def _read(self) -> NDArray[Any] | None:
        if self._frames is None:
            self._frames = self.recording.frames()
        return next(self._frames, None)

    def _at_end(self, taken: int, number: int) -> SourceError:
        return SourceError(
            f"all {self._position} frames of {self.recording.name!r} are replayed, and "
            f"this acquisition got {taken} of {number}; rewind() the camera, ask for "
            "fewer frames, or make it with loop=True"
        )

    def __repr__(self) -> str:
        return f"<ReplaySource {self.recording.name!r}>"


class ReplayCamera(Camera):
    """A camera that shows what was recorded before, for a dry run of a beamtime.

    An acquisition goes on where the one before has stopped; at the end of the recording
    it fails, after the frames that were left. Each frame's number in the recording is
    its ``<name>_id``; its time is that of the replay. Frames are read as they are
    needed, so that a recording may be larger than the memory.

    ======================  ============================================================
    recording               ``path``
    ======================  ============================================================
    TIFF                    a folder, by the numbers in the names; or a file of many
                            pages. Needs the extra ``tiff``
    HDF5                    ``run.h5:/entry/data/data``, or the file if there is one
                            dataset with three axes. Needs the extra ``hdf5``
    Zarr                    ``store.zarr:cam1``, or the store or array itself
    NumPy                   an ``.npy`` file; ``frames.npz:name``, or the file if it has
                            one array
    of this package         the folder of a scan's frames, ``….zarr/…/scan_00012``, with
                            ``:cam1`` if there are several cameras
    anything with slices    such as ``run.primary.read()["cam1"]``; the first axis
                            counts frames
    ======================  ============================================================

    Parameters
    ----------
    frames
        Store for the frames.
    path
        What to replay; see the table.
    rate
        Frames per second, ``math.inf`` for as many as can be stored; None for one
        per exposure, as a camera would take them.
    loop
        Whether to begin again after the last frame.
    exposure
        Exposure to begin with, in seconds. With a ``rate`` it is only recorded.
    name
        Name of the device and of its data key.

    Attributes
    ----------
    path : SignalR of str
        What is replayed, in ``read_configuration`` too.

    Raises
    ------
    SourceError
        There are no frames at the path.
    MissingExtraError
        The package that reads them is absent.
    """

    source: ReplaySource

    def __init__(
        self,
        frames: FrameStore,
        path: Any,
        *,
        rate: float | None = None,
        loop: bool = False,
        exposure: float = 0.1,
        name: str = "",
    ) -> None:
        recording = open_recording(path)
        shown, _ = soft_signal_r_and_setter(str, recording.name)
        speed, _ = soft_signal_r_and_setter(
            float, math.nan if rate is None else float(rate), units="Hz"
        )
        super().__init__(
            frames,
            source=ReplaySource(recording, rate, loop),
            exposure=exposure,
            config_signals={"path": shown, "rate": speed},
            hardware=f"replay://{os.path.basename(recording.name)}",
            name=name,
        )

    def rewind(self) -> None:
        """Let the next acquisition begin with the first frame."""
        self.source.rewind()
