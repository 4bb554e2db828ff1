"""A thread for a frame source that has to wait for its camera."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from bluesky_beamtime.devices.progress import call_soon

if TYPE_CHECKING:
    from bluesky_beamtime.devices.camera import FrameReceiver


class AcquisitionThread:
    """Runs one acquisition of a frame source.

    Made in the event loop; the thread starts at once. What ``acquire`` raises fails the
    plan.

    Parameters
    ----------
    name
        Name of the thread.
    acquire
        Delivers the frames. It is given an event, and returns soon after that is set:
        wait for the camera with ``stopping.wait(timeout)``.
    receiver
        Where it delivers them.

    Examples
    --------
    What a frame source needs beside its shape, dtype and ``configure``::

        async def start(self, number, receiver):
            def acquire(stopping):
                taken = 0
                while not stopping.is_set() and (number == 0 or taken < number):
                    if (image := self.sdk.wait_for_image(timeout=0.1)) is not None:
                        receiver.frame(image.pixels, FrameStamp(id=image.number))
                        taken += 1

            self.thread = AcquisitionThread("my camera", acquire, receiver)

        async def stop(self):
            if self.thread is not None:
                await self.thread.stop()
    """

    def __init__(
        self,
        name: str,
        acquire: Callable[[threading.Event], None],
        receiver: FrameReceiver,
    ) -> None:
        self._acquire = acquire
        self._receiver = receiver
        self._stopping = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # A daemon: an interpreter that exits does not wait for a camera.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._acquire(self._stopping)
        except BaseException as error:
            self._receiver.fail(error)
        finally:
            call_soon(self._loop, self._end)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def stop(self) -> None:
        """Ask the thread to end and wait until it delivers nothing more."""
        self._stopping.set()
        await asyncio.shield(self._ended)
