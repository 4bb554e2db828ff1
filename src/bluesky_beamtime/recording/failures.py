"""Why a document was not stored: itself, the disk, the database, the journal."""

from __future__ import annotations

import errno

from bluesky_beamtime.database.run_recorder import RunRecorder
from bluesky_beamtime.errors import (
    BeamtimeError,
    DatabaseWriteError,
    DocumentError,
    IntegrityError,
)

# What a document that lacks something, or has it in another type, makes of our code.
_MALFORMED = (
    DocumentError,
    IntegrityError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    ArithmeticError,
    ValueError,
    RecursionError,
)


class JournalError(Exception):
    """The journal could not be written: passes by everything that would journal it."""

    def __init__(self, cause: DatabaseWriteError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class NotStoredError(Exception):
    """A document that was not stored, with its run if that is known."""

    def __init__(self, cause: Exception, run: RunRecorder | None) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.run = run


def is_malformed(error: Exception) -> bool:
    """Say whether a document is to blame that it could not be stored."""
    return isinstance(error, _MALFORMED)


def is_full_disk(error: Exception) -> bool:
    """Say whether a disk has no room, under the database or under the journal."""
    if isinstance(error, JournalError):
        error = error.cause
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def in_words(error: Exception) -> str:
    """Return what is wrong in words for people."""
    if isinstance(error, BeamtimeError):
        return str(error)
    if type(error) is KeyError and error.args:
        return f"{error.args[0]!r} is missing"
    return f"{type(error).__name__}: {error}"
