"""Frames of an NTNDArray PV, for as long as an acquisition lasts."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ophyd_async.core import DetectorTrigger

from bluesky_beamtime.devices.camera import FrameReceiver
from bluesky_beamtime.devices.ntndarray import PvaFrame, decode
from bluesky_beamtime.devices.pva_attributes import PvaAttributes
from bluesky_beamtime.devices.pva_client import PvaClient
from bluesky_beamtime.devices.pva_records import CameraRecords, PvaRecords
from bluesky_beamtime.devices.pva_stream import PvaOrder, PvaStream
from bluesky_beamtime.errors import DeviceError, DeviceTimeoutError

_ROOM_BYTES = 1 << 28

_logger = logging.getLogger("bluesky_beamtime.devices")


class PvaSource:
    """Frames of one NTNDArray PV; a frame source.

    It subscribes for the time of an acquisition only, so that an idle camera costs no
    bandwidth. Frames published before are not taken:

    - With records the camera is at rest when an acquisition starts. It is set to take
      frames continuously and stopped after the last that was asked for, so that a frame
      lost on the way is replaced by the next; or to take just so many, and then one
      that was lost is missing in the end.
    - Without any the camera runs freely. The frame that it is exposing when an
      acquisition starts is left out, and the one after it is the first that is taken;
      with external triggers all are taken.

    Gaps in ``uniqueId`` are frames that the network or a full queue lost. An IOC that
    goes away is waited for; if it was restarted, its camera is set and started again.

    Parameters
    ----------
    pv
        Name of the NTNDArray PV.
    records
        PVs of the camera; by default it has none, and runs freely.
    trigger_modes
        What its ``TriggerMode`` becomes for each trigger; see :class:`PvaCamera`.
    exactly
        Let the camera count the images, in multiple mode.
    attributes
        Those to record with each frame; see :class:`PvaCamera`.
    queue_size
        Frames that may wait for us; by default what 256 MiB hold, from 16 to 1000.
    timeout
        Seconds within which a PV answers.
    reconnect
        Seconds for which an IOC that goes away is waited for.
    conf
        Configuration for the client, beside the environment's, such as
        ``{"EPICS_PVA_ADDR_LIST": "10.0.0.7"}``.

    Attributes
    ----------
    attributes : PvaAttributes
        What frames bring beside their pixels.
    looked : float
        When the source has last looked what frames are like, in seconds since 1970.
    """

    def __init__(
        self,
        pv: str,
        *,
        records: CameraRecords | None = None,
        trigger_modes: Mapping[DetectorTrigger, int | str] | None = None,
        exactly: bool = False,
        attributes: Sequence[str] | None = None,
        queue_size: int | None = None,
        timeout: float = 5.0,
        reconnect: float = 30.0,
        conf: Mapping[str, str] | None = None,
    ) -> None:
        self.pv = pv
        self.attributes = PvaAttributes(pv, attributes)
        self._client = PvaClient(pv, conf, timeout)
        self._records = PvaRecords(
            self._client, records or CameraRecords(), trigger_modes, exactly
        )
        self._queue_size = queue_size
        self._reconnect = reconnect
        self._trigger = DetectorTrigger.INTERNAL
        self._latest: PvaFrame | None = None
        self.looked = 0.0
        self._seen = 0
        self._stream: PvaStream | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames: height, width, and colour if they have any."""
        return self._known().array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the frames."""
        return self._known().array.dtype

    @property
    def triggers(self) -> set[DetectorTrigger]:
        """Triggers that can be set."""
        return self._records.triggers

    @property
    def deadtime(self) -> float:
        """0: the driver leaves as little time as its camera needs."""
        return 0.0

    def _known(self) -> PvaFrame:
        if self._latest is None:
            _ = self._client.context
            raise DeviceError(
                f"no frame of PV {self.pv!r} was looked at yet; await the camera's "
                "connect()"
            )
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
        self._client.open()
        await self._records.connect(timeout)
        await self._look(timeout)

    def close(self) -> None:
        """Disconnect; it connects again when it is asked to."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._client.close()

    async def _look(self, timeout: float | None = None) -> None:
        """Learn shape, dtype and attributes from the frame that the PV holds."""
        value = await self._client.get(self.pv, timeout)
        self._latest = decode(self.pv, value)
        self.looked = time.time()
        self.attributes.learn(value)

    # -------------------------------------------------------------- acquisition

    async def exposure(self) -> float:
        """Return the exposure that the camera has, in seconds."""
        return await self._records.exposure()

    async def configure(self, exposure: float | None) -> None:
        """Set the exposure, and look how large frames are now."""
        if exposure is not None:
            await self._records.set_exposure(exposure)
        await self._look()

    async def set_trigger(self, trigger: DetectorTrigger, deadtime: float) -> None:
        """Set what starts exposures, and the time between internal ones."""
        await self._records.set_trigger(trigger, deadtime)
        self._trigger = trigger

    async def start(self, number: int, receiver: FrameReceiver) -> None:
        """Subscribe, then start the camera if it is ours to start."""
        client, records = self._client, self._records
        patience = max(client.timeout, self._reconnect)
        await self._unsubscribe()
        await records.rest(patience)
        driven, exactly = records.driven, records.exactly and number > 0
        order = PvaOrder(
            pv=self.pv,
            number=number,
            shape=self.shape,
            dtype=self.dtype,
            at_rest=driven or self._trigger is not DetectorTrigger.INTERNAL,
            patience=self._reconnect,
            exactly=exactly,
            resume=records.resume if driven else None,
            look=self.attributes.look if self.attributes.per_frame else None,
        )
        stream = self._stream = PvaStream(order, receiver)
        stream.subscribe(client, self._queue_size or self._room())
        try:
            await asyncio.wait_for(asyncio.shield(stream.connected), patience)
        except TimeoutError as error:
            raise client.silent(self.pv, patience) from error
        # An IOC that was restarted since has begun to count anew.
        forgotten = stream.held < self._seen
        self._seen = stream.held
        if driven:
            if exactly:
                stream.watch(client, records.names.acquire or "")
            await records.start(number, forgotten=forgotten)

    def _room(self) -> int:
        """Return how many frames may wait: they bridge a disk or a thread that stalls.

        A queue takes memory only for the frames that are in it.
        """
        size = self.dtype.itemsize * math.prod(self.shape)
        return min(max(_ROOM_BYTES // max(size, 1), 16), 1000)

    async def stop(self) -> None:
        """Stop the camera if it is ours to stop, then unsubscribe."""
        stream = self._stream
        try:
            if self._client.is_open:
                await self._records.stop()
        except DeviceTimeoutError:
            if stream is None or not stream.failed:
                raise
            # The plan has learned already that the IOC is gone.
            _logger.warning("the camera of PV %r could not be told to stop", self.pv)
        finally:
            await self._unsubscribe()

    async def _unsubscribe(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self._seen = stream.held
            await asyncio.to_thread(stream.close)

    def __repr__(self) -> str:
        return f"<PvaSource {self.pv!r}>"
