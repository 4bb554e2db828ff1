"""What an archive says of itself: whose it is, and what it holds."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from bluesky_beamtime.errors import ArchiveError

STATE_FILE = "ARCHIVE.json"
"""Name of the file, beside the files of the beamtime."""

_FORMAT = 1
# Seconds; later ones have no date that can be printed.
_END_OF_CALENDAR = 250_000_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that an archive holds."""

    sha256: str
    """Hash of its content, computed from what the store gave back."""
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970 at which the original was last changed, 0 if it cannot be
    told from that whether it has changed since."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which beamtime it is, and how far it has got."""

    beamtime: str
    """Name of the file."""
    first_run: str | None
    """Uid of its first run, None if there is none yet."""
    newest_run: str | None
    """Uid of its newest run."""
    runs: int
    """How many there are."""

    @classmethod
    def of(cls, name: str, connection: sqlite3.Connection) -> Identity:
        """Return the identity of an open database."""
        query = "SELECT uid FROM runs ORDER BY id {} LIMIT 1"
        ends = [
            connection.execute(query.format(order)).fetchone() or (None,)
            for order in ("ASC", "DESC")
        ]
        (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
        return cls(name, ends[0][0], ends[1][0], runs)

    def check_continues(
        self, archived: Identity, connection: sqlite3.Connection, url: str
    ) -> None:
        """Raise unless an archive of ``archived`` may take what is here now.

        Raises
        ------
        ArchiveError
            It holds another beamtime, or runs that this file does not have.
        """
        if archived.beamtime != self.beamtime or (
            archived.first_run not in (None, self.first_run)
        ):
            raise ArchiveError(
                f"{url} is the archive of {archived.beamtime!r}, another beamtime "
                f"({archived.runs} runs); nothing was changed. Give {self.beamtime!r} "
                "a place of its own, such as a folder below",
                filename=url,
            )
        known = connection.execute(
            "SELECT count(*) FROM runs WHERE uid = ?", (archived.newest_run,)
        ).fetchone()
        if archived.newest_run is not None and not known[0]:
            raise ArchiveError(
                f"{url} has the run {archived.newest_run[:8]}, which "
                f"{self.beamtime!r} does not have: this is an older copy of the file, "
                "or both went on by themselves. Nothing was changed; archive it to "
                "another place",
                filename=url,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveState:
    """Content of :data:`STATE_FILE`."""

    identity: Identity
    """Whose archive it is."""
    session: str
    """Who wrote this last: a random word for each time that something was sent."""
    time: float
    """When, in seconds since 1970."""
    entries: Mapping[str, Entry]
    """What is there and was compared, by name."""
    absent: tuple[str, ...] = ()
    """What documents refer to and the archive does not have, each in a line."""

    def encode(self) -> bytes:
        """Return it as JSON."""
        content: dict[str, Any] = {
            "format": _FORMAT,
            **asdict(self.identity),
            "session": self.session,
            "time": self.time,
            "absent": self.absent,
            "files": {
                name: [entry.sha256, entry.size, entry.modified]
                for name, entry in sorted(self.entries.items())
            },
        }
        return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def decode(cls, data: bytes, url: str) -> ArchiveState:
        """Return what :meth:`encode` wrote.

        Raises
        ------
        ArchiveError
            It is damaged, or of a newer version.
        """
        try:
            content: Any = orjson.loads(data)
            if content["format"] > _FORMAT:
                raise ArchiveError(
                    f"{url} was written by a newer version of bluesky-beamtime; "
                    "nothing was changed. Upgrade: pip install -U bluesky-beamtime",
                    filename=url,
                )
            return cls(
                identity=Identity(
                    beamtime=_checked(content["beamtime"], str),
                    first_run=_checked(content["first_run"], str, type(None)),
                    newest_run=_checked(content["newest_run"], str, type(None)),
                    runs=_checked(content["runs"], int),
                ),
                session=_checked(content["session"], str),
                time=_date(content["time"]),
                entries={
                    name: Entry(_hash(digest), _checked(size, int), _time(modified))
                    for name, (digest, size, modified) in content["files"].items()
                },
                absent=tuple(_checked(line, str) for line in content["absent"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArchiveError(
                f"{STATE_FILE!r} in {url} cannot be read: {error!r}. The files are "
                "there still: 'sha256sum -c MANIFEST.sha256' checks them",
                names=(STATE_FILE,),
                filename=url,
            ) from error


def _checked(value: Any, *kinds: type) -> Any:
    """Return a value of an archive that others may have written, if it is of a kind."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{value!r} has no place there")
    return value


def _hash(value: Any) -> str:
    if not re.fullmatch("[0-9a-f]{64}", _checked(value, str)):
        raise ValueError(f"{value!r} is no SHA-256")
    return value


def _date(value: Any) -> float:
    if not 0 <= _checked(value, float, int) < _END_OF_CALENDAR:
        raise ValueError(f"{value!r} is no date")
    return value


def _time(value: Any) -> int:
    if not 0 <= _checked(value, int) < 1 << 63:
        raise ValueError(f"{value!r} is no time")
    return value
