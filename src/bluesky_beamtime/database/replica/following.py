"""What follows a beamtime to a server: its rows, its frames, its numbers."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from sqlalchemy import func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.replica.frames import FrameFollower
from bluesky_beamtime.database.replica.numbers import ScanNumbers
from bluesky_beamtime.database.replica.replicator import (
    ReplicaProgress,
    Replicator,
    describe,
)
from bluesky_beamtime.database.replica.server import Server
from bluesky_beamtime.database.scan_ids import largest_scan_id

logger = logging.getLogger(__name__)


class Following:
    """A server that follows the file of a beamtime while it is recorded.

    Parameters
    ----------
    database
        The file, opened for recording.
    server
        The server.
    frames
        URL of the object store to which the frames are copied, if any.
    keep_local
        Whether frames stay here after they were copied.
    """

    def __init__(
        self,
        database: Database,
        server: Server,
        *,
        frames: str | None = None,
        keep_local: bool = True,
    ) -> None:
        self.server = server
        self._database = database
        self.rows = Replicator(database, server, frames=frames)
        self.frames: FrameFollower | None = None
        if frames is not None:
            self.frames = FrameFollower(
                database, self.rows.places, keep_local=keep_local
            )
        self._numbers: ScanNumbers | None = None
        self._warned = False

    def start(self, *, numbers: bool) -> None:
        """Begin to follow.

        Parameters
        ----------
        numbers
            Whether scan numbers are those of the server.
        """
        self.rows.start()
        if self.frames is not None:
            self.frames.start()
        if numbers:
            self._numbers = ScanNumbers(self.server)

    @property
    def progress(self) -> ReplicaProgress:
        """How far it is, as of the last look."""
        return self.rows.progress

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that is here now is there; say whether it is.

        Parameters
        ----------
        timeout
            Seconds; None for as long as it takes.
        """
        began = time.monotonic()
        if self.frames is not None and not self.frames.wait(timeout):
            return False
        left = None if timeout is None else timeout - (time.monotonic() - began)
        return self.rows.wait(left)

    def at_least(self, number: int) -> int:
        """Return what a new scan number must be larger than, to be unique everywhere.

        That is known while the server answers at once. Otherwise the number is unique
        on this machine, which is said once.
        """
        if self._numbers is None:
            return number
        with self._database.reading() as connection:
            number = max(number, largest_scan_id(connection))
        reserved = self._numbers.reserve(number)
        if reserved is None:
            if not self._warned:
                logger.warning(
                    "%s does not answer: scan numbers go on, but another machine that "
                    "records there may use the same ones meanwhile",
                    self.server,
                )
            self._warned = True
            return number
        self._warned = False
        return reserved - 1

    def describe(self) -> dict[str, Any]:
        """Return how far it is as plain values, for JSON."""
        facts = describe(self.progress)
        if self.frames is not None:
            frames = self.frames.progress
            facts["frames"] = {"stores_behind": frames.behind, "bytes": frames.copied}
            if facts["failure"] is None and frames.failure is not None:
                facts["failure"] = str(frames.failure)
        return facts

    def close(self, timeout: float = 3.0) -> None:
        """Copy the rest as far as that is possible in time, and stop."""
        if self._numbers is not None:
            self._numbers.close()
        if self.frames is not None:
            self.frames.close(timeout)
        self.rows.close(timeout)

    def __repr__(self) -> str:
        return f"<Following {self.server}: {self.progress}>"


def announce(database: Database, server: Server) -> None:
    """Say once where a beamtime is recorded first."""
    with database.reading() as connection:
        query = select(func.count()).select_from(schema.runs)
        if connection.execute(query).scalar_one() == 0:
            print(
                f"recording into {database.path}, from where {server} follows",
                file=sys.stderr,
            )
