"""Where documents go that the database could not take."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.kinds import is_mapping
from bluesky_beamtime.errors import DatabaseWriteError, DocumentError

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_HEAD = re.compile(rb'\{"run":(?:null|"(?:[^"\\]|\\.)*"),"ordinal":(?:null|-?\d+)')


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A line of a journal, without its document, which may be large."""

    start: int
    """Where the line starts in the file, in bytes."""
    size: int
    """Bytes of the line, with its end."""
    run: str | None
    """Uid of its run, as the line says."""
    ordinal: int | None
    """Its place among the documents of its run, as the line says."""
    places: Mapping[str, int]
    """The place that it would have in each run that was open, if nobody knows its run.
    """
    quarantined: bool
    """Whether it was put aside for being malformed; else it could not be stored."""
    reason: str
    """Why it is in the journal."""
    name: Any
    """Name of the document; None for a line that cannot be read."""
    refers: Mapping[str, Any]
    """Those keys of the document that say what it belongs to."""


class Journal:
    """A file of JSON lines beside the database: one document and its story each.

    Every line is on the disk itself before :meth:`write` returns. The keys of a line:

    ``run``
        Uid of its run, null if nobody knows.
    ``ordinal``
        Its place among the documents of its run, null if unknown. A quarantined one
        takes no place of its own: it came before the document that has this one.
    ``places``
        Only where the run is unknown: the place that it would have in each run that was
        open, by uid.
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
        places: Mapping[str, int] | None = None,
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
            **({"places": places} if places else {}),
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
                f"a {_name(name)!r} document is lost: the database did not take it "
                f"({reason}) and neither did {str(self.path)!r}: {why}; "
                "free some space",
                errno=error.errno,
                filename=str(self.path),
            ) from error

    def _append(self, line: bytes) -> None:
        with self._held() as fd:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                # A process was killed, or the disk filled, in the middle of a line.
                line = b"\n" + line
            written = 0
            while written < len(line):
                written += os.write(fd, line[written:])
            os.fsync(fd)

    @contextmanager
    def _held(self) -> Generator[int]:
        """Lend the open file while nobody else appends to it or replaces it."""
        while True:
            fd = os.open(self.path, _FLAGS, 0o644)
            try:
                with _locked(fd):
                    if self._is_current(fd):
                        yield fd
                        return
            finally:
                os.close(fd)

    def _is_current(self, fd: int) -> bool:
        """Say whether the file was not replaced while its lock was waited for."""
        mine = os.fstat(fd)
        try:
            current = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (current.st_dev, current.st_ino)

    # ------------------------------------------------------------------- recovering

    def entries(self) -> Iterator[Entry]:
        """Yield what stands in the journal, the oldest first.

        The last line is left out while it is not finished.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            start = 0
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield _entry(line, start)
                start += len(line)

    def document(self, entry: Entry) -> Any:
        """Return the document of an entry, read again from the file."""
        with self.path.open("rb") as file:
            file.seek(entry.start)
            return decode(file.read(entry.size))["doc"]

    def remove(
        self, entries: Mapping[int, int], moved: Mapping[int, tuple[str, int]]
    ) -> None:
        """Take out entries whose documents are safe elsewhere; what came since stays.

        The journal is replaced at once, so that whenever the process ends it is the old
        one or the new one. The file goes when nothing is left.

        Parameters
        ----------
        entries
            Bytes of each line to take out, by where it starts.
        moved
            Runs and new ordinals of lines that stay, by where they start.

        Raises
        ------
        OSError
            The disk refused; the journal is as it was.
        """
        if not entries and not moved:
            return
        partial = self.path.with_name(f".{self.path.name}.partial")
        with self._lock, self._held(), self.path.open("rb") as old:
            left = 0
            with partial.open("wb") as new:
                start = 0
                for line in old:
                    if start in moved:
                        left += new.write(_moved(line, *moved[start]))
                    elif start not in entries:
                        left += new.write(line)
                    start += len(line)
                new.flush()
                os.fsync(new.fileno())
            if left:
                partial.replace(self.path)
            else:
                self.path.unlink()
                partial.unlink()
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _moved(line: bytes, run: str, ordinal: int) -> bytes:
    """Return a line with another run and ordinal."""
    head = _HEAD.match(line)
    if head is None:
        return line
    new = encode({"run": run, "ordinal": ordinal})[:-1].encode()
    return new + line[head.end() :]


@contextmanager
def _locked(fd: int) -> Generator[None]:
    # Where a file system has no locks, nobody recovers while somebody records either:
    # see recover().
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)


_REFERENCES = ("uid", "run_start", "descriptor", "resource", "stream_resource")


def _entry(line: bytes, start: int) -> Entry:
    try:
        said = decode(line)
        doc = said["doc"]
        refers: dict[str, Any] = {}
        if is_mapping(doc):
            refers = {key: doc[key] for key in _REFERENCES if key in doc}
        return Entry(
            start,
            len(line),
            said["run"],
            said["ordinal"],
            said.get("places", {}),
            said["kind"] == "quarantined",
            str(said["reason"]),
            said["name"],
            refers,
        )
    except (DocumentError, ValueError, KeyError, TypeError, IndexError):
        reason = "the line cannot be read: it was cut off"
        return Entry(start, len(line), None, None, {}, True, reason, None, {})


def _encode(entry: Mapping[str, Any]) -> bytes:
    try:
        return encode(entry).encode()
    except Exception:
        # It contains itself, is nested hundreds of levels deep, or raises when it is
        # looked at.
        return encode(
            {
                **entry,
                "name": _name(entry["name"]),
                "doc": {"repr": _short(entry["doc"])},
            }
        ).encode()


def _name(name: Any) -> str:
    return name if isinstance(name, str) else _short(name)


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
