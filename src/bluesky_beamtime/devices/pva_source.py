"""Frames of an NTNDArray PV, for as long as an acquisition lasts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from bluesky_beamtime.devices.camera import FrameReceiver
from bluesky_beamtime.devices.ntndarray import PvaFrame, decode
from bluesky_beamtime.devices.pva_stream import PvaStream
from bluesky_beamtime.errors import (
    DeviceError,
    DeviceTimeoutError,
    MissingExtraError,
)

_logger = logging.getLogger("bluesky_beamtime.devices")

_CONTINUOUS = 2


class PvaSource:
    """Frames of one NTNDArray PV; a frame source.

    It subscribes for the time of an acquisition only, so that an idle camera costs no
    bandwidth. Frames published before are not taken:

    - With an ``acquire_pv`` the camera is at rest when an acquisition starts. It is set
      to take frames continuously and stopped after the last that was asked for, so that
      a frame lost on the way is replaced by the next.
    - Without one the camera runs freely. The frame that it is exposing when an
      acquisition starts is left out, and the one after it is the first that is taken.

    Gaps in ``uniqueId`` are frames that the network or a full queue lost.

    Parameters
    ----------
    pv
        Name of the NTNDArray PV.
    acquire_pv, exposure_pv, mode_pv
        PVs of the camera: starting it, its exposure in seconds, its image mode.
    queue_size
        Frames that the server may queue for us.
    timeout
        Seconds within which a PV answers.
    conf
        Configuration for the client, beside the environment's, such as
        ``{"EPICS_PVA_ADDR_LIST": "10.0.0.7"}``.
    """

    def __init__(
        self,
        pv: str,
        *,
        acquire_pv: str | None = None,
        exposure_pv: str | None = None,
        mode_pv: str | None = None,
        queue_size: int = 16,
        timeout: float = 5.0,
        conf: Mapping[str, str] | None = None,
    ) -> None:
        self.pv = pv
        self._acquire_pv = acquire_pv
        self._exposure_pv = exposure_pv
        self._mode_pv = mode_pv
        self._queue_size = queue_size
        self._timeout = timeout
        self._conf = dict(conf or {})
        self._context: Any = None
        self._queue: Any = None
        self._latest: PvaFrame | None = None
        self._stream: PvaStream | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames: height, width, and colour if they have any."""
        return self._known().array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the frames."""
        return self._known().array.dtype

    def _known(self) -> PvaFrame:
        if self._latest is None:
            self._client()
            raise DeviceError(f"no frame of PV {self.pv!r} was looked at yet")
        return self._latest

    # --------------------------------------------------------------- connection

    async def connect(self, timeout: float) -> None:
        """Find the PVs.

        Raises
        ------
        DeviceTimeoutError
            One does not answer; the message names it and says what to check.
        SourceError
            The image is none that can be taken.
        """
        self._open()
        names = (self._acquire_pv, self._exposure_pv, self._mode_pv)
        await asyncio.gather(*(self._get(name, timeout) for name in names if name))
        await self._look(timeout)

    def _open(self) -> None:
        if self._context is not None:
            return
        try:
            from p4p.client.thread import Context
            from p4p.util import ThreadedWorkQueue
        except ImportError as error:
            raise MissingExtraError("a PVAccess camera", "p4p", "epics") from error
        # Images come as they are sent: p4p's own unpacking knows no codec, no colour.
        self._context = Context(
            "pva", conf=self._conf, nt={"epics:nt/NTNDArray:1.0": _AsSent}
        )
        # A thread of its own: a disk that holds it back holds back no other camera.
        self._queue = ThreadedWorkQueue(
            name=f"pva {self.pv}", workers=1, daemon=True, maxsize=0
        ).start()

    def close(self) -> None:
        """Disconnect; it connects again when it is asked to."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._context is not None:
            self._context.close()
            self._queue.stop()
            self._context = self._queue = None

    def _client(self) -> Any:
        if self._context is None:
            raise DeviceError(
                f"the camera of PV {self.pv!r} is not connected; create it inside "
                "init_devices(), or await its connect()"
            )
        return self._context

    async def _get(self, name: str, timeout: float | None = None) -> Any:
        patience = timeout or self._timeout
        get = self._client().get
        try:
            return await asyncio.to_thread(get, name, timeout=patience)
        except TimeoutError as error:
            raise self._silent(name, patience) from error

    async def _put(self, name: str, value: Any, *, wait: bool) -> None:
        put = self._client().put
        patience = self._timeout
        try:
            await asyncio.to_thread(
                put, name, value, timeout=patience, wait=wait or None
            )
        except TimeoutError as error:
            raise self._silent(name, self._timeout) from error

    def _silent(self, name: str, patience: float) -> DeviceTimeoutError:
        return DeviceTimeoutError(
            f"PV {name!r} did not answer within {patience:g} s; check that its IOC "
            f"runs, that 'pvget {name}' answers on this computer, and the variable "
            "EPICS_PVA_ADDR_LIST"
        )

    async def _look(self, timeout: float | None = None) -> None:
        """Learn shape and dtype from the frame that the PV holds."""
        self._latest = decode(self.pv, await self._get(self.pv, timeout))

    # -------------------------------------------------------------- acquisition

    async def exposure(self) -> float:
        """Return the exposure that the camera has, in seconds."""
        return float(await self._get(self._exposure_pv or ""))

    async def configure(self, exposure: float | None) -> None:
        """Set the exposure, and look how large frames are now."""
        if exposure is not None:
            if self._exposure_pv is None:
                raise ValueError(f"there is no PV to set the exposure of {self.pv!r}")
            await self._put(self._exposure_pv, exposure, wait=True)
        await self._look()

    async def start(self, number: int, receiver: FrameReceiver) -> None:
        """Subscribe, then start the camera if it is ours to start."""
        await self.stop()
        driven = self._acquire_pv is not None
        stream = self._stream = PvaStream(self.pv, number, receiver, driven)
        stream.subscribe(self._client(), self._queue, self._queue_size)
        try:
            await asyncio.wait_for(asyncio.shield(stream.connected), self._timeout)
        except TimeoutError as error:
            raise self._silent(self.pv, self._timeout) from error
        if self._acquire_pv is not None:
            if self._mode_pv is not None:
                await self._put(self._mode_pv, _CONTINUOUS, wait=True)
            # Completion of this put would mean completion of the acquisition.
            await self._put(self._acquire_pv, 1, wait=False)

    async def stop(self) -> None:
        """Stop the camera if it is ours to stop, then unsubscribe."""
        stream, self._stream = self._stream, None
        try:
            if self._acquire_pv is not None and self._context is not None:
                await self._put(self._acquire_pv, 0, wait=True)
        except DeviceTimeoutError:
            if stream is None or not stream.failed:
                raise
            # The plan has learned already that the IOC is gone.
            _logger.warning("PV %r could not be told to stop", self._acquire_pv)
        finally:
            if stream is not None:
                await asyncio.to_thread(stream.close)

    def __repr__(self) -> str:
        return f"<PvaSource {self.pv!r}>"


class _AsSent:
    """Tells p4p to leave a structure as it is."""

    @staticmethod
    def wrap(value: Any) -> Any:
        return value

    @staticmethod
    def unwrap(value: Any) -> Any:
        return value

    @staticmethod
    def assign(value: Any, new: Any) -> None:
        value[None] = new
