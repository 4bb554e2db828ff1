"""How a camera is set up and made to acquire, in ophyd-async's terms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorTriggerLogic,
    SignalR,
    SignalRW,
    TriggerInfo,
)

from bluesky_beamtime.devices.data_logic import FrameDataLogic
from bluesky_beamtime.devices.reception import Reception
from bluesky_beamtime.errors import DeviceTimeoutError

if TYPE_CHECKING:
    from bluesky_beamtime.devices.camera import FrameSource

STOP_TIMEOUT = 10.0
"""Seconds that a source has to stop."""


class CameraTriggerLogic(DetectorTriggerLogic):
    """Exposures that the camera times itself.

    Parameters
    ----------
    source
        The frame source.
    exposure
        The signal that holds the exposure and passes it on to the source when it is
        set; None if the source's exposure is not ours to set.
    """

    def __init__(self, source: FrameSource, exposure: SignalRW[float] | None) -> None:
        self._source = source
        self._exposure = exposure
        self.source_knows_exposure = False
        """Whether the source was told what the signal holds from the beginning."""

    def config_sigs(self) -> set[SignalR[Any]]:
        """Return the exposure."""
        return set() if self._exposure is None else {self._exposure}

    async def prepare_internal(
        self, num: int, livetime: float, deadtime: float
    ) -> None:
        """Set the exposure, unless ``livetime`` is 0.

        Raises
        ------
        ValueError
            The source cannot do what is asked for.
        """
        if deadtime:
            raise ValueError(
                f"a frame source exposes without pauses, so that a deadtime of "
                f"{deadtime} s cannot be kept; leave it at 0"
            )
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
            raise ValueError(
                f"the exposure of this camera is not set from here, so that a livetime "
                f"of {livetime} s cannot be kept; leave it at 0, or give the camera a "
                "way to set it"
            )

    async def prepare_exposures_per_collection(
        self, exposures_per_collection: int
    ) -> None:
        """Accept any number; :class:`CameraAcquireLogic` averages them."""

    async def exposure(self) -> float:
        """Return the exposure in seconds, 0 if it is unknown."""
        return 0.0 if self._exposure is None else await self._exposure.get_value()

    async def default_trigger_info(self) -> TriggerInfo:
        """Return one exposure as it is set now."""
        return TriggerInfo(livetime=await self.exposure())


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
        """Start the source for the exposures of :attr:`events`."""
        await self.ensure_stopped()
        provider = self._data.writing()
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
            exposure=await self.exposure(),
            fail_on_drop=await self.fail_on_drop(),
            id_range=getattr(self._source, "id_range", None),
        )
        reception.over.add_done_callback(lambda _: self._tell(reception))
        self.reception = reception
        self._running = True
        try:
            await self._source.start(number, reception)
            if self._begun is not None and not self._begun.done():
                self._begun.set_result(None)
        except BaseException as error:
            # Told by raising it; the reception ends with it, not as if it was stopped.
            reception.fail(error)
            reception.failure_told = True
            await self.ensure_stopped()
            raise

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
        except TimeoutError as error:
            raise DeviceTimeoutError(
                f"{self._source!r} did not stop within {STOP_TIMEOUT:g} s; what it "
                "still delivers is not stored. Check the camera, then stage it again"
            ) from error
        finally:
            self._running = False
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
