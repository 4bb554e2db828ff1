"""A frame store as the place where an ophyd-async detector puts its data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ophyd_async.core import (
    DetectorDataLogic,
    StandardDetector,
    StreamableDataProvider,
)

from bluesky_beamtime.devices.accounting import FrameSignals
from bluesky_beamtime.devices.data_provider import FrameDataProvider
from bluesky_beamtime.devices.frame_form import FrameAxis, FrameForm
from bluesky_beamtime.devices.positions import AxisTrack, FrameTrack
from bluesky_beamtime.errors import DeviceError
from bluesky_beamtime.storage import Footprint, FrameStore


class FrameDataLogic(DetectorDataLogic):
    """Streams the frames of one detector into a store that others share.

    Each detector has a logic of its own and all of them one store. Preparing attaches
    sinks for ``<key>``, ``<key>_time`` and ``<key>_id``; stopping detaches these and no
    others. The first to attach opens the store, the last to detach closes it, and a
    detector may join while another writes.

    Parameters
    ----------
    frames
        The store.
    shape, dtype
        Return the shape and dtype of a frame; asked at each preparation, after the
        trigger logic's.
    source
        Returns what stands as ``source`` in the data keys, given the key; by default
        ``camera://<key>``.
    units
        Units of the frames, or a function that returns them.
    signals
        Signals that shall follow what becomes of the frames.
    axes
        Returns what stands along the axes of a frame; asked with the shape. Without it
        they are ``y`` and ``x``, pixels.
    metadata
        Returns what stands as ``metadata`` in the array's attributes.
    exact_times
        Whether to keep the time of each frame in nanoseconds too, as ``<key>_t0``.

    Attributes
    ----------
    numbers : callable
        Returns what the detector itself records beside each frame, such as the
        attributes of an areaDetector's frames; asked with the shape. None by default.
    """

    def __init__(
        self,
        frames: FrameStore,
        shape: Callable[[], tuple[int, ...]],
        dtype: Callable[[], np.dtype[Any]],
        *,
        source: Callable[[str], str] | None = None,
        units: Callable[[], str | None] | str | None = None,
        signals: FrameSignals | None = None,
        axes: Callable[[], Sequence[FrameAxis]] = tuple,
        metadata: Callable[[], Mapping[str, Any]] = dict,
        exact_times: bool = False,
    ) -> None:
        self.frames = frames
        self._shape = shape
        self._dtype = dtype
        self._source = source or "camera://{}".format
        self._units = units
        self._signals = signals
        self._frame_axes = axes
        self._metadata = metadata
        self._exact_times = exact_times
        self._tracks: tuple[AxisTrack, ...] = ()
        self.numbers: Callable[[], Sequence[FrameTrack]] = tuple
        self._provider: FrameDataProvider | None = None

    @property
    def provider(self) -> FrameDataProvider | None:
        """What the last preparation made; it may be closed."""
        return self._provider

    def writing(self) -> FrameDataProvider:
        """Return the provider that takes frames now.

        Raises
        ------
        DeviceError
            There is none.
        """
        provider = self._provider
        if provider is None or provider.closed:
            raise DeviceError(
                "no frames can be taken before the detector is prepared; "
                "run it from a plan, or stage() and prepare() it"
            )
        return provider

    async def prepare_unbounded(self, datakey_name: str) -> StreamableDataProvider:
        """Attach to the store.

        Raises
        ------
        StoreWriteError, StoreStateError
            The store cannot be opened.
        """
        await self.stop()
        self._provider = FrameDataProvider(
            self.frames,
            datakey_name,
            form=self._form(),
            source=self._source(datakey_name),
            tracks=(*self.numbers(), *self._tracks),
            signals=self._signals,
        )
        return self._provider

    @classmethod
    def of(cls, detector: StandardDetector) -> list[FrameDataLogic]:
        """Return those of a detector; none if it keeps its frames elsewhere."""
        logics: Sequence[Any] = detector._data_logics  # pyright: ignore[reportPrivateUsage]  # ophyd-async has no other way
        return [logic for logic in logics if isinstance(logic, cls)]

    @property
    def tracks(self) -> tuple[AxisTrack, ...]:
        """Axes whose position at each frame is recorded beside it."""
        return self._tracks

    def follow(self, tracks: Sequence[AxisTrack]) -> None:
        """Record the position of these axes at each frame, from the next preparation.

        The detector is to attach to the store anew if they are others than before, see
        :attr:`outdated`.

        Parameters
        ----------
        tracks
            The axes; none to record frames alone.
        """
        self._tracks = tuple(tracks)

    @property
    def outdated(self) -> bool:
        """Whether what the last preparation opened does not fit what is to come.

        A frame source may have been set to a region of another size since, or other
        axes are to be recorded.
        """
        provider = self._provider
        if provider is None or provider.closed:
            return False
        tracks = (*self.numbers(), *self._tracks)
        return provider.tracks != tracks or provider.form != self._form()

    def _form(self) -> FrameForm:
        return FrameForm(
            self._shape(),
            np.dtype(self._dtype()),
            self._units() if callable(self._units) else self._units,
            tuple(self._frame_axes()),
            self._metadata(),
            self._exact_times,
        )

    def footprint(self, datakey_name: str) -> list[Footprint]:
        """Return what each frame is going to take, and where; none if it is not known.

        Before the first preparation a source may not know the shape of its frames.
        """
        try:
            shape, dtype = self._shape(), np.dtype(self._dtype())
        except Exception:
            return []
        beside = {"time": "<f8", "id": "<u8"}
        if self._exact_times:
            beside["t0"] = "<i8"
        return [
            self.frames.footprint(datakey_name, dtype, shape),
            *(
                self.frames.footprint(f"{datakey_name}_{name}", np.dtype(kind), ())
                for name, kind in beside.items()
            ),
        ]

    def get_hinted_fields(self, datakey_name: str) -> Sequence[str]:
        """Return the key of the frames."""
        return [datakey_name]

    async def stop(self) -> None:
        """Close this detector's sinks; may be called again, also at the same time."""
        if self._provider is not None:
            # A frame may be on its way to a slow disk; closing waits for it.
            await asyncio.to_thread(self._provider.close)
