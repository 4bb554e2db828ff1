"""What the parts of a beamtime share."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.index_follower import IndexFollower
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.samples import SampleMetadata
from bluesky_beamtime.database.search import Runs
from bluesky_beamtime.errors import ReadOnlyError
from bluesky_beamtime.recording import (
    DocumentRecorder,
)
from bluesky_beamtime.storage import FrameStore

if TYPE_CHECKING:
    from bluesky_beamtime.beamtime.attaching import Attachment
    from bluesky_beamtime.database.replica import Following


class Parts:
    """Attributes that :class:`~bluesky_beamtime.Beamtime` makes and its parts use."""

    mode: Literal["a", "r"]
    path: Path
    _database: Database
    _journal: JournalIndex
    _runs: Runs
    _recorder: DocumentRecorder | None
    _following: Following | None
    _index: IndexFollower | None
    _frames: FrameStore | None
    _sample: SampleMetadata | None
    _attached: dict[int, Attachment]

    def _read_only(self, what: str) -> ReadOnlyError:
        return ReadOnlyError(
            f"{str(self._database.path)!r} was opened with mode='r' and cannot {what}; "
            "open it with mode='a'"
        )

    def _follow(self, following: Following, *, numbers: bool) -> None:
        self._following = following
        # Also when nobody closes this beamtime: the threads do not know it.
        self._stop_following = weakref.finalize(self, following.close)
        following.start(numbers=numbers)
