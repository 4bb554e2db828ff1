"""Cameras behind EPICS: areaDetector's NTNDArray stream over PVAccess."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bluesky.protocols import Reading
from event_model import DataKey
from ophyd_async.core import (
    DEFAULT_TIMEOUT,
    DetectorTrigger,
    SignalRW,
    soft_signal_rw,
)

from bluesky_beamtime.devices.camera import Camera, check_exposure
from bluesky_beamtime.devices.pva_records import CameraRecords
from bluesky_beamtime.devices.pva_source import PvaSource
from bluesky_beamtime.storage import FrameStore


class PvaCamera(Camera):
    """A camera that streams NTNDArrays over PVAccess, as areaDetector does.

    Frames are of any number type and number of dimensions, mono or in colour, as they
    are or compressed with lz4, bslz4, blosc or jpeg. RGB frames are stored as
    ``(height, width, 3)``; Bayer and YUV ones as their samples come.

    ==========================  ========================================================
    what comes along            where it goes
    ==========================  ========================================================
    ``uniqueId``                ``<name>_id``; its gaps are counted as dropped frames
    ``dataTimeStamp``           ``<name>_time``; ``timeStamp`` if the driver sets none
    numbers among the           ``<name>_<attribute>`` with each frame, NaN where one
    attributes that change      came without; coordinates where they are read
    other attributes            configuration, ``<name>-<attribute>``
    colour mode                 configuration, ``<name>-color_mode``, by its name
    ==========================  ========================================================

    An IOC that goes away in a scan is waited for. If it was restarted, its camera is
    set and started again, the scan goes on, and ids begin anew; frames that it took and
    had not sent nobody can count.

    Parameters
    ----------
    frames
        Store for the frames.
    pv
        Name of the NTNDArray PV, such as ``BL01:Pva1:Image``.
    detector
        Prefix of an areaDetector's camera PVs, such as ``BL01:cam1:``: the camera is
        then set, started and stopped through its ``Acquire``, ``AcquireTime``,
        ``AcquirePeriod``, ``ImageMode``, ``NumImages`` and ``TriggerMode``. Without it,
        and without the next two, the camera runs freely and frames are only received.
    acquire_pv, exposure_pv
        The same PVs one by one, where they have other names.
    trigger_modes
        Choices or numbers of its ``TriggerMode``, which each driver has its own of,
        such as ``{DetectorTrigger.EXTERNAL_EDGE: "External"}``; those that are not
        named are refused. ``INTERNAL`` is its first choice if nothing else is said.
    exactly
        Let the camera take as many images as are asked for, and none more (``Multiple``
        and ``NumImages``). A frame that is lost is then missing: the scan fails, with
        :class:`~bluesky_beamtime.errors.DroppedFramesError`. By default it runs until
        the frames are there (``Continuous``).
    attributes
        Names of the attributes to record with each frame. By default all numbers that
        the IOC takes from a PV, from a parameter of the driver or from a function.
    queue_size
        Frames that may wait for us; by default what 256 MiB hold, from 16 to 1000.
    timeout
        Seconds within which a PV answers.
    reconnect
        Seconds for which an IOC that goes away in a scan is waited for.
    conf
        Configuration for the PVAccess client, beside the environment's.
    fail_on_drop
        As for :class:`Camera`.
    name
        Name of the device and of its data key.

    See Also
    --------
    PvaSource : which frames are taken.
    """

    source: PvaSource

    def __init__(
        self,
        frames: FrameStore,
        pv: str,
        *,
        detector: str | None = None,
        acquire_pv: str | None = None,
        exposure_pv: str | None = None,
        trigger_modes: Mapping[DetectorTrigger, int | str] | None = None,
        exactly: bool = False,
        attributes: Sequence[str] | None = None,
        queue_size: int | None = None,
        timeout: float = 5.0,
        reconnect: float = 30.0,
        conf: Mapping[str, str] | None = None,
        fail_on_drop: bool = False,
        name: str = "",
    ) -> None:
        records = CameraRecords() if detector is None else CameraRecords.of(detector)
        if acquire_pv is not None:
            records = replace(records, acquire=acquire_pv)
        if exposure_pv is not None:
            records = replace(records, exposure=exposure_pv)
        if exactly and detector is None:
            raise ValueError(
                "exactly=True needs detector=…: the camera is told by its NumImages"
            )
        source = PvaSource(
            pv,
            records=records,
            trigger_modes=trigger_modes,
            exactly=exactly,
            attributes=attributes,
            queue_size=queue_size,
            timeout=timeout,
            reconnect=reconnect,
            conf=conf,
        )
        self._reconnect = reconnect
        super().__init__(
            frames,
            source=source,
            exposure=None if records.exposure is None else _exposure_signal(source),
            hardware=f"pva://{pv}",
            fail_on_drop=fail_on_drop,
            name=name,
        )
        self._data.numbers = lambda: source.attributes.per_frame

    async def _be_patient(self) -> None:
        await super()._be_patient()
        ctx = self._prepare_ctx
        if ctx is not None and not self._patience_given:
            # An IOC that is waited for sends nothing meanwhile.
            patience = ctx.trigger_info.exposure_timeout + self._reconnect
            info = ctx.trigger_info.model_copy(update={"exposure_timeout": patience})
            self._acquire.info = ctx.trigger_info = info

    async def describe_configuration(self) -> dict[str, DataKey]:
        """Return the data keys of the configuration, of attributes too."""
        described = await super().describe_configuration()
        for key, value in self._attributes().items():
            kind = "string" if isinstance(value, str) else "number"
            described[key] = DataKey(
                source=f"pva://{self.source.pv}", dtype=kind, shape=[]
            )
        return described

    async def read_configuration(self) -> dict[str, Reading[Any]]:
        """Return the configuration; attributes as of the frame before the scan."""
        read: dict[str, Reading[Any]] = {**await super().read_configuration()}  # pyright: ignore[reportUnknownMemberType]  # ophyd-async leaves the type open
        for key, value in self._attributes().items():
            read[key] = {"value": value, "timestamp": self.source.looked}
        return read

    def _attributes(self) -> dict[str, float | int | str]:
        fixed = self.source.attributes.configuration
        return {f"{self.name}-{name}": value for name, value in fixed.items()}

    async def connect(
        self,
        mock: Any = False,
        timeout: float = DEFAULT_TIMEOUT,
        force_reconnect: bool = False,
    ) -> None:
        """Find the PVs; see :meth:`PvaSource.connect`."""
        if not mock:
            await self.source.connect(timeout)
        await super().connect(mock, timeout, force_reconnect)  # pyright: ignore[reportUnknownMemberType]  # ophyd-async leaves the type open

    def close(self) -> None:
        """Disconnect from the PVs."""
        self.source.close()


def _exposure_signal(source: PvaSource) -> SignalRW[float]:
    """Return a signal that asks the IOC, where others may set the exposure too."""

    async def set_exposure(value: float | None) -> None:
        if value is not None:
            await source.configure(check_exposure(value))

    getter: Callable[[], Any] = source.exposure
    return soft_signal_rw(float, units="s", getter=getter, setter=set_exposure)
