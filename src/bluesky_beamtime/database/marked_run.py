"""What people add to a run: tags, a star, notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from bluesky_beamtime.database import labels
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.notes import Note, add_note, read_notes
from bluesky_beamtime.database.texts import store_text

_T = TypeVar("_T")


class MarkedRun:
    """A run that is found by what people say of it; see :class:`Run`."""

    database: Database
    uid: str

    @property
    def tags(self) -> list[str]:
        """Tags of the start document and those that were added later, sorted."""
        with self.database.reading() as connection:
            return labels.read_tags(connection, self.uid)

    @property
    def starred(self) -> bool:
        """Whether the run has a star."""
        with self.database.reading() as connection:
            return labels.has_star(connection, self.uid)

    @property
    def notes(self) -> list[Note]:
        """What people wrote down about the run, the oldest first."""
        with self.database.reading() as connection:
            return read_notes(connection, self.uid)

    # --------------------------------------------------------------- what people add

    def tag(self, *tags: str) -> None:
        """Add tags; the run is found by them.

        Raises
        ------
        DocumentError
            A tag that is no text.
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        checked = labels.check_tags(tags)
        self._change(lambda c: labels.add_tags(c, self.uid, checked))

    def untag(self, *tags: str) -> None:
        """Take tags away, those of the start document too; none need be there.

        Raises
        ------
        DocumentError
            A tag that is no text.
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        checked = labels.check_tags(tags)
        self._change(lambda c: labels.remove_tags(c, self.uid, checked))

    def star(self) -> None:
        """Give the run a star, so that it is found among the good ones.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        self._change(lambda c: labels.set_star(c, self.uid, True))

    def unstar(self) -> None:
        """Take the star away.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        self._change(lambda c: labels.set_star(c, self.uid, False))

    def note(self, text: str, *, author: str | None = None) -> Note:
        """Write something down about the run; it is found by its text.

        Raises
        ------
        DocumentError
            There is no text.
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        return self._change(lambda c: add_note(c, text, author, self.uid))

    def _change(self, change: Callable[[Connection], _T]) -> _T:
        with self.database.writing() as connection:
            result = change(connection)
            store_text(connection, self.uid)
        return result
