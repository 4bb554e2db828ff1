"""How a camera is set up and made to acquire, in ophyd-async's terms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorTrigger,
    DetectorTriggerLogic,
    SignalR,
    SignalRW,
    TriggerInfo,
)

from bluesky_beamtime.devices.data_logic import FrameDataLogic
from bluesky_beamtime.devices.reception import Reception
from bluesky_beamtime.devices.triggers import SourceTriggers
from bluesky_beamtime.errors import DeviceTimeoutError, TriggerError

if TYPE_CHECKING:
    from bluesky_beamtime.devices.camera import FrameSource

STOP_TIMEOUT = 10.0
"""Seconds that a source has to stop."""


class CameraTriggerLogic(DetectorTriggerLogic):
    """Sets a frame source up for exposures that it or something else times.

    Parameters
    ----------
    source
        The frame source.
    exposure
        The signal that holds the exposure and passes it on to the source when it is
        set; None if the source's exposure is not ours to set.
    default
        What is acquired if a plan asks for nothing.
    """

    def __init__(
        self,
        source: FrameSource,
        exposure: SignalRW[float] | None,
        default: TriggerInfo | None = None,
    ) -> None:
        self.triggers = SourceTriggers(source)
        self._source = source
        self._exposure = exposure
        self._default = default
        self.source_knows_exposure = False
        """Whether the source was told what the signal holds from the beginning."""
        self.deadtime = 0.0
        """The deadtime asked for, whatever the trigger."""
        self.was_set_up: Callable[[], Awaitable[None]] = _nothing
        """Called when shape and dtype of the frames to come are known."""

    def config_sigs(self) -> set[SignalR[Any]]:
        """Return the exposure."""
        return set() if self._exposure is None else {self._exposure}

    async def prepare_internal(
        self, num: int, livetime: float, deadtime: float
    ) -> None:
        """Set the exposure, unless ``livetime`` is 0, and the time in between.

        Raises
        ------
        TriggerError, ValueError
            The source cannot do what is asked for.
        """
        await self._set_up(DetectorTrigger.INTERNAL, livetime)

    async def prepare_edge(self, num: int, livetime: float) -> None:
        """Set the exposure of each pulse, unless ``livetime`` is 0.

        Raises
        ------
        TriggerError, ValueError
            The source cannot do what is asked for.
        """
        await self._set_up(DetectorTrigger.EXTERNAL_EDGE, livetime)

    async def prepare_level(self, num: int) -> None:
        """Let pulses be the exposures.

        Raises
        ------
        TriggerError
            The source cannot do what is asked for.
        """
        await self._set_up(DetectorTrigger.EXTERNAL_LEVEL, 0.0)

    async def _set_up(self, trigger: DetectorTrigger, livetime: float) -> None:
        if not livetime:
            known = self.source_knows_exposure
            await self._source.configure(
                None if known else await self.exposure() or None
            )
            self.source_knows_exposure = True
        elif self._exposure is not None:
            # Setting the signal configures the source.
            await self._exposure.set(livetime)
            self.source_knows_exposure = True
        else:
            raise TriggerError(
                f"the exposure of {self._source!r} is not set from here, so that a "
                f"livetime of {livetime:g} s cannot be kept; leave it at 0, or give "
                "the camera a way to set it"
            )
        await self.triggers.set(trigger, self.deadtime)
        await self.was_set_up()

    async def prepare_exposures_per_collection(
        self, exposures_per_collection: int
    ) -> None:
        """Accept any number; :class:`CameraAcquireLogic` averages them."""

    async def exposure(self) -> float:
        """Return the exposure in seconds, 0 if it is unknown."""
        return 0.0 if self._exposure is None else await self._exposure.get_value()

    async def default_trigger_info(self) -> TriggerInfo:
        """Return what a plan gets that does not prepare: one exposure as it is set."""
        return self._default or TriggerInfo(livetime=await self.exposure())


async def _nothing() -> None:
    pass


async def _unknown() -> float:
    return 0.0


async def _never() -> bool:
    return False


class CameraAcquireLogic(DetectorAcquireLogic):
    """Starts and stops a frame source, and knows how far it is.

    Parameters
    ----------
    source
        The frame source.
    data
        Where its frames go.
    name
        Returns the name of the camera, for messages.
    """

    def __init__(
        self, source: FrameSource, data: FrameDataLogic, name: Callable[[], str]
    ) -> None:
        self.name = name
        self._source = source
        self._data = data
        self._running = False
        self.reception: Reception | None = None
        self._begun: asyncio.Future[None] | None = None
        self.info = TriggerInfo()
        self.events = 1
        """Events of the next acquisition, 0 for as many as come until stopped."""
        self.arming = False
        """Whether what starts now waits for external triggers, before it is used."""
        self.armed_at: int | None = None
        """Rows that were there when it did so; None if it does not."""
        self.exposure: Callable[[], Awaitable[float]] = _unknown
        """Returns the seconds of an exposure, 0 if unknown."""
        self.fail_on_drop: Callable[[], Awaitable[bool]] = _never
        """Returns whether a frame that was lost ends the next acquisition."""
        self.listeners: set[Callable[[Reception], object]] = set()
        """Called in the event loop when an acquisition is over."""

    async def ensure_ready(self) -> None:
        """Stop the source, whoever started it."""
        self._running = True
        await self.ensure_stopped()

    async def start_acquiring(self) -> None:
        """Start the source for the exposures of :attr:`events`.

        If it was armed when it was prepared, use that acquisition.
        """
        if self.armed_at is not None and not self.arming:
            self.armed_at = None
            self._hold_back(None)
            self._has_begun()
            return
        await self.ensure_stopped()
        provider = self._data.writing()
        if self.arming:
            # What comes early belongs to what is kicked off or triggered later.
            self.armed_at = provider.rows
            self._hold_back(provider.rows)
        collections = self.events * self.info.collections_per_event
        if collections:
            # An event that was cut off is filled up first; it is not announced.
            collections += provider.rows_missing(self.info.collections_per_event)
        averaged = self.info.exposures_per_collection
        number = collections * averaged
        reception = Reception(
            provider,
            number,
            averaged,
            exposure=await self._known_exposure(),
            fail_on_drop=await self.fail_on_drop(),
            id_range=getattr(self._source, "id_range", None),
        )
        reception.over.add_done_callback(lambda _: self._tell(reception))
        self.reception = reception
        self._running = True
        try:
            await self._source.start(number, reception)
            self._has_begun()
        except BaseException as error:
            # Told by raising it; the reception ends with it, not as if it was stopped.
            reception.fail(error)
            reception.failure_told = True
            await self.ensure_stopped()
            raise

    async def _known_exposure(self) -> float:
        if self.info.trigger is DetectorTrigger.EXTERNAL_LEVEL:
            return 0.0
        return await self.exposure()

    def _has_begun(self) -> None:
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)

    def _hold_back(self, rows: int | None) -> None:
        """Let the signal show no more rows than these; None lets it show all."""
        provider = self._data.provider
        if provider is not None:
            provider.counter.limit = rows
            provider.counter.sync()

    @property
    def waited_for(self) -> bool:
        """Whether rows that a kickoff has asked for are still to come."""
        provider = self._data.provider
        if provider is None or self.armed_at is None:
            return False
        limit = provider.counter.limit
        return limit is None or provider.rows < limit

    def use_armed(self, events: int) -> None:
        """Let the armed acquisition count for the events of a kickoff."""
        provider, armed_at = self._data.writing(), self.armed_at
        limit = provider.counter.limit
        if armed_at is None or limit is None:
            return
        size = self.info.collections_per_event
        # An event that was cut off before is filled up first.
        first = limit + -limit % size
        self._hold_back(first + events * size if events else None)

    async def wait_for_idle(self) -> None:
        """Wait for the last exposure, and for the source to rest.

        Raises
        ------
        BaseException
            What the store or the source failed with.
        """
        reception = self.reception
        if reception is not None:
            # The rows that the caller waited for may be followed by those of an event
            # that was cut off before.
            patience = self.info.exposure_timeout * self.info.collections_per_event
            await asyncio.wait_for(asyncio.shield(reception.over), patience)
        await self.ensure_stopped()
        if reception is not None and reception.failure is not None:
            reception.failure_told = True
            raise reception.failure

    async def ensure_stopped(self) -> None:
        """Stop the source if it was started.

        Raises
        ------
        DeviceTimeoutError
            It does not stop within :data:`STOP_TIMEOUT`; its frames are refused.
        """
        if not self._running:
            return
        try:
            await asyncio.wait_for(self._source.stop(), STOP_TIMEOUT)
        except DeviceTimeoutError:
            # The source knows better what did not answer.
            raise
        except TimeoutError as error:
            raise DeviceTimeoutError(
                f"{self._source!r} did not stop within {STOP_TIMEOUT:g} s; what it "
                "still delivers is not stored. Check the camera, then stage it again"
            ) from error
        finally:
            self._running = False
            self.armed_at = None
            self._hold_back(None)
            if self.reception is not None:
                self.reception.stop()

    def next_start(self) -> asyncio.Future[None]:
        """Return a future that is done when the source has started the next time."""
        self._begun = asyncio.get_running_loop().create_future()
        return self._begun

    def _tell(self, reception: Reception) -> None:
        for listener in list(self.listeners):
            listener(reception)

    def raise_untold(self) -> None:
        """Raise what the last acquisition failed with, if nobody was told yet."""
        reception = self.reception
        if (
            reception is not None
            and reception.failure is not None
            and not reception.failure_told
        ):
            reception.failure_told = True
            raise reception.failure
