"""Which runs have documents in the journal, so that nobody takes them for complete."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import orjson

# A line begins with its run, so that the documents, which may be large, are skipped.
_RUN = re.compile(rb'\{"run":("(?:[^"\\]|\\.)*")')


class JournalIndex:
    """The uids of the runs in a journal; reads only what was appended since.

    Parameters
    ----------
    path
        The journal, which mostly does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._identity: tuple[int, int] | None = None
        self._read = 0
        self._runs: frozenset[str] = frozenset()

    def runs(self) -> frozenset[str]:
        """Return the uids of runs with documents in the journal."""
        try:
            status = os.stat(self._path)
        except OSError:
            return frozenset()
        with self._lock:
            identity = (status.st_dev, status.st_ino)
            if identity != self._identity or status.st_size < self._read:
                self._identity, self._read, self._runs = identity, 0, frozenset()
            if status.st_size > self._read:
                self._read_on()
            return self._runs

    def _read_on(self) -> None:
        found = set(self._runs)
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                uid = run_of_line(line)
                if uid is not None:
                    found.add(uid)
        self._runs = frozenset(found)


def run_of_line(line: bytes) -> str | None:
    """Return the uid of the run that a line of a journal is about, None if of none."""
    match = _RUN.match(line)
    if match is None:
        return None
    try:
        uid = orjson.loads(match[1])
    except ValueError:
        return None
    return uid if isinstance(uid, str) else None
