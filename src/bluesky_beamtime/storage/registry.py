"""Which formats there are, and the one writer of each name and format."""

from __future__ import annotations

import threading
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from bluesky_beamtime.errors import (
    MissingExtraError,
    StoreStateError,
    UnsupportedFormatError,
)

if TYPE_CHECKING:
    from bluesky_beamtime.storage.writer import Writer

ENTRY_POINT_GROUP = "bluesky_beamtime.writers"


class WriterRegistry:
    """One writer for each ``(name, mimetype)``; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writers: dict[tuple[str, str], Writer] = {}

    def get(self, cls: type[Writer], name: str, options: dict[str, Any]) -> Writer:
        """Return the writer, made at the first call.

        Raises
        ------
        TypeError
            Another class holds this name and mimetype.
        StoreStateError
            The writer exists with other options.
        """
        key = (name, cls.class_mimetype())
        with self._lock:
            writer = self._writers.get(key)
            if writer is None:
                writer = self._writers[key] = cls(name, **options)
                return writer
            if type(writer) is not cls:
                raise TypeError(
                    f"the writer {key} is a {type(writer).__name__}, not a "
                    f"{cls.__name__}; release it first or choose another name"
                )
            different = writer.different_options(options)
            if different:
                raise StoreStateError(
                    f"the writer {key} exists already with other options: {different}; "
                    "release it first or choose another name"
                )
            return writer

    def remove(self, mimetype: str, name: str) -> Writer | None:
        """Forget a writer and return it; None if there is none."""
        with self._lock:
            return self._writers.pop((name, mimetype), None)

    def find(self, mimetype: str, name: str) -> Writer | None:
        """Return a writer if it exists."""
        with self._lock:
            return self._writers.get((name, mimetype))

    def others(self, writer: object) -> list[Writer]:
        """Return every writer but this one."""
        with self._lock:
            return [other for other in self._writers.values() if other is not writer]

    def snapshot(self) -> dict[str, dict[str, Writer]]:
        """Return the writers by mimetype and name."""
        with self._lock:
            found: dict[str, dict[str, Writer]] = {}
            for (name, mimetype), writer in self._writers.items():
                found.setdefault(mimetype, {})[name] = writer
            return found


WRITERS = WriterRegistry()
"""The registry that :meth:`Writer.get` and :func:`make_writer` use."""

_CLASSES: dict[str, type[Writer]] = {}
WriterClass = TypeVar("WriterClass", bound="type[Writer]")


def register_writer(cls: WriterClass) -> WriterClass:
    """Make a format known to :func:`make_writer`; a class decorator.

    A package can also name its class in the entry-point group
    ``bluesky_beamtime.writers``, the entry's name being the mimetype.
    """
    _CLASSES[cls.class_mimetype()] = cls
    return cls


def _writer_classes() -> dict[str, Any]:
    """Return every known format: loaded classes, or entry points not yet loaded."""
    found: dict[str, Any] = {p.name: p for p in entry_points(group=ENTRY_POINT_GROUP)}
    # What was registered by hand wins over what is installed.
    return {**found, **_CLASSES}


def make_writer(mimetype: str, name: str = "default", **options: Any) -> Writer:
    """Return the writer of this format and name, made at the first call.

    Parameters
    ----------
    mimetype
        ``"application/x-zarr"`` or another registered format.
    name
        Name of the group of devices that share it.
    **options
        Options of the writer's constructor, used when it is made.

    Raises
    ------
    UnsupportedFormatError
        Nobody registered this mimetype; the message lists those that are.
    MissingExtraError
        The format needs a package that is not installed.
    """
    # The built-in formats register themselves when they are imported.
    import_module("bluesky_beamtime.storage")

    classes = _writer_classes()
    known = classes.get(mimetype)
    if known is None:
        raise UnsupportedFormatError(
            f"there is no writer for the mimetype {mimetype!r}; known are "
            f"{', '.join(sorted(map(repr, classes)))}"
        )
    cls: type[Writer] = _load(known) if isinstance(known, EntryPoint) else known
    return cls.get(name, **options)


def _load(entry: EntryPoint) -> type[Writer]:
    """Load a format that another package brings."""
    try:
        return register_writer(entry.load())
    except MissingExtraError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"the format {entry.name!r} of {entry.value!r}", error.name or str(error)
        ) from error


def get_available_writers() -> dict[str, dict[str, Writer]]:
    """Return a snapshot of the writers that exist: ``{mimetype: {name: writer}}``."""
    return WRITERS.snapshot()


@runtime_checkable
class HasWriter(Protocol):
    """A device that writes frames and says through which writer."""

    def get_writer(self) -> Writer:
        """Return the writer of this device."""
        ...
