"""What an archive did, as a whole and file by file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bluesky_beamtime.exports.archive_state import Entry
from bluesky_beamtime.exports.assets import Absent

_MOST_NAMES = 5


def list_reasons(wrong: Mapping[str, str]) -> str:
    """Return files and what is wrong with each, as part of a sentence."""
    first = sorted(wrong.items())[:_MOST_NAMES]
    more = len(wrong) - len(first)
    listed = "; ".join(f"{name!r} ({why})" for name, why in first)
    return f"{listed}; and {more} more" if more else listed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file."""

    name: str
    """Its name in the archive."""
    action: Literal[
        "sent", "found", "unchanged", "kept", "gone", "unreadable", "failed"
    ]
    """As in :class:`ArchiveReport`; ``gone``: removed by others before its turn."""
    entry: Entry | None = None
    """What the archive has now."""
    changing: bool = False
    """Whether it was written while it was read."""
    why: str = ""
    """Why it failed."""


@dataclass(slots=True, kw_only=True)
class ArchiveReport:
    """What :func:`archive` did."""

    url: str
    """The archive."""
    dry_run: bool = False
    """Whether nothing was written, and ``sent`` is what would have been."""
    files: int = 0
    """Files in the archive now."""
    size: int = 0
    """Their bytes."""
    sent: int = 0
    """Files that were sent, read back and found equal by their SHA-256."""
    sent_size: int = 0
    """Their bytes."""
    found: int = 0
    """Files that were there already, from an archive that was interrupted: read here
    and there, and equal."""
    unchanged: int = 0
    """Files that an earlier archive has proven and that have not changed since, by size
    and time of change, or by their hash. At the far end their size was looked at."""
    kept: int = 0
    """Files of earlier archives that are not here any more; the archive keeps them."""
    changing: list[str] = field(default_factory=list[str])
    """Files, other than frames, that were written while they were read."""
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    """Files that were left out as they cannot be read here, each with the reason. What
    the archive has of them from earlier stays."""
    absent: tuple[Absent, ...] = ()
    """What documents refer to and the archive does not have."""
    live: bool = False
    """Whether the beamtime was being recorded into."""
    seconds: float = 0.0
    """How long it took."""

    @property
    def up_to_date(self) -> bool:
        """Whether there was nothing to do."""
        return not self.sent and not self.found

    def add(self, outcome: Outcome) -> None:
        """Count what became of a file."""
        if outcome.entry is None:
            return
        if outcome.action == "sent":
            self.sent += 1
            self.sent_size += outcome.entry.size
        elif outcome.action == "found":
            self.found += 1
        elif outcome.action == "kept":
            self.kept += 1
        else:
            self.unchanged += 1
        if outcome.changing:
            self.changing.append(outcome.name)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = (*self.__slots__, "up_to_date")
        found = {name: getattr(self, name) for name in names}
        return {**found, "absent": [str(absent) for absent in self.absent]}
