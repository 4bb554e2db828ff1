"""A beamtime by the URL of a server."""

from __future__ import annotations

import os
from dataclasses import dataclass

from bluesky_beamtime.database.connect import Durability
from bluesky_beamtime.database.connections import Mode
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.replica.following import Following, announce
from bluesky_beamtime.database.replica.server import Server
from bluesky_beamtime.database.replica.server_database import (
    ServerDatabase,
    ServerJournals,
)
from bluesky_beamtime.database.replica.spool import spool_path


@dataclass(frozen=True, slots=True)
class OpenedServer:
    """What a :class:`~bluesky_beamtime.Beamtime` at a server consists of."""

    database: Database
    """The server to read from, or the file that is recorded into."""
    journal: JournalIndex
    """Which runs have documents in a journal."""
    following: Following | None
    """The server that follows the file, when there is one."""


def open_server(
    url: str,
    *,
    mode: Mode,
    durability: Durability,
    frames: str | None = None,
    spool: str | os.PathLike[str] | None = None,
    keep_local: bool = True,
) -> OpenedServer:
    """Open a beamtime at a server, to read it or to record into it.

    With ``mode="a"`` nothing asks the server anything yet: it need not be there.

    Raises
    ------
    ServerError
        No URL of a PostgreSQL database; or, with ``mode="r"``, the server is away.
    DatabaseError
        The file that is recorded into cannot be used.
    """
    server = Server.of(url)
    if mode == "r":
        there = ServerDatabase(server)
        return OpenedServer(there, ServerJournals(there), None)
    database = Database(spool_path(server, spool), mode=mode, durability=durability)
    try:
        following = Following(database, server, frames=frames, keep_local=keep_local)
        announce(database, server)
    except BaseException:
        database.close()
        raise
    return OpenedServer(database, JournalIndex(database.journal), following)
