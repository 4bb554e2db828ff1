"""One exception tree: everything this package raises on purpose.

::

    BeamtimeError
    ├── StorageError                  frames
    │   ├── FrameMismatchError        (ValueError)    wrong dtype or shape
    │   ├── ScanMismatchError         (ValueError)    data that do not fit a scan
    │   ├── CapacityError             (ValueError)    more frames than promised
    │   ├── SinkClosedError           (RuntimeError)  write after close
    │   ├── UnknownSourceError        (KeyError)      no such source in a writer
    │   ├── StoreStateError           (RuntimeError)  a call out of its order
    │   ├── StoreWriteError           (OSError)       the disk refused
    │   ├── DiskSpaceError            (OSError)       a run that does not fit
    │   ├── StoreReadError            (OSError)       a store cannot be read
    │   │   └── FrameReadError                        a frame is missing or damaged
    │   ├── KeyNotFoundError          (KeyError)      no value under a backend's key
    │   ├── BackendError              (OSError)       a backend that refused or is away
    │   ├── BackendClosedError        (RuntimeError)  a backend used after its close
    │   ├── MetadataError             (TypeError)     metadata that JSON cannot hold
    │   ├── PathError                 (ValueError)    a name or URI that is refused
    │   └── UnsupportedFormatError    (ValueError)    no writer, no backend for this
    ├── DatabaseError                 runs, events, samples
    │   ├── BeamtimeFileError         (sqlite3.DatabaseError)   damaged, or no beamtime
    │   │   ├── NewerVersionError                     written by a newer version
    │   │   └── OlderVersionError                     to be migrated before recording
    │   ├── IntegrityError            (sqlite3.IntegrityError)  a broken reference
    │   ├── DatabaseWriteError        (OSError)       the disk or a lock refused
    │   ├── ServerError               (OSError)       a database server that is away
    │   ├── DocumentError             (ValueError)    a document that cannot be stored
    │   ├── RunStateError             (RuntimeError)  a call out of its order
    │   ├── ReadOnlyError             (RuntimeError)  writing to ``mode="r"``
    │   ├── QueryError                (ValueError)    SQL that is wrong, or that writes
    │   ├── SampleNotFoundError       (KeyError)      no such sample
    │   └── RunNotFoundError          (KeyError)      no such run, stream or field
    ├── DeviceError                   (RuntimeError)  hardware that misbehaves
    │   ├── TriggerError              (ValueError)    an acquisition it cannot do
    │   ├── SourceError                               a frame source failed
    │   │   └── DroppedFramesError                    frames were lost on their way
    │   └── DeviceTimeoutError        (TimeoutError)  a device that does not answer
    ├── SinkError                     records on their way to tables and files
    │   ├── SinkStateError            (RuntimeError)  used before open or after close
    │   ├── SinkSchemaError           (ValueError)    a record that fits no table
    │   ├── SinkWriteError            (OSError)       what a sink could not write
    │   └── SinkDependencyError       (ImportError)   a package that a sink needs
    ├── ExportError                   (OSError)       a file that was not exported
    ├── ArchiveError                  (OSError)       an archive that is not whole
    ├── ServingError                  (RuntimeError)  a server that cannot be started
    ├── ProfileError                  (ValueError)    a profile that cannot be made
    └── MissingExtraError             (ImportError)   an optional package is absent

    BeamtimeWarning                   (UserWarning)   kept, but not as it was meant

Every message says what happened, where, and the next step; the values that a caller
may want are attributes of the exception.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any


class BeamtimeError(Exception):
    """Base of everything that this package raises on purpose."""

    # KeyError shows the repr of its argument; every error here shows its sentence.
    def __str__(self) -> str:
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class BeamtimeWarning(UserWarning):
    """Something was kept, but not where or not as it was meant to be."""


class StorageError(BeamtimeError):
    """Base of what goes wrong with frames and their stores."""


class FrameMismatchError(StorageError, ValueError):
    """A frame whose dtype or shape differs from what its source declared.

    Attributes
    ----------
    source : str
        Name of the source.
    expected, seen : str
        The declared and the offered dtype and shape.
    """

    def __init__(self, source: str, expected: str, seen: str) -> None:
        super().__init__(
            f"source {source!r} takes frames of {expected}, got {seen}; "
            "nothing was written. Convert the frame, or prepare the source anew"
        )
        self.source, self.expected, self.seen = source, expected, seen

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.source, self.expected, self.seen)


class ScanMismatchError(StorageError, ValueError):
    """A value, an index, a type or axes that do not fit a scan; nothing was written."""


class CapacityError(StorageError, ValueError):
    """More frames than the source's declared capacity; nothing was written."""


class SinkClosedError(StorageError, RuntimeError):
    """A frame for a sink that is closed; nothing was written."""


