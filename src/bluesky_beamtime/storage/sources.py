"""The sources of a writer: found by their names, counted, published."""

from __future__ import annotations

import logging
import threading
from typing import Any

from bluesky_beamtime.errors import UnknownSourceError
from bluesky_beamtime.storage.source import SourceInfo
from bluesky_beamtime.storage.writing import FrameWriting

_logger = logging.getLogger("bluesky_beamtime.storage")


class WriterSources(FrameWriting):
    """What a writer says of its sources, by name or all together."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._uri = ""
        self._is_open = False
        self._acquisition = 0
        self._sources: dict[str, SourceInfo] = {}
        self.lifecycle = threading.RLock()
        """Guards everything but the sources' counters. Never take it while a source's
        lock is held; the other way round is allowed."""

    # -------------------------------------------------------------------- state

    @classmethod
    def class_mimetype(cls) -> str:
        """Mimetype of the format."""
        return cls._class_mimetype()

    @property
    def mimetype(self) -> str:
        """Mimetype of the format, such as ``application/x-zarr``."""
        return self._class_mimetype()

    @property
    def is_open(self) -> bool:
        """Whether a store is open: from kickoff until its last source is closed."""
        return self._is_open

    @property
    def uri(self) -> str:
        """URI of the open, next or last store; empty before the first."""
        return self._uri

    @property
    def logger(self) -> logging.Logger:
        """Logger of the frame store."""
        return _logger

    @property
    def sources(self) -> dict[str, SourceInfo]:
        """A copy of the table of sources."""
        with self.lifecycle:
            return dict(self._sources)

    # ---------------------------------------------------------------- publishing

    def get_indices_written(self, name: str | None = None) -> int:
        """Return how many frames a fresh reader can read, published by this call.

        Parameters
        ----------
        name
            A source; without it the smallest count of all sources of the current
            acquisition, 0 when there are none.

        Raises
        ------
        UnknownSourceError
            There is no such source.
        """
        if name is not None:
            return self.publish_source(self._source(name))
        with self.lifecycle:
            sources = self._current()
        return min((self.publish_source(source) for source in sources), default=0)

    def flush(self, name: str | None = None) -> None:
        """Bring every written frame to the disk itself and publish it.

        Raises
        ------
        UnknownSourceError
            There is no such source.
        StoreWriteError
            The disk refused.
        """
        with self.lifecycle:
            sources = [self._source(name)] if name is not None else self._current()
        for source in sources:
            if source.created and not source.completed:
                self._on_flush(source.name)

    # ----------------------------------------------------------------- internals

    def _source(self, name: str) -> SourceInfo:
        source = self._sources.get(name)
        if source is None:
            known = ", ".join(sorted(map(repr, self._sources))) or "none"
            raise UnknownSourceError(
                f"Unknown source {name!r} of {self}; its sources are {known}"
            )
        return source

    def _current(self) -> list[SourceInfo]:
        """Return the sources of the open, or else of the latest acquisition."""
        newest = max((s.acquisition for s in self._sources.values()), default=0)
        number = self._acquisition if self._is_open else newest
        return [s for s in self._sources.values() if s.acquisition == number]

    def _receiving(self) -> list[SourceInfo]:
        return [s for s in self._current() if s.frames_written and not s.completed]

    def _log(self, what: str, **fields: Any) -> None:
        _logger.debug("%s of %s %s", what, self, fields, extra={"writer": self.name})

    def __str__(self) -> str:
        return f"writer ({self.name!r}, {self.mimetype!r})"

    def __repr__(self) -> str:
        state = f"writing {self._uri!r}" if self._is_open else "idle"
        kind, count = type(self).__name__, len(self._sources)
        return f"<{kind} {self.name!r} {count} sources, {state}>"
