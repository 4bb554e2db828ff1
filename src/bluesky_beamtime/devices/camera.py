"""Cameras for Bluesky plans: bring a frame source, get a detector."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bluesky.protocols import StreamAsset
from event_model import DataKey
from ophyd_async.core import (
    DEFAULT_TIMEOUT,
    AsyncStatus,
    DetectorTrigger,
    Settings,
    SignalR,
    SignalRW,
    StandardDetector,
    TriggerInfo,
    WatchableAsyncStatus,
    WatcherUpdate,
    soft_signal_rw,
)

from bluesky_beamtime.devices.accounting import FrameSignals
from bluesky_beamtime.devices.camera_logic import CameraAcquireLogic, CameraTriggerLogic
from bluesky_beamtime.devices.data_logic import FrameDataLogic
from bluesky_beamtime.devices.frame_form import FrameAxis
from bluesky_beamtime.devices.frame_source import FrameReceiver as FrameReceiver
from bluesky_beamtime.devices.frame_source import FrameSource as FrameSource
from bluesky_beamtime.devices.frame_source import FrameStamp as FrameStamp
from bluesky_beamtime.devices.frame_source import check_exposure as check_exposure
from bluesky_beamtime.devices.frame_source import check_parts
from bluesky_beamtime.devices.watching import task_of, watch
from bluesky_beamtime.errors import DeviceError
from bluesky_beamtime.storage import Footprint, FrameStore


class Camera(StandardDetector):
    """A detector that streams frames into a store which it shares with others.

    Works in step scans (``trigger``), and in fly scans (``prepare``, ``kickoff``,
    ``complete``, ``collect``). Each frame's time and id are streamed beside it, as
    ``<name>_time`` and ``<name>_id``.

    ================================  ==================================================
    of ``TriggerInfo``
    ================================  ==================================================
    ``trigger``                       one of the source's, ``INTERNAL`` by default
    ``livetime``                      exposure in seconds, 0 keeps what is set
    ``deadtime``                      seconds between exposures, 0: as few as possible
    ``exposures_per_collection``      so many exposures are averaged into one frame
    ``collections_per_event``         frames of one event, its value's leading axis
    ``number_of_events``              0: until ``complete``, which stops the camera
    ``exposure_timeout``              time for one frame; default: its exposures + 10 s
    ================================  ==================================================

    What goes wrong in the source or in the store fails the status that the plan waits
    for, or the next one it asks for, with the original exception. Without staging the
    camera goes on in the store it has, or opens a new one if that is closed, or if its
    frames have another shape or dtype than before.

    With an external trigger the source starts when it is prepared, and waits for
    pulses. Frames that come before the ``kickoff`` or ``trigger`` belong to it.

    Parameters
    ----------
    frames
        Store for the frames.
    source
        Where they come from.
    exposure
        Exposure to begin with, in seconds; or a signal that holds and sets it; or None
        if the camera's exposure is not set from here, and then it has no ``exposure``.
    units
        Units of the pixels.
    config_signals
        More signals for ``read_configuration``. Given by name, such as
        ``{"gain": gain}``, they become parts of the camera: ``camera.gain``.
    hardware
        What stands as ``source`` in the data keys; by default ``camera://<name>``.
    fail_on_drop
        Whether a frame that the source lost fails the plan, with
        :class:`~bluesky_beamtime.errors.DroppedFramesError`; what arrived is kept.
    default_trigger_info
        What a plan gets that triggers without preparing, such as ``count``; by default
        one exposure as it is set.
    name
        Name of the device and of its data key.

    Attributes
    ----------
    source : FrameSource
        The frame source.
    exposure : SignalRW
        The exposure in seconds, in ``read_configuration`` too.
    accounting : FrameSignals
        What became of the frames, as signals.
    fail_on_drop : SignalRW of bool
        As above, for the acquisitions to come.
    """

    def __init__(
        self,
        frames: FrameStore,
        *,
        source: FrameSource,
        exposure: float | SignalRW[float] | None = 0.1,
        units: str | None = None,
        config_signals: Sequence[SignalR[Any]] | Mapping[str, SignalR[Any]] = (),
        hardware: str | None = None,
        fail_on_drop: bool = False,
        default_trigger_info: TriggerInfo | None = None,
        name: str = "",
    ) -> None:
        check_parts(frames, source)
        self.source = source
        # Assigned once: ophyd-async decides at the first value whether it is a child.
        self.exposure: SignalRW[float] | None = (
            soft_signal_rw(
                float, check_exposure(exposure), units="s", setter=self._set_exposure
            )
            if isinstance(exposure, (int, float))
            else exposure
        )
        self.accounting = FrameSignals()
        self.fail_on_drop = soft_signal_rw(bool, fail_on_drop)
        self._data = FrameDataLogic(
            frames,
            lambda: source.shape,
            lambda: source.dtype,
            source=lambda key: hardware or f"{self.kind}://{key}",
            units=lambda: self.frame_units() or units,
            signals=self.accounting,
            axes=self.frame_axes,
            metadata=self.frame_metadata,
            exact_times=self.exact_times,
        )
        # A trigger that is repeated after a pause may meet the first one at work.
        self._turn = asyncio.Lock()
        self._default = default_trigger_info
        self._setup = CameraTriggerLogic(source, self.exposure, default_trigger_info)
        self._setup.was_set_up = self._renew
        self._acquire = CameraAcquireLogic(source, self._data, lambda: self.name)
        self._acquire.exposure = self._setup.exposure
        self._acquire.fail_on_drop = self.fail_on_drop.get_value
        self.add_detector_logics(self._setup, self._acquire, self._data)
        if isinstance(config_signals, Mapping):
            self._adopt(config_signals)
            config_signals = list(config_signals.values())
        self.add_config_signals(*config_signals)  # pyright: ignore[reportUnknownMemberType]  # ophyd-async leaves the type open
        super().__init__(name=name)

    async def _set_exposure(self, exposure: float | None) -> None:
        if exposure is not None:
            exposure = float(check_exposure(exposure))
        await self.source.configure(exposure)
        self._setup.source_knows_exposure = True

    kind = "camera"
    """Stands before the name as ``source`` of the data keys, unless given."""

    exact_times = False
    """Whether ``<name>_t0``, the time in nanoseconds, is streamed beside each frame."""

    def frame_axes(self) -> Sequence[FrameAxis]:
        """Return what stands along the axes of the frames to come: the source's axes.

        By default a source has none, and the axes are ``y`` and ``x`` in pixels.
        """
        return getattr(self.source, "axes", ())

    def frame_metadata(self) -> dict[str, Any]:
        """Return what is stored in the array's attributes, as ``metadata``."""
        return {}

    def frame_units(self) -> str | None:
        """Return the units of the frames to come; None for those given."""
        return None

    def _adopt(self, signals: Mapping[str, SignalR[Any]]) -> None:
        """Make signals parts of the camera, under their names."""
        for name, signal in signals.items():
            if not name.isidentifier() or hasattr(self, name):
                raise ValueError(
                    f"a camera's signal cannot be called {name!r}: the camera has "
                    "that already, or it is no name in Python; choose another"
                )
            setattr(self, name, signal)

    async def _renew(self) -> None:
        """Attach to the store anew if the frames to come do not fit what is open."""
        if self._data.outdated:
            await self._data.stop()
            self._prepare_ctx = None
            self._kickoff_ctx = None

    async def get_trigger_deadtime(
        self, settings: Settings[Any] | None = None
    ) -> tuple[set[DetectorTrigger], float | None]:
        """Return the triggers of the source, and seconds it needs between exposures.

        Parameters
        ----------
        settings
            Not used: the source tells its deadtime at the exposure that is set.
        """
        triggers = self._setup.triggers
        return triggers.supported, triggers.deadtime

    # ------------------------------------------------------------------ staging

    @AsyncStatus.wrap
    async def stage(self) -> None:
        """Stop the camera; its next preparation attaches to the store anew."""
        async with self._turn:
            await self._acquire.ensure_stopped()
            await super().stage()
            self._acquire.reception = None

    @AsyncStatus.wrap
    async def unstage(self) -> None:
        """Stop the camera, then close its sinks.

        Raises
        ------
        BeamtimeError
            What the acquisition failed with, if nobody was told before.
        """
        async with self._turn:
            # One after the other: a sink that closes first refuses the last frame.
            try:
                await self._acquire.ensure_stopped()
            finally:
                await super().unstage()
        self._acquire.raise_untold()

    async def _settle(self) -> int | None:
        """End what an earlier call has begun, so that another acquisition may begin.

        What waits for external triggers goes on, for whoever asks for its events.
        Returns how many rows there were when it began to, else None.
        """
        if self._acquire.armed_at is not None:
            self._acquire.raise_untold()
            return self._acquire.armed_at
        await self._acquire.ensure_stopped()
        self._acquire.raise_untold()
        if self._data.outdated:
            await self._data.stop()
        provider, reception = self._data.provider, self._acquire.reception
        if provider is not None and provider.closed:
            # Staging would have forgotten it.
            self._prepare_ctx = None
            self._kickoff_ctx = None
        elif (
            provider is not None
            and reception is not None
            and (reception.cut_off or reception.failure is not None)
        ):
            provider.skip(self._acquire.info.collections_per_event)
        return None

    async def _unprepared(self) -> TriggerInfo:
        """Return what is acquired without a preparation."""
        asked = os.environ.get("OPHYD_ASYNC_PRESERVE_DETECTOR_STATE", "NO").upper()
        if self._default is not None or asked == "YES":
            return await self._setup.default_trigger_info()
        return TriggerInfo()

    # ---------------------------------------------------------------- acquiring

    @AsyncStatus.wrap
    async def prepare(self, value: TriggerInfo) -> None:
        """Set the camera up and attach to the store.

        Parameters
        ----------
        value
            What to acquire; see the table above.

        Raises
        ------
        TriggerError, ValueError
            The camera cannot do this.
        DeviceError
            The camera has no name.
        """
        self._check_name()
        async with self._turn:
            self._acquire.armed_at = None
            await self._settle()
            await self._prepare(value)

    async def _prepare(self, value: TriggerInfo) -> None:
        self._setup.triggers.check(self.name, value.trigger)
        acquire, earlier = self._acquire, self._acquire.info
        # An external trigger starts the source from within.
        acquire.info, acquire.events = value, value.number_of_events
        acquire.arming = value.trigger is not DetectorTrigger.INTERNAL
        self._setup.deadtime = value.deadtime
        try:
            await super().prepare(value)
        except BaseException:
            acquire.info = earlier
            raise
        finally:
            acquire.arming = False
        self._patience_given = "exposure_timeout" in value.model_fields_set
        await self._be_patient()
        self._stream_begins = True

    # Set between prepare and the acquisition that follows it.
    _stream_begins = False
    _patience_given = False

    def _check_name(self) -> None:
        if not self.name:
            raise DeviceError(
                "a detector needs a name for its frames: create it inside "
                "init_devices(), or with name=…"
            )

    async def _be_patient(self) -> None:
        """Wait longer for long exposures, however the exposure was set."""
        ctx = self._prepare_ctx
        if ctx is not None and not self._patience_given:
            exposures = ctx.trigger_info.exposures_per_collection
            patience = await self._setup.exposure() * exposures + DEFAULT_TIMEOUT
            info = ctx.trigger_info.model_copy(update={"exposure_timeout": patience})
            self._acquire.info = ctx.trigger_info = info

    @WatchableAsyncStatus.wrap
    async def trigger(self) -> AsyncIterator[WatcherUpdate[int]]:
        """Take one event, for a step scan."""
        self._check_name()
        async with self._turn:
            armed_at = await self._settle()
            if self._prepare_ctx is None:
                await self._prepare(await self._unprepared())
                armed_at = self._acquire.armed_at
            info = self._acquire.info
            if info.number_of_events != 1:
                raise DeviceError(
                    f"{self.name} was prepared for "
                    f"{info.number_of_events or 'endless'} events and cannot be "
                    "triggered for one; stage() it, or prepare() it for one event"
                )
            await self._be_patient()
            self._data.writing().skip(info.collections_per_event, armed_at)
            self._stream_begins = False
            self._acquire.events = 1
            self._acquire.arming = False
            earlier = self._acquire.reception if armed_at is None else None
            begun = self._acquire.next_start()
            status = super().trigger()
            # Until then another trigger would not know that there is one to stop.
            await asyncio.wait({begun, task_of(status)}, return_when="FIRST_COMPLETED")
        async for update in watch(status, self._acquire, earlier):
            yield update

    @AsyncStatus.wrap
    async def kickoff(self) -> None:
        """Begin a fly scan of the events in ``events_to_kickoff``."""
        acquire = self._acquire
        await self._refuse_second_kickoff()
        async with self._turn:
            armed = await self._settle() is not None
            if not armed and acquire.info.trigger is not DetectorTrigger.INTERNAL:
                raise DeviceError(
                    f"{self.name} waits for external triggers no more, as it was "
                    "stopped; prepare() it again"
                )
            await self._be_patient()
            self._stream_begins = False
            events = await self.events_to_kickoff.get_value()
            if not events and self._acquire.info.number_of_events:
                raise DeviceError(
                    f"{self.name} has no events to kick off; prepare() it again, or "
                    "set its events_to_kickoff"
                )
            acquire.events = events
            await super().kickoff()
            acquire.use_armed(events)

    async def _refuse_second_kickoff(self) -> None:
        reception = self._acquire.reception
        if reception is None:
            return
        if self._acquire.armed_at is not None:
            acquiring = self._acquire.waited_for
        else:
            # Its last frame may be counted already, and its end not known yet.
            await asyncio.wait({reception.over}, timeout=0.2)
            acquiring = not reception.over.done()
        if acquiring:
            raise DeviceError(
                f"{self.name} is acquiring; complete() it before the next kickoff()"
            )

    @WatchableAsyncStatus.wrap
    async def complete(self) -> AsyncIterator[WatcherUpdate[int]]:
        """Wait for the events of the kickoff; stop, if it had no number."""
        reception = self._acquire.reception
        if reception is not None:
            if not reception.number:
                async with self._turn:
                    await self._acquire.ensure_stopped()
                    await self._data.writing().settled()
            if reception.failure is not None:
                reception.failure_told = True
                raise reception.failure
            if reception.cut_off:
                raise DeviceError(
                    f"{self.name} was stopped after {reception.received} of "
                    f"{reception.number} exposures; kickoff() it again"
                )
        async for update in watch(super().complete(), self._acquire):  # pyright: ignore[reportUnknownArgumentType]  # as above
            yield update

    # --------------------------------------------------------------- documents

    def footprint(self) -> list[Footprint]:
        """Return what each frame is going to take on the disk, and where."""
        rows = 1 if self._default is None else self._default.collections_per_event
        return [
            replace(one, rows_per_event=rows) for one in self._data.footprint(self.name)
        ]

    async def describe(self) -> dict[str, DataKey]:
        """Return the data keys of the frames, their times and their ids."""
        self._begin_stream()
        return await super().describe()

    async def describe_collect(self) -> dict[str, DataKey]:
        """Return the data keys of the frames, their times and their ids."""
        self._begin_stream()
        return await super().describe_collect()

    def _begin_stream(self) -> None:
        provider = self._data.provider
        if self._stream_begins and provider is not None:
            acquire = self._acquire
            size = acquire.info.collections_per_event
            provider.begin_stream(size, acquire.armed_at)

    async def get_index(self) -> int:
        """Return how many events of the current stream have all their frames."""
        provider = self._data.provider
        if provider is None:
            return await super().get_index()
        provider.counter.sync()
        return await super().get_index() - provider.base

    async def collect_asset_docs(
        self, index: int | None = None
    ) -> AsyncIterator[StreamAsset]:
        """Announce frames that a fresh reader can see.

        Parameters
        ----------
        index
            Events of the current stream to announce at most; by default all.

        Raises
        ------
        BeamtimeError
            What the store or the source failed with, if no status has raised it.
        """
        self._acquire.raise_untold()
        if index is None:
            index = await self.get_index()
        provider = self._data.provider
        base = 0 if provider is None else provider.base
        async for doc in super().collect_asset_docs(index + base):
            yield doc