class UnknownSourceError(StorageError, KeyError):
    """A source that this writer does not know."""


class StoreStateError(StorageError, RuntimeError):
    """A call that does not fit the state of the writer or store."""


class _OSErrorWithSentence(StorageError, OSError):
    """An ``OSError`` with ``errno`` and ``filename`` whose text is a sentence."""

    def __init__(
        self, message: str, *, errno: int | None = None, filename: str | None = None
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.filename = filename


class StoreWriteError(_OSErrorWithSentence):
    """The disk refused a write; what was acknowledged before is safe.

    Attributes
    ----------
    errno : int or None
        The operating system's error number, such as :data:`errno.ENOSPC`.
    filename : str or None
        The file that could not be written.
    """


class DiskSpaceError(_OSErrorWithSentence):
    """A run that would not fit on the disk; it has not begun.

    Attributes
    ----------
    needed, free, margin : int
        Bytes that it takes at least, that are free, and that have to remain.
    errno : int
        :data:`errno.ENOSPC`.
    filename : str
        The folder.
    """

    def __init__(
        self,
        message: str,
        *,
        needed: int,
        free: int,
        margin: int,
        errno: int | None = None,
        filename: str | None = None,
    ) -> None:
        super().__init__(message, errno=errno, filename=filename)
        self.needed, self.free, self.margin = needed, free, margin


class StoreReadError(_OSErrorWithSentence):
    """A store that is not there, not readable, or not in a known layout."""


class FrameReadError(StoreReadError):
    """A published frame that is missing from its file or fails its checksum."""


class KeyNotFoundError(StorageError, KeyError):
    """There is no value under this key of a backend; raised for absence alone.

    Attributes
    ----------
    key, url : str
        The key, and the backend's URL.
    """

    def __init__(self, key: str, url: str) -> None:
        super().__init__(
            f"there is no value under {key!r} in {url}; list_prefix() shows what "
            "is there"
        )
        self.key, self.url = key, url

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.key, self.url)


class BackendError(_OSErrorWithSentence):
    """A backend that refused, or that cannot be reached.

    Attributes
    ----------
    errno : int or None
        The operating system's error number, where it gave one.
    filename : str or None
        The key, where one was asked for.
    """


class BackendClosedError(StorageError, RuntimeError):
    """A backend that was used after its ``close``."""


class MetadataError(StorageError, TypeError):
    """Metadata that cannot be written as JSON."""


class PathError(StorageError, ValueError):
    """A name or URI that is refused because it would lead somewhere else."""


class UnsupportedFormatError(StorageError, ValueError):
    """No writer is registered for a mimetype, or no backend for a URL's scheme."""


class DatabaseError(BeamtimeError):
    """Base of what goes wrong with the record of runs."""


class BeamtimeFileError(DatabaseError, sqlite3.DatabaseError):
    """A file that is damaged or that is not a beamtime."""


class NewerVersionError(BeamtimeFileError):
    """A file written by a newer version of this package; nothing was changed."""


class OlderVersionError(BeamtimeFileError):
    """A file of an older version, which ``beamtime migrate`` brings up to date."""


class IntegrityError(DatabaseError, sqlite3.IntegrityError):
    """A record that refers to something that does not exist."""


