"""Numbers of long runs copied to columns while nothing is being measured."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.packed import (
    FEWEST_EVENTS,
    pack_stream,
    streams_to_pack,
    unpacked_streams,
)
from bluesky_beamtime.errors import BeamtimeError

logger = logging.getLogger(__name__)


class Packer:
    """Packs runs that have stopped, in a thread, and gives way to runs that begin.

    The copy makes reading quick and nothing else: whatever goes wrong with it is a line
    in the log, and the rows are read instead.

    Parameters
    ----------
    database
        The database.
    is_idle
        Says whether no run is open; asked every millisecond or so.
    """

    def __init__(self, database: Database, is_idle: Callable[[], bool]) -> None:
        self._database = database
        self._is_idle = is_idle
        self._waiting: deque[str] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def stopped(self, run_uid: str, num_events: int) -> None:
        """Take note of a run that has stopped; costs next to nothing.

        Parameters
        ----------
        run_uid
            The run.
        num_events
            Its events; a run with few is as quick to read from its rows.
        """
        with self._lock:
            if num_events >= FEWEST_EVENTS and run_uid not in self._waiting:
                self._waiting.append(run_uid)
            if not self._waiting or self._closed or self._thread is not None:
                return
            self._thread = threading.Thread(
                target=self._pack, name="beamtime-packer", daemon=True
            )
            self._thread.start()

    def _pack(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or not self._go_on():
                    self._thread = None
                    return
                run_uid = self._waiting[0]
            try:
                uids = streams_to_pack(self._database, run_uid)
                done = all(
                    pack_stream(self._database, uid, self._go_on) for uid in uids
                )
            except BeamtimeError as error:
                logger.info("run %s stays in rows alone: %s", run_uid, error)
                done = True
            except Exception:
                logger.exception("run %s stays in rows alone", run_uid)
                done = True
            if done:
                with self._lock:
                    self._waiting.popleft()

    def _go_on(self) -> bool:
        return not self._closed and self._is_idle()

    def pack_all(self) -> int:
        """Pack every run that is over, whoever recorded it, also beside an open one.

        Returns
        -------
        int
            Streams that were packed.

        Raises
        ------
        DatabaseError
            The database cannot be read or written.
        """
        self.wait()
        uids = unpacked_streams(self._database)
        return sum(
            pack_stream(self._database, uid, lambda: not self._closed) for uid in uids
        )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being packed; returns whether everything is.

        Parameters
        ----------
        timeout
            Seconds.
        """
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return not self._waiting

    def close(self) -> None:
        """Leave what is not packed yet as it is; may be called again."""
        with self._lock:
            self._closed = True
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
