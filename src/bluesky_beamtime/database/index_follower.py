"""A beamtime that tells an index of its runs, without ever waiting for it."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from contextlib import suppress
from pathlib import Path

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.index_entries import bring_up_to_date
from bluesky_beamtime.database.index_writer import IndexWriter
from bluesky_beamtime.errors import BeamtimeWarning

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
# Seconds that close() waits for an index that is slow.
_PATIENCE = 3.0
_BUSY_TIMEOUT = 1.0


class IndexFollower:
    """Brings an index up to date with a beamtime, in a thread of its own.

    The index may be locked, full, or on a disk that is absent: a warning says so once,
    and it is caught up later, here or when the beamtime is opened the next time.

    Parameters
    ----------
    database
        The beamtime, which is only read.
    index
        File of the index; its folder must be there when it is written to.
    researcher
        Whose beamtime it is: the name, or the number in the index.
    label
        How the index shall call the beamtime; by default its name without ``.db``.
    """

    def __init__(
        self,
        database: Database,
        index: str | os.PathLike[str],
        *,
        researcher: str | int | None = None,
        label: str | None = None,
    ) -> None:
        self.path = Path(index).expanduser()
        self._database = database
        self._writer = IndexWriter(self.path, timeout=_BUSY_TIMEOUT)
        self._researcher = researcher
        self._label = database.path.name.removesuffix(".db") if label is None else label
        self._something = threading.Event()
        self._something.set()
        self._closing = threading.Event()
        self._warned = False
        self._lock = threading.Lock()
        self._caught_up = threading.Event()
        self._thread = threading.Thread(
            target=self._follow, name="beamtime-index", daemon=True
        )
        self._thread.start()

    def notify(self) -> None:
        """Say that a run began or ended; costs about a microsecond."""
        with self._lock:
            self._caught_up.clear()
            self._something.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the index knows all; return whether it does."""
        return self._caught_up.wait(timeout)

    def close(self) -> None:
        """Bring the index up to date once more, and stop; may be called again.

        Waits three seconds at most.
        """
        self._closing.set()
        self._something.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(_PATIENCE)

    def _follow(self) -> None:
        pause: float | None = None
        while True:
            self._something.wait(pause)
            closing = self._closing.is_set()
            self._something.clear()
            if self._try():
                pause = None
            else:
                pause = min(2 * pause, _LONGEST_PAUSE) if pause else _FIRST_PAUSE
            if closing:
                return

    def _try(self) -> bool:
        try:
            researcher = self._researcher
            if isinstance(researcher, str):
                researcher = self._writer.register_researcher(
                    researcher, self._database.folder
                )
            number = self._writer.register_beamtime(
                researcher, self._label, self._database.path
            )
            bring_up_to_date(self._writer, self._database, number)
        except Exception as error:
            # Whatever it is, the record of the beamtime is not touched by it.
            self._warn(error)
            return False
        self._warned = False
        with self._lock:
            if not self._something.is_set():
                self._caught_up.set()
        return True

    def _warn(self, error: Exception) -> None:
        if self._warned or self._database.closed:
            return
        self._warned = True
        message = (
            f"the index {str(self.path)!r} does not hear of the runs of "
            f"{self._database.path.name!r} for now: {error}. The beamtime goes on; the "
            "index is caught up when it can be written, or by beamtime index refresh"
        )
        logger.warning("%s", message)
        with suppress(Warning):
            warnings.warn(message, BeamtimeWarning, stacklevel=2)