class DatabaseWriteError(DatabaseError, OSError):
    """The disk refused a record, or another program keeps the file locked.

    Attributes
    ----------
    errno : int or None
        The operating system's error number, such as :data:`errno.ENOSPC`.
    filename : str or None
        The file that could not be written.
    """

    def __init__(
        self, message: str, *, errno: int | None = None, filename: str | None = None
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.filename = filename


class ServerError(DatabaseError, OSError):
    """A database server that refused or that cannot be reached.

    The text names the server without the password.
    """


class DocumentError(DatabaseError, ValueError):
    """A document that cannot be stored as it is."""


class RunStateError(DatabaseError, RuntimeError):
    """A call that does not fit the state of a run writer."""


class ReadOnlyError(DatabaseError, RuntimeError):
    """A change asked of a beamtime that was opened with ``mode="r"``."""


class QueryError(DatabaseError, ValueError):
    """SQL of a user that is wrong, or that would change something."""


class SampleNotFoundError(DatabaseError, KeyError):
    """No sample of that name."""


class RunNotFoundError(DatabaseError, KeyError):
    """No run, stream or field of that name or number."""


class DeviceError(BeamtimeError, RuntimeError):
    """Base of what goes wrong with hardware and its simulation."""


class TriggerError(DeviceError, ValueError):
    """A detector was prepared for what it cannot do; it is as it was before."""


class SourceError(DeviceError):
    """A frame source that failed while it was acquiring."""


class DroppedFramesError(SourceError):
    """Frames that a source took and that did not arrive; those that did are stored.

    Attributes
    ----------
    source : str
        The data key of the frames.
    dropped, received : int
        Exposures lost and arrived in this acquisition until then.
    expected : int
        Exposures that were asked for, 0 for as many as come.
    """

    def __init__(self, source: str, dropped: int, received: int, expected: int) -> None:
        wanted = f" of {expected}" if expected else ""
        lost = f"{dropped} exposure{'' if dropped == 1 else 's'}" if dropped else "none"
        super().__init__(
            f"{source} lost {lost} and delivered {received}{wanted}; these are stored. "
            "Look for a full queue, a slow network or disk, then take the frames again"
        )
        self.source, self.dropped = source, dropped
        self.received, self.expected = received, expected

    def __reduce__(self) -> tuple[type, tuple[str, int, int, int]]:
        return type(self), (self.source, self.dropped, self.received, self.expected)


class DeviceTimeoutError(DeviceError, TimeoutError):
    """A device that does not answer in time."""


class ExportError(BeamtimeError, OSError):
    """A run that could not be exported; nothing is left of the attempt.

    Attributes
    ----------
    errno : int or None
        The operating system's error number, such as :data:`errno.EEXIST`.
    filename : str or None
        The file that could not be written.
    """

    def __init__(
        self, message: str, *, errno: int | None = None, filename: str | None = None
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.filename = filename


class ArchiveError(BeamtimeError, OSError):
    """An archive that is not what it should be, or that is not written or restored.

    Attributes
    ----------
    names : tuple of str
        What is concerned: the files that differ, are missing, or could not be copied.
    errno : int or None
        The operating system's error number, where it gave one.
    filename : str or None
        The file or URL.
    """

    def __init__(
        self,
        message: str,
        *,
        names: Sequence[str] = (),
        errno: int | None = None,
        filename: str | None = None,
    ) -> None:
        super().__init__(message)
        self.names = tuple(names)
        self.errno = errno
        self.filename = filename


class ServingError(BeamtimeError, RuntimeError):
    """A server cannot be started, or not like this."""


class ProfileError(BeamtimeError, ValueError):
    """A beamline's profile that cannot be made, or that cannot be read."""


class MissingExtraError(BeamtimeError, ImportError):
    """An optional package is absent; the message names the extra to install.

    Attributes
    ----------
    purpose, package, extra : str
        What was asked for, what could not be imported, and the extra of this package
        that brings it; empty for what another package asked for.
    """

    def __init__(self, purpose: str, package: str, extra: str = "") -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}: "
            f"pip install '{f'bluesky-beamtime[{extra}]' if extra else package}'"
        )
        self.purpose, self.package, self.extra = purpose, package, extra

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.purpose, self.package, self.extra)


@dataclass(frozen=True, slots=True)
class ErrorContext:
    """What was going on when a sink failed."""

    operation: str = ""
    """What was called, such as ``CsvSink.write_many``."""
    target: str = ""
    """Where it wrote to: a path, or a server without its password."""


class SinkError(BeamtimeError):
    """Base of what goes wrong with records on their way to tables and files.

    Attributes
    ----------
    context : ErrorContext
        What was called, and where it wrote to.
    records : list
        Readings or blocks that the sink did not take; write them again once the cause
        is gone.
    """

    def __init__(
        self,
        message: str,
        *,
        context: ErrorContext | None = None,
        records: Sequence[Any] = (),
    ) -> None:
        super().__init__(message)
        self.context = ErrorContext() if context is None else context
        self.records = list(records)


class SinkStateError(SinkError, RuntimeError):
    """A sink that was used before ``open`` or after ``close``."""


class SinkSchemaError(SinkError, ValueError):
    """A record that does not fit the table or file; nothing of it was written."""


class SinkWriteError(SinkError, OSError):
    """A sink could not open or write; ``records`` holds what it did not take.

    Attributes
    ----------
    errno : int or None
        The operating system's error number, such as :data:`errno.ENOSPC`.
    filename : str or None
        The file that could not be written.
    """

    def __init__(
        self,
        message: str,
        *,
        context: ErrorContext | None = None,
        records: Sequence[Any] = (),
        errno: int | None = None,
        filename: str | None = None,
    ) -> None:
        super().__init__(message, context=context, records=records)
        self.errno = errno
        self.filename = filename

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError keeps two of them where pickle does not look.
        values = {
            "context": self.context,
            "records": self.records,
            "errno": self.errno,
            "filename": self.filename,
        }
        return partial(type(self), **values), (str(self),)


class SinkDependencyError(SinkError, MissingExtraError):
    """A package that a sink needs is absent; the message names the extra."""

    def __init__(
        self,
        purpose: str,
        package: str,
        extra: str = "",
        *,
        context: ErrorContext | None = None,
    ) -> None:
        MissingExtraError.__init__(self, purpose, package, extra)
        self.context = ErrorContext() if context is None else context
        self.records = []
