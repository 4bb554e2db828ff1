"""The records by which areaDetector's cameras are set, started and stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ophyd_async.core import DetectorTrigger

from bluesky_beamtime.devices.pva_client import PvaClient
from bluesky_beamtime.errors import DeviceError, DeviceTimeoutError, TriggerError

MULTIPLE, CONTINUOUS = 1, 2
"""Values of ``ImageMode``."""

_OPTIONAL_PATIENCE = 1.0
_RESUME_STEP = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraRecords:
    """Names of the PVs of a camera; None for those that it has not."""

    acquire: str | None = None
    """Starts it with 1 and stops it with 0."""
    exposure: str | None = None
    """Exposure in seconds."""
    period: str | None = None
    """Time from one exposure to the next, in seconds."""
    image_mode: str | None = None
    """0 single, 1 multiple, 2 continuous."""
    number: str | None = None
    """Images of multiple mode."""
    trigger_mode: str | None = None
    """What starts an exposure; its choices are those of the driver."""

    @classmethod
    def of(cls, prefix: str) -> CameraRecords:
        """Return those of an areaDetector camera, such as ``BL01:cam1:``."""
        return cls(
            acquire=f"{prefix}Acquire",
            exposure=f"{prefix}AcquireTime",
            period=f"{prefix}AcquirePeriod",
            image_mode=f"{prefix}ImageMode",
            number=f"{prefix}NumImages",
            trigger_mode=f"{prefix}TriggerMode",
        )


class PvaRecords:
    """Sets a camera through its records, and again after its IOC was restarted.

    Parameters
    ----------
    client
        The connection.
    names
        The records.
    trigger_modes
        What ``TriggerMode`` becomes for each trigger; by default its first choice, 0,
        for internal ones, and no others.
    exactly
        Let the camera take as many images as are asked for, in multiple mode, instead
        of stopping it after them.
    """

    def __init__(
        self,
        client: PvaClient,
        names: CameraRecords,
        trigger_modes: Mapping[DetectorTrigger, int | str] | None = None,
        exactly: bool = False,
    ) -> None:
        self.names = names
        self.exactly = exactly
        self._client = client
        self._modes = dict(trigger_modes or {})
        self._modes.setdefault(DetectorTrigger.INTERNAL, 0)
        # What was set, and is set again in a camera that has forgotten it.
        self._set: dict[str, Any] = {}
        self._absent: set[str] = set()

    @property
    def driven(self) -> bool:
        """Whether the camera is started from here."""
        return self.names.acquire is not None

    @property
    def triggers(self) -> set[DetectorTrigger]:
        """Triggers that can be set; a camera that others drive has whatever it has."""
        return set(self._modes) if self.driven else set(DetectorTrigger)

    # ------------------------------------------------------------- the event loop

    async def connect(self, timeout: float) -> None:
        """Find the records.

        Raises
        ------
        DeviceTimeoutError
            One that is needed does not answer.
        """
        names = self.names
        needed = [name for name in (names.acquire, names.exposure) if name]
        rest = (names.period, names.image_mode, names.number, names.trigger_mode)
        optional = [name for name in rest if name]
        patience = min(timeout, _OPTIONAL_PATIENCE)
        *_, present = await asyncio.gather(
            *(self._client.get(name, timeout) for name in needed),
            self._client.present(optional, patience),
        )
        self._absent = set(optional) - present
        wanted = (names.image_mode, names.number) if self.exactly else ()
        for name in wanted:
            if name is None or name in self._absent:
                raise DeviceTimeoutError(
                    f"PV {name!r} does not answer, and without it the camera cannot "
                    "be told how many images to take; check its IOC, or do without "
                    "exact numbers"
                )

    async def exposure(self) -> float:
        """Return the exposure that the camera has, in seconds.

        While its IOC is away it is what was set from here: that is set again as soon as
        the IOC is back.
        """
        name = self.names.exposure or ""
        try:
            return float(await self._client.get(name))
        except DeviceTimeoutError:
            if name not in self._set:
                raise
            return float(self._set[name])

    async def set_exposure(self, exposure: float) -> None:
        """Set the exposure, with no more time between exposures than the camera needs.

        Raises
        ------
        TriggerError
            There is no record for it.
        """
        if self.names.exposure is None:
            raise TriggerError(
                f"there is no PV to set the exposure of {self._client.pv!r}; leave it "
                "alone, or give the camera detector=… or exposure_pv=…"
            )
        await self._put(self.names.exposure, exposure)
        await self._put(self.names.period, exposure)

    async def set_trigger(self, trigger: DetectorTrigger, deadtime: float) -> None:
        """Set what starts exposures, and the time between internal ones.

        Raises
        ------
        TriggerError
            There is no record for it.
        """
        if not self.driven:
            if deadtime:
                raise TriggerError(
                    f"the camera of {self._client.pv!r} is driven by others, so that a "
                    f"deadtime of {deadtime:g} s cannot be kept; leave it at 0, or "
                    "give the camera detector=…"
                )
            return
        mode = self._modes[trigger]
        if trigger is not DetectorTrigger.INTERNAL and not self._has("trigger_mode"):
            raise TriggerError(
                f"the camera of {self._client.pv!r} has no TriggerMode, so that it "
                f"cannot be triggered by {trigger.name}; trigger it internally"
            )
        await self._put(self.names.trigger_mode, mode)
        if deadtime:
            if not self._has("period"):
                raise TriggerError(
                    f"the camera of {self._client.pv!r} has no AcquirePeriod, so that "
                    f"a deadtime of {deadtime:g} s cannot be kept; leave it at 0"
                )
            await self._put(self.names.period, await self.exposure() + deadtime)

    async def start(self, number: int, *, forgotten: bool) -> None:
        """Let the camera take images.

        Parameters
        ----------
        number
            How many, 0 for as many as come; all the same unless they are exact.
        forgotten
            Whether the IOC was restarted since it was set.
        """
        await asyncio.to_thread(self._start, number, forgotten)

    async def rest(self, patience: float) -> None:
        """Let the camera rest before it is started, waiting for its IOC if it is away.

        Raises
        ------
        DeviceTimeoutError
            It does not come back within ``patience`` seconds.
        """
        if self.names.acquire is not None and int(
            await self._client.get(self.names.acquire, patience)
        ):
            await self.stop()

    async def stop(self) -> None:
        """Stop the camera; returns when it rests."""
        if self.names.acquire is not None:
            await self._client.put(self.names.acquire, 0)

    async def _put(self, name: str | None, value: Any) -> None:
        if name is not None and name not in self._absent:
            await self._client.put(name, value)
            self._set[name] = value

    def _has(self, record: str) -> bool:
        name = getattr(self.names, record)
        return name is not None and name not in self._absent

    # ----------------------------------------------------------------- any thread

    def _start(self, number: int, forgotten: bool) -> None:
        client, names = self._client, self.names
        exactly = self.exactly and number > 0
        settings = dict(self._set) if forgotten else {}
        if self._has("image_mode"):
            settings[names.image_mode or ""] = MULTIPLE if exactly else CONTINUOUS
        if exactly:
            settings[names.number or ""] = number
        for name, value in settings.items():
            client.put_now(name, value)
        # Completion of this put would mean completion of the acquisition.
        client.put_now(names.acquire or "", 1, wait=False)

    def resume(
        self, patience: float, number: int, stopping: Callable[[], bool]
    ) -> bool:
        """Start the camera again if it rests; blocks.

        Parameters
        ----------
        patience
            Seconds for which its records are waited for.
        number
            Images that are missing.
        stopping
            Says whether nobody waits for it any more.

        Returns
        -------
        bool
            Whether it rested, so that its IOC was restarted.
        """
        deadline = time.monotonic() + patience
        acquire = self.names.acquire or ""
        while not stopping():
            try:
                if int(self._client.get_now(acquire, _RESUME_STEP)):
                    return False
                self._start(number, forgotten=True)
            except DeviceError:
                # Its records come one by one.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return True
        return False
