"""One thing that is wrong with a beamtime."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, where, and what to do about it."""

    kind: str
    """A word for machines; see :func:`~bluesky_beamtime.database.verify`."""
    where: str
    """File, table and row, or run."""
    what: str
    """What is wrong, in words."""
    next_step: str
    """What to do about it."""

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.kind}: {self.where}: {self.what}. Next: {self.next_step}"
