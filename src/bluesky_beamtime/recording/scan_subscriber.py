"""A ScanStorage behind a RunEngine: its scans become arrays while they are taken."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bluesky_beamtime.database.kinds import is_array
from bluesky_beamtime.recording.bounded_thread import BoundedThread
from bluesky_beamtime.recording.scan_filling import ScanFilling
from bluesky_beamtime.recording.scan_runs import Claim, ScanRuns

if TYPE_CHECKING:
    from bluesky_beamtime.storage import ScanStorage

Document = Mapping[str, Any]
logger = logging.getLogger(__name__)
# Documents that may wait before the plan does: arrays in events fill the memory.
_MOST_WAITING = 256
# Seconds between two looks at the axes: to write them costs as much as a point.
_REFRESH = 0.25
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class _Told:
    """A document on its way to the thread."""

    name: str
    doc: Document


class ScanSubscriber:
    """Makes an N-dimensional array with axes of each scan, while it is taken.

    ``RE.subscribe(ScanSubscriber(storage))``. The array is reserved when the first
    descriptor of the stream says what it will hold, and has one axis for each axis of
    the scan, then those of a frame; ``storage.buffer`` can be read while it fills. At
    the end of the run it is saved with what there is, and with the axes that were
    measured: the same as ``run["primary"].to_grid()`` gives of a recorded run. ::

        scans = ScanStorage("maps", name="map")
        with ScanSubscriber(scans) as live:
            RE.subscribe(live)
            RE(bp.grid_scan([cam], y, 0, 1, 5, x, 0, 1, 7, snake_axes=True))
        scans.wait()                          # maps/folder/map_0.zarr

    A run without a ``shape``, or one that does not run row by row, as a square spiral,
    becomes one axis of ``num_points`` points; along it stand the positions of the motor
    that moved, or the times. A point that is measured again
    counts as the last time. Frames may come in events, or through StreamDatums, which
    are read as they are announced.

    It works in a thread of its own; the plan waits for it at the end of a run, and when
    the disk is far behind. Nothing is raised into the plan: a run that makes no array
    is left out with a warning; what could not be taken is tried again at the end of the
    run and logged as an error, as is a run that comes while another one goes on and
    fills the storage, and :meth:`close` raises it. A save that fails is told by
    ``storage.saveFailed``.

    A run whose stop document never came, as when the subscriber was taken from the
    RunEngine before the end, goes on until a whole later run, or 64 documents of one,
    came without any of it: then it is saved with what it has, and the later run fills
    its array with all that came meanwhile.

    Parameters
    ----------
    storage
        Where the arrays go; it numbers the files, one for each run. For runs that
        overlap give each a storage and subscriber of its own, or filter.
    field
        Data key whose values make the array; by default the first image that the
        devices hint at, or else the first number that is no axis, of those that they
        hint at before the others.
    stream
        Name of the stream.
    fill
        What stands where nothing was measured; by default NaN, 0 for integers.
    end_timeout
        How long the end of a run waits for what is left to be written, in seconds.
    open_array
        Opens what a StreamResource tells of; by default
        :func:`~bluesky_beamtime.storage.open_frames`.

    Attributes
    ----------
    error : Exception or None
        The first failure since the last :meth:`close`.

    Notes
    -----
    The tags are ``field``, ``stream``, ``dims``, ``units``, ``axis_units``,
    ``plan_name``, ``scan_id``, ``uid``, ``sample`` if the run names one, and
    ``exit_status``; ``positions`` of what moved along an axis besides the motor that
    names it; ``problem`` if there were more events than points. Listeners of
    ``storage.tagRequest`` add to them. They, and those of the other signals, are called
    in the thread of this object, so that they must neither :meth:`wait` for it nor
    :meth:`close` it.
    """

    def __init__(
        self,
        storage: ScanStorage,
        field: str | None = None,
        stream: str = "primary",
        *,
        fill: Any = None,
        end_timeout: float = 30.0,
        open_array: Callable[[Mapping[str, Any]], Any] | None = None,
    ) -> None:
        self._storage = storage
        self._options = (field, stream, fill, open_array)
        self._end_timeout = end_timeout
        self._lock = threading.Lock()
        self._thread: BoundedThread | None = None
        self._runs = ScanRuns(self._make, self._note)
        self.error: Exception | None = None

    @property
    def storage(self) -> ScanStorage:
        """Where the arrays go."""
        return self._storage

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of a RunEngine; returns at once, but at the end of a run."""
        thread = self._thread
        if thread is None:
            if name != "start":
                return
            thread = self._begin()
        if name == "event":
            # A device may measure into the same array again.
            doc = {**doc, "data": {k: _own(v) for k, v in doc["data"].items()}}
        thread.put(_Told(name, doc))
        if name == "stop" and not thread.wait(self._end_timeout):
            logger.warning(
                "the array of the scan is not complete after %g s; it goes on filling "
                "in the background",
                self._end_timeout,
            )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until what was emitted is on disk, or failed; return whether it is.

        A run that waits to know whether the one before it goes on is not waited for.

        Parameters
        ----------
        timeout
            Seconds; None for no limit. What is being saved is waited for by
            ``storage.wait()``.

        Raises
        ------
        StoreStateError
            A listener of the storage waits, which is called in that thread.
        """
        thread = self._thread
        return True if thread is None else thread.wait(timeout)

    def close(self) -> None:
        """Take what was emitted, save runs that have not ended, and end the thread.

        The storage goes on saving; the next run would begin anew.

        Raises
        ------
        StoreStateError
            A listener of the storage closes it, which is called in that thread.
        BeamtimeError
            The first thing that went wrong since it began.
        """
        thread = self._thread
        if thread is not None:
            thread.end()
            if self._thread is thread:
                self._thread = None
        error, self.error = self.error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --------------------------------------------------------------------- thread

    def _begin(self) -> BoundedThread:
        with self._lock:
            if self._thread is None:
                self._thread = BoundedThread(
                    self._work, _MOST_WAITING, "scan-subscriber"
                )
            return self._thread

    def _work(self, waiting: queue.Queue[Any]) -> None:
        refreshed = time.monotonic()
        item: Any
        while True:
            try:
                item = waiting.get(timeout=_REFRESH if self._runs else None)
            except queue.Empty:
                item = _NOTHING
            if item is None:
                break
            if isinstance(item, _Told):
                try:
                    self._runs.take(item.name, item.doc)
                except Exception as error:
                    # A document that is no document; the next run may be well.
                    self._note("a document was not understood", error)
            if not isinstance(item, _Told) or time.monotonic() > refreshed + _REFRESH:
                self._runs.refresh()
                refreshed = time.monotonic()
            if isinstance(item, threading.Event):
                item.set()
        self._runs.end()

    def _make(self, start: Document, claim: Claim) -> ScanFilling:
        field, stream, fill, open_array = self._options
        return ScanFilling(self._storage, start, field, stream, fill, open_array, claim)

    def _note(self, what: str, error: Exception) -> None:
        self.error = self.error or error
        logger.error("%s: %s", what, error, exc_info=error)


def _own(value: Any) -> Any:
    return value.copy() if is_array(value) else value
