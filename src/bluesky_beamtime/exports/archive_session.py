"""What an archive says of itself while it is written: whose it is, and how far."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from contextlib import suppress

from bluesky_beamtime.errors import ArchiveError, BeamtimeError
from bluesky_beamtime.exports.archive_state import (
    STATE_FILE,
    ArchiveState,
    Entry,
    Identity,
)
from bluesky_beamtime.exports.far_end import FarEnd
from bluesky_beamtime.exports.manifest import MANIFEST_FILE, encode_manifest
from bluesky_beamtime.storage.remote_array import Retry

# What is known to be there is written down so often, or more rarely if that takes long.
_CHECKPOINT_SECONDS = 30.0


class ArchiveSession:
    """Writes the state of an archive, before the first change, between, and at the end.

    Parameters
    ----------
    far
        The place.
    identity
        Whose archive it is.
    entries
        What is there and proven; whoever brings files adds to it.
    absent
        What is not there, each in a line.
    """

    def __init__(
        self,
        far: FarEnd,
        identity: Identity,
        entries: dict[str, Entry],
        absent: tuple[str, ...],
    ) -> None:
        self.entries = entries
        self._far = far
        self._identity = identity
        self._absent = absent
        self._word = ""
        self._claiming = threading.Lock()
        self._next = 0.0

    def leave_out(self, line: str) -> None:
        """Add to what is not there."""
        self._absent += (line,)

    def claim(self) -> None:
        """Say that this is ours and not finished, before the first change.

        May be called from several threads, and again.
        """
        with self._claiming:
            if not self._word:
                word = secrets.token_hex(8)
                self._write(word)
                self._word = word
                self._next = time.monotonic() + _CHECKPOINT_SECONDS

    def checkpoint(self) -> None:
        """Write down what is there, if that was a while ago."""
        if not self._word or time.monotonic() < self._next:
            return
        began = time.monotonic()
        self._check()
        self._write(self._word)
        took = time.monotonic() - began
        self._next = time.monotonic() + max(_CHECKPOINT_SECONDS, 20 * took)

    def finish(self, recovered: str | None) -> None:
        """Write the manifest, if anything has changed.

        Parameters
        ----------
        recovered
            A file that the archive shall not have any more, if there is one.
        """
        if not self._word:
            if recovered is None and self._far.is_finished(self._far.read_manifest()):
                return
            self.claim()
        self._check()
        if recovered is not None:
            self.entries.pop(recovered)
        state = self._write(self._word)
        hashes = {name: entry.sha256 for name, entry in self.entries.items()}
        hashes[STATE_FILE] = hashlib.sha256(state).hexdigest()
        self._far.put(MANIFEST_FILE, encode_manifest(hashes))
        if recovered is not None:
            self._far.delete(recovered)

    def give_up(self) -> None:
        """Write down what is known to be there, for the next one to go on from."""
        if not self._word:
            return
        self._far.stop.clear()
        # Whatever ended the copy is what the caller has to know.
        with suppress(BeamtimeError):
            self._far = FarEnd(self._far.backend, Retry(attempts=1))
            self._check()
            self._write(self._word)

    def _write(self, word: str) -> bytes:
        state = ArchiveState(
            identity=self._identity,
            session=word,
            time=time.time(),
            entries=dict(self.entries),
            absent=self._absent,
        )
        data = state.encode()
        self._far.put(STATE_FILE, data)
        return data

    def _check(self) -> None:
        """Raise if another process archives to the same place meanwhile."""
        state = self._far.read_state()
        if state is None or state.session != self._word:
            # Not ours to write any more.
            self._word = ""
            raise ArchiveError(
                f"another process has written to {self._far.url} meanwhile; wait for "
                "it to end, then archive again",
                filename=self._far.url,
            )
