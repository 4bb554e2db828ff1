"""Notes that people write down: of a run, or of the beamtime as a whole."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.fulltext import clean
from bluesky_beamtime.errors import DocumentError

_notes = schema.notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What somebody wrote down."""

    text: str
    """The text."""
    author: str | None = None
    """Who wrote it, if that was said."""
    time: float
    """When, in seconds since 1970."""
    run_uid: str | None = None
    """Uid of the run; None for a note of the whole beamtime."""

    def __str__(self) -> str:
        """Give the text, and who wrote it."""
        return self.text if self.author is None else f"{self.text} ({self.author})"


def add_note(
    connection: Connection, text: str, author: str | None, run_uid: str | None
) -> Note:
    """Store a note and return it.

    Parameters
    ----------
    connection
        Inside a transaction that writes.
    text, author
        As given by people.
    run_uid
        Uid of the run; None for the whole beamtime.

    Raises
    ------
    DocumentError
        There is no text.
    """
    given: object = text
    if not isinstance(given, str) or not given.strip():
        raise DocumentError(f"a note needs a text, not {given!r:.80}")
    note = Note(
        text=clean(given),
        author=None if author is None else clean(str(author)),
        time=time.time(),
        run_uid=run_uid,
    )
    connection.execute(
        insert(_notes).values(
            run_uid=run_uid, time=note.time, author=note.author, text=note.text
        )
    )
    return note


def read_notes(connection: Connection, run_uid: str | None) -> list[Note]:
    """Return the notes of a run, or those of the whole beamtime; the oldest first."""
    mine = _notes.c.run_uid
    query = (
        select(_notes.c.text, _notes.c.author, _notes.c.time, mine)
        .where(mine.is_(None) if run_uid is None else mine == run_uid)
        .order_by(_notes.c.id)
    )
    return [Note(**row) for row in connection.execute(query).mappings()]
