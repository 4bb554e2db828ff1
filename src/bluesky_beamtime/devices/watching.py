"""A status that ends as soon as its acquisition fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from ophyd_async.core import WatchableAsyncStatus, WatcherUpdate

from bluesky_beamtime.devices.camera_logic import CameraAcquireLogic
from bluesky_beamtime.devices.reception import Reception
from bluesky_beamtime.errors import DeviceError, DeviceTimeoutError


async def watch(
    status: WatchableAsyncStatus[Any],
    acquire: CameraAcquireLogic,
    earlier: Reception | None = None,
) -> AsyncIterator[WatcherUpdate[int]]:
    """Pass on the updates of a status, and end it as soon as the acquisition fails.

    An acquisition that is stopped from outside, by ``unstage`` or by another trigger
    after a pause, ends its status without an error: whoever stopped it knows.

    Parameters
    ----------
    status
        Waits for frames, and would notice a failure only as frames that stay away.
    acquire
        What acquires them.
    earlier
        An acquisition before, which this status is not about.

    Raises
    ------
    BaseException
        What the store or the source failed with.
    DeviceTimeoutError
        No frame came in time.
    """
    news: asyncio.Queue[WatcherUpdate[int] | Reception | None] = asyncio.Queue()

    def updated(**update: Any) -> None:
        news.put_nowait(WatcherUpdate(**update))

    def ended(_: object) -> None:
        news.put_nowait(None)

    # Typed as taking its arguments by position too, and given them by name.
    status.watch(cast(Any, updated))
    status.add_callback(ended)
    acquire.listeners.add(news.put_nowait)
    reception = acquire.reception
    if reception is not None and reception.over.done():
        news.put_nowait(reception)
    try:
        while (item := await news.get()) is not None:
            if isinstance(item, WatcherUpdate):
                yield item
            elif item is earlier:
                # The end of what this status replaces may become known only now.
                continue
            elif item.failure is not None:
                item.failure_told = True
                raise item.failure
            elif item.cut_off:
                return
        try:
            await status
        except DeviceError:
            raise
        except TimeoutError as error:
            raise _no_frame(acquire) from error
    finally:
        acquire.listeners.discard(news.put_nowait)
        await _cancel(status)


def _no_frame(acquire: CameraAcquireLogic) -> DeviceTimeoutError:
    reception = acquire.reception
    received = reception.received if reception is not None else 0
    wanted = (reception.number if reception is not None else 0) or "endless"
    return DeviceTimeoutError(
        f"{acquire.name()} delivered nothing for {acquire.info.exposure_timeout:g} s "
        f"after {received} of {wanted} exposures; check that the camera is running and "
        "triggered, or prepare it with a longer exposure_timeout"
    )


def task_of(status: WatchableAsyncStatus[Any]) -> asyncio.Task[None]:
    """Return the task behind a status, whose type ophyd-async leaves open."""
    return cast("asyncio.Task[None]", status.task)  # pyright: ignore[reportUnknownMemberType]  # as said


async def _cancel(status: WatchableAsyncStatus[Any]) -> None:
    """Cancel a status and wait until it is done."""
    task = task_of(status)
    while not task.done():
        # Python 3.11's wait_for() forgets a cancellation that meets its result.
        task.cancel()
        await asyncio.wait({task}, timeout=0.005)
    if not task.cancelled():
        # Looked at, so that asyncio does not report it once more.
        task.exception()
