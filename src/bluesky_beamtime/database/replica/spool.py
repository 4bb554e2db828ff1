"""Where a beamtime on a server is recorded first."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from bluesky_beamtime.database.replica.server import Server
from bluesky_beamtime.errors import ReadOnlyError


def spool_path(server: Server, folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the file that is recorded into, and make its folder.

    Parameters
    ----------
    server
        The server; each has a folder of its own below the default.
    folder
        The folder; by default one below ``$XDG_STATE_HOME/bluesky-beamtime``, which is
        ``~/.local/state/bluesky-beamtime``.

    Raises
    ------
    ReadOnlyError
        The folder cannot be made.
    """
    database = re.sub(r"[^\w.-]", "_", server.url.database or "beamtime")
    if folder is None:
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        host = re.sub(r"[^\w.-]", "_", server.url.host or "localhost")
        # Two servers may be told apart by their port alone.
        digest = hashlib.sha256(server.name.encode()).hexdigest()[:8]
        place = Path(state).expanduser() / "bluesky-beamtime" / f"{host}-{digest}"
    else:
        place = Path(folder).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReadOnlyError(
            f"cannot make the folder {str(place)!r}, where the beamtime is recorded "
            f"first: {os.strerror(error.errno or 0)}; choose another with spool="
        ) from error
    return place / f"{database}.db"
