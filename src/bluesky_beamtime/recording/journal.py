"""Where documents go that the database could not take."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.errors import DatabaseWriteError, DocumentError


class Journal:
    """A file of JSON lines beside the database: one document and its story each.

    Every line is on the disk itself before :meth:`write` returns. The keys of a line:

    ``run``
        Uid of its run, null if nobody knows.
    ``ordinal``
        Its place among the documents of its run, null if unknown.
    ``kind``
        ``"unstored"``: it can be stored when the cause has gone; ``"quarantined"``: it
        is malformed.
    ``reason``, ``time``
        Why it is here, and since when (seconds since 1970).
    ``name``, ``doc``
        The document, as :mod:`bluesky_beamtime.database.encoding` writes it, arrays
        included.

    Parameters
    ----------
    path
        The file, made at the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def write(
        self,
        name: Any,
        doc: Any,
        *,
        run: str | None,
        ordinal: int | None,
        kind: str,
        reason: str,
    ) -> None:
        """Append a document.

        Raises
        ------
        DatabaseWriteError
            The disk refused: nobody has the document now.
        """
        # "run" stands first: who looks for runs need not parse the documents.
        entry = {
            "run": run,
            "ordinal": ordinal,
            "kind": kind,
            "reason": reason,
            "time": time.time(),
            "name": name,
            "doc": doc,
        }
        line = _encode(entry) + b"\n"
        try:
            with self._lock:
                self._append(line)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise DatabaseWriteError(
                f"a {name!r} document is lost: the database did not take it ({reason}) "
                f"and neither did {str(self.path)!r}: {why}; free some space",
                errno=error.errno,
                filename=str(self.path),
            ) from error

    def _append(self, line: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o644)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                # A process was killed, or the disk filled, in the middle of a line.
                line = b"\n" + line
            written = 0
            while written < len(line):
                written += os.write(fd, line[written:])
            os.fsync(fd)
        finally:
            os.close(fd)


def _encode(entry: Mapping[str, Any]) -> bytes:
    try:
        return encode(entry).encode()
    except DocumentError:
        # It contains itself, or is nested hundreds of levels deep.
        return encode({**entry, "doc": {"repr": _short(entry["doc"])}}).encode()


def _short(value: Any) -> str:
    import reprlib

    shortener = reprlib.Repr()
    shortener.maxlevel = 20
    shortener.maxdict = shortener.maxlist = shortener.maxtuple = 1000
    shortener.maxstring = shortener.maxother = 10_000
    try:
        return shortener.repr(value)
    except Exception:
        return object.__repr__(value)
