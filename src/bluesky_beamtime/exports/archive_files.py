"""One file of a beamtime on its way to an archive: needed, sent, proven."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Container

from bluesky_beamtime.errors import ArchiveError, StoreReadError
from bluesky_beamtime.exports.archive_report import Outcome
from bluesky_beamtime.exports.archive_session import ArchiveSession
from bluesky_beamtime.exports.archive_state import Entry
from bluesky_beamtime.exports.belongings import Belonging
from bluesky_beamtime.exports.far_end import FarEnd, Reading

# A file changed that lately may change again without a later time.
_UNSETTLED_NS = 2_000_000_000
# A file that changes while it is read is read again so often.
_TRIES = 3
# Frames in these are not only added: their metadata changes too.
_REWRITTEN = (".h5", ".hdf5", ".hdf", ".nxs")


class Bringer:
    """Brings files to an archive that has some of them; used by several threads.

    Parameters
    ----------
    far
        The place.
    session
        Knows what is there and proven.
    there
        Names of what is there at all.
    dry_run
        Only find out what would be sent.
    thorough
        Read also what has not changed, here and there.

    Attributes
    ----------
    done : int
        Bytes that were looked at until now.
    """

    def __init__(
        self,
        far: FarEnd,
        session: ArchiveSession,
        there: Container[str],
        *,
        dry_run: bool,
        thorough: bool,
    ) -> None:
        self._far = far
        self._session = session
        self._there = there
        self._dry_run = dry_run
        self._thorough = thorough
        self._counting = threading.Lock()
        self.done = 0

    def bring(self, each: Belonging) -> Outcome:
        """See to it that a file is at the far end.

        Raises
        ------
        BackendError
            The store failed, so that there is no sense in going on.
        """
        try:
            return self._known_already(each) or self._send(each)
        except StoreReadError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                if each.kind == "frames" and not each.name.endswith(_REWRITTEN):
                    # What describes them was read already, and promises them.
                    why = "it was removed while it was being archived"
                    return Outcome(each.name, "failed", why=why)
                return Outcome(each.name, "gone")
            return Outcome(each.name, "unreadable", why=str(error))
        except ArchiveError as error:
            return Outcome(each.name, "failed", why=str(error))

    def bring_data(self, each: Belonging, data: bytes) -> Outcome:
        """See to it that what was read of a file before is at the far end.

        Raises
        ------
        BackendError
            The store failed.
        """
        self._count(len(data))
        entry = Entry(hashlib.sha256(data).hexdigest(), len(data), 0)
        known = self._session.entries.get(each.name)
        if self._size_there(each.name) == entry.size:
            proven = known is not None and known.sha256 == entry.sha256
            if self._is_there(each.name, entry, proven=proven):
                return Outcome(each.name, "unchanged" if proven else "found", entry)
        if not self._dry_run:
            self._session.claim()
            try:
                self._far.put(each.name, data)
            except ArchiveError as error:
                return Outcome(each.name, "failed", why=str(error))
        return Outcome(each.name, "sent", entry)

    def keep(self, name: str) -> Outcome:
        """Look whether a file is there that is not here any more.

        Raises
        ------
        BackendError
            The store failed.
        """
        entry = self._session.entries[name]
        if self._far.size(name) == entry.size:
            return Outcome(name, "kept", entry)
        why = "the archive has lost it, and it is not here any more"
        return Outcome(name, "failed", why=why)

    def _known_already(self, each: Belonging) -> Outcome | None:
        """Return what became of a file that need not be sent, None if it has to be."""
        known = self._session.entries.get(each.name)
        arrived = self._size_there(each.name)
        if arrived != each.size:
            return None
        if known is not None and known.size == each.size:
            same = 0 != each.modified == known.modified
            if same and not self._thorough:
                self._count(each.size)
                return Outcome(each.name, "unchanged", known)
            # Changed, or touched only: its content tells.
            entry = self._read(each)
            proven = entry.sha256 == known.sha256
            if proven and self._is_there(each.name, entry, proven=True):
                return Outcome(each.name, "unchanged", entry)
            return None
        entry = self._read(each)
        if self._is_there(each.name, entry, proven=False):
            return Outcome(each.name, "found", entry)
        return None

    def _send(self, each: Belonging) -> Outcome:
        if self._dry_run:
            return Outcome(each.name, "sent", Entry("", each.size, 0))
        self._session.claim()
        reading = self._reading(each)
        digest = self._far.send(each.name, reading, each.size)
        rewritten = each.kind != "frames" or each.name.endswith(_REWRITTEN)
        for _ in range(_TRIES - 1):
            if not (rewritten and reading.changed):
                break
            digest = self._far.send(each.name, reading, each.size)
        entry = Entry(digest.sha256, digest.size, _settled(reading, each))
        return Outcome(each.name, "sent", entry, rewritten and reading.changed)

    def _read(self, each: Belonging) -> Entry:
        """Hash a file without sending it."""
        reading = self._reading(each)
        for _ in reading:
            pass
        digest = reading.digest
        return Entry(digest.sha256, digest.size, _settled(reading, each))

    def _reading(self, each: Belonging) -> Reading:
        return Reading(each.path, self._far.stop, self._count)

    def _size_there(self, name: str) -> int | None:
        return self._far.size(name) if name in self._there else None

    def _is_there(self, name: str, entry: Entry, *, proven: bool) -> bool:
        """Compare with what is at the far end, unless that was done before.

        A dry run believes what the archive says.
        """
        if self._dry_run or (proven and not self._thorough):
            return proven
        found = self._far.digest(name)
        return found is not None and found.sha256 == entry.sha256

    def _count(self, size: int) -> None:
        with self._counting:
            self.done += size


def _settled(reading: Reading, each: Belonging) -> int:
    """Return when a file was last changed, 0 if that may not tell a later change."""
    if each.modified == 0 or reading.changed:
        return 0
    settled = time.time_ns() - reading.modified > _UNSETTLED_NS
    return reading.modified if settled else 0
