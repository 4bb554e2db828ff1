"""The thread that brings written frames to the disk and lets readers see them."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from bluesky_beamtime.errors import StoreWriteError

# Frames reach the disk, and the length reaches readers, within 50 ms of their write.
INTERVAL = 0.025


class Growing(Protocol):
    """What a pacer looks after, such as a :class:`ShardedArray`."""

    @property
    def unsynced(self) -> bool:
        """Whether a power cut would lose something that was acknowledged."""
        ...

    def sync(self) -> None:
        """Bring every frame written so far to the disk itself."""
        ...

    def publish(self) -> int:
        """Let fresh readers see every frame that is written."""
        ...


class Pacer:
    """Syncs and publishes growing arrays, some forty times a second.

    What fails here would otherwise be lost silently, so it is kept and raised by
    :meth:`check` for as long as it goes on failing. A sync that failed may have lost
    data although the next one succeeds: it is raised once in any case, at the latest by
    :meth:`check_synced`.

    Parameters
    ----------
    arrays
        Returns the arrays to look after; called from the thread.
    name
        Name for the thread.
    """

    def __init__(self, arrays: Callable[[], Iterable[Growing]], name: str) -> None:
        self._arrays = arrays
        self._stop = threading.Event()
        self._failing: dict[Growing, StoreWriteError] = {}
        self._unsaid: dict[Growing, StoreWriteError] = {}
        self._thread = threading.Thread(
            target=self._run, name=f"beamtime-pacer {name}", daemon=True
        )
        self._thread.start()

    def check(self, array: Growing) -> None:
        """Raise what fails for an array; called with every frame."""
        if self._unsaid or self._failing:
            self.check_synced(array)
            failure = self._failing.get(array)
            if failure is not None:
                raise failure.with_traceback(None)

    def check_synced(self, array: Growing) -> None:
        """Raise a failed sync of an array that was not raised yet."""
        failure = self._unsaid.pop(array, None)
        if failure is not None:
            raise failure.with_traceback(None)

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            for array in self._arrays():
                failure = self._look_after(array)
                if failure is None:
                    self._failing.pop(array, None)
                else:
                    self._failing[array] = failure

    def _look_after(self, array: Growing) -> StoreWriteError | None:
        try:
            if array.unsynced:
                array.sync()
        except Exception as error:
            failure = _named(error, array, "synced")
            self._unsaid[array] = failure
            return failure
        try:
            array.publish()
        except StoreWriteError as error:
            # On a full disk the next frame or publish says so itself, and a length
            # that lags is no loss: every frame is in its file.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                return error
        except Exception as error:
            return _named(error, array, "published")
        return None


def _named(error: Exception, array: Growing, what: str) -> StoreWriteError:
    """Return an error for who writes next: nobody sees what a thread dies of."""
    if isinstance(error, StoreWriteError):
        return error
    failure = StoreWriteError(f"{array!r} cannot be {what}: {error}")
    failure.__cause__ = error
    return failure
