"""Cameras behind EPICS: areaDetector's NTNDArray stream over PVAccess."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ophyd_async.core import DEFAULT_TIMEOUT, SignalRW, soft_signal_rw

from bluesky_beamtime.devices.camera import Camera, check_exposure
from bluesky_beamtime.devices.pva_source import PvaSource
from bluesky_beamtime.storage import FrameStore


class PvaCamera(Camera):
    """A camera that streams NTNDArrays over PVAccess, as areaDetector does.

    Frames are uncompressed, of any number type, mono or RGB. Their ``uniqueId`` and the
    time that the IOC stamped them with come along as ``<name>_id`` and ``<name>_time``;
    frames lost on the way are counted as dropped.

    Parameters
    ----------
    frames
        Store for the frames.
    pv
        Name of the NTNDArray PV, such as ``BL01:Pva1:Image``.
    detector
        Prefix of an areaDetector's camera PVs, such as ``BL01:cam1:``: the camera is
        then started, stopped and set through its ``Acquire``, ``AcquireTime`` and
        ``ImageMode``. Without it, and without the next two, the camera runs freely and
        frames are only received.
    acquire_pv, exposure_pv
        The same PVs one by one, where they have other names.
    queue_size
        Frames that the server may queue for us.
    timeout
        Seconds within which a PV answers.
    conf
        Configuration for the PVAccess client, beside the environment's.
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
        queue_size: int = 16,
        timeout: float = 5.0,
        conf: Mapping[str, str] | None = None,
        name: str = "",
    ) -> None:
        mode_pv = None
        if detector is not None:
            acquire_pv = acquire_pv or f"{detector}Acquire"
            exposure_pv = exposure_pv or f"{detector}AcquireTime"
            mode_pv = f"{detector}ImageMode"
        source = PvaSource(
            pv,
            acquire_pv=acquire_pv,
            exposure_pv=exposure_pv,
            mode_pv=mode_pv,
            queue_size=queue_size,
            timeout=timeout,
            conf=conf,
        )
        super().__init__(
            frames,
            source=source,
            exposure=None if exposure_pv is None else _exposure_signal(source),
            hardware=f"pva://{pv}",
            name=name,
        )

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
