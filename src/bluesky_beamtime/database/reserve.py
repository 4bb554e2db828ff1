"""Space that is kept back for the documents that a full disk could not take."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 1 << 20


class SpaceReserve:
    """A file that takes space until it is needed.

    A disk that is full cannot take the document that says so. Giving up the reserve
    makes room for it, and for those that end the run.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def beside(cls, database: Path) -> SpaceReserve:
        """Return the reserve of a database, a hidden file beside it."""
        return cls(database.with_name(f".{database.name}.reserve"))

    def keep(self) -> bool:
        """Keep space back, unless it is; return whether it is.

        A disk that has no room for it is left alone.
        """
        with suppress(OSError):
            if self.path.stat().st_size >= RESERVE_BYTES:
                return True
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError:
            with suppress(OSError):
                self.path.unlink()
            return False
        finally:
            os.close(fd)
        return True

    def release(self) -> bool:
        """Give the space back; return whether there was any."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True
