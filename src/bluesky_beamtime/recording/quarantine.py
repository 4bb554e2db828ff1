"""Documents from elsewhere that cannot be stored, put aside once each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from bluesky_beamtime.recording.journal import Journal


class Quarantine:
    """Writes to the journal of a beamtime what it does not hold yet.

    Parameters
    ----------
    path
        The journal.
    """

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._known: set[str] | None = None

    def add(self, name: Any, doc: Any, reason: str, run: str | None = None) -> None:
        """Put a document aside, unless it is there for the same reason.

        Raises
        ------
        DatabaseWriteError
            The disk refused.
        """
        if self._known is None:
            self._known = self._reasons()
        if reason in self._known:
            return
        self._journal.write(
            name, doc, run=run, ordinal=None, kind="quarantined", reason=reason
        )
        self._known.add(reason)

    def _reasons(self) -> set[str]:
        reasons: set[str] = set()
        try:
            file = self._journal.path.open("rb")
        except FileNotFoundError:
            return reasons
        with file:
            for line in file:
                try:
                    reasons.add(str(orjson.loads(line)["reason"]))
                except (ValueError, KeyError, TypeError):
                    continue
        return reasons
