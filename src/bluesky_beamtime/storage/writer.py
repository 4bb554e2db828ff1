"""The life of a store: named, prepared, kicked off, written, completed."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Self

import numpy as np

from bluesky_beamtime.errors import (
    CapacityError,
    PathError,
    StoreStateError,
    UnknownSourceError,
)
from bluesky_beamtime.storage.documents import StreamDoc, stream_docs
from bluesky_beamtime.storage.layout import plain_json
from bluesky_beamtime.storage.metadata import STAGED
from bluesky_beamtime.storage.registry import WRITERS
from bluesky_beamtime.storage.sink import FrameSink
from bluesky_beamtime.storage.source import SourceInfo, frame_shape
from bluesky_beamtime.storage.writing import FrameWriting

_logger = logging.getLogger("bluesky_beamtime.storage")


class Writer(FrameWriting):
    """Writes the frames of several sources into one store, acquisition by acquisition.

    One acquisition is: :meth:`set_uri`; :meth:`prepare` for each source, which returns
    its :class:`FrameSink`; :meth:`kickoff`; ``sink.write`` …; ``sink.close``. Sources
    may join late, while the store is open. The store is finalised when every source
    that received a frame is closed.

    ============  =====================  ==============================================
    state         allowed                refused
    ============  =====================  ==============================================
    closed        set_uri, prepare       write; kickoff without a fresh URI
    open          prepare (new names),   set_uri; prepare of a source that is open or
                  write, complete        whose array holds frames
    ============  =====================  ==============================================

    Parameters
    ----------
    name
        Name of the group of devices that share the writer. Use :meth:`get` or
        :func:`make_writer`, which keep one writer for each name and format.

    Notes
    -----
    All methods are thread-safe. Two sources share no lock while they write.

    A format is a subclass that supplies the hooks of
    :class:`~bluesky_beamtime.storage.hooks.WriterHooks`. ``kickoff`` is called with the
    store closed and only opens the backend: the base class sees to it that it runs once
    per acquisition and that a failure leaves the writer as it was.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise PathError(f"a writer needs a name, got {name!r}")
        self.name = name
        self.metadata: dict[str, dict[str, Any]] = {}
        self._uri = ""
        self._uri_is_fresh = False
        self._is_open = False
        self._opening = False
        self._acquisition = 0
        self._sources: dict[str, SourceInfo] = {}
        self.lifecycle = threading.RLock()
        """Guards everything but the sources' counters. Never take it while a source's
        lock is held; the other way round is allowed."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kickoff" in cls.__dict__:
            cls.kickoff = _opens_once(cls.kickoff)

    # ------------------------------------------------------------- one per name

    @classmethod
    def get(cls, name: str = "default", **options: Any) -> Self:
        """Return the writer of this name and format, made at the first call.

        Raises
        ------
        TypeError
            Another class holds this name and mimetype.
        """
        writer: Any = WRITERS.get(cls, name, options)
        return writer

    @classmethod
    def release(cls, name: str = "default") -> None:
        """Forget the writer of this name; nothing happens if there is none.

        An idle writer is closed.

        Raises
        ------
        StoreStateError
            It is receiving frames; complete or :meth:`abort` it first.
        """
        writer = WRITERS.find(cls.class_mimetype(), name)
        if writer is None:
            return
        with writer.lifecycle:
            receiving = [s.name for s in writer._receiving()]
            if receiving:
                raise StoreStateError(
                    f"{writer} is receiving frames from {receiving}; "
                    "close the sinks or abort() it before it is released"
                )
            writer.abort()
        WRITERS.remove(cls.class_mimetype(), name)

    def different_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of ``options`` that differ from how this writer was made."""
        return {
            key: value
            for key, value in options.items()
            if getattr(self, key, None) != value
        }

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

    # ---------------------------------------------------------- an acquisition

    def set_uri(self, uri: str) -> None:
        """Choose where the next acquisition goes; good for one.

        Raises
        ------
        StoreStateError
            A store is open.
        PathError
            Not a URI or absolute path that this format can write to.
        """
        with self.lifecycle:
            if self._is_open:
                raise StoreStateError(
                    f"cannot change the URI of {self} while it is open; "
                    "close its sinks or abort() it first"
                )
            if not isinstance(uri, str) or not uri:
                raise PathError(f"{self} needs a URI or an absolute path, got {uri!r}")
            self._check_uri(uri)
            self._uri = uri
            self._uri_is_fresh = True
        self._log("set_uri", uri=uri)

    def prepare(
        self,
        name: str,
        data_key: str | None = None,
        dtype: Any = None,
        shape: tuple[int, ...] | None = None,
        capacity: int | None = 0,
        *,
        units: str | None = None,
        dims: tuple[str, ...] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> FrameSink:
        """Register a source and return its sink.

        While a store is open the source joins it at once; otherwise it takes part in
        the next :meth:`kickoff`. When this fails nothing is registered.

        Parameters
        ----------
        name
            Name of the source and of its array.
        data_key
            Name in the event descriptor, by default ``name``.
        dtype, shape
            Of one frame.
        capacity
            Most frames that it will take, 0 for as many as come.
        units
            Units of the values.
        dims
            Names of a frame's dimensions, as many as ``shape`` has.
        metadata
            Metadata of the device, for the attributes of store and array; by default
            what :func:`register_metadata` staged under ``name``.
        **options
            Options of the format.

        Raises
        ------
        StoreStateError
            The source is open, its array holds frames, or another source has this
            data key.
        PathError
            A name that cannot be stored.
        CapacityError
            A negative capacity.
        MetadataError
            Metadata that cannot be written as JSON.
        """
        source = self._make_source(
            name, data_key, dtype, shape, capacity, units, dims, options
        )
        if metadata is not None:
            source.metadata = plain_json(dict(metadata))
        with self.lifecycle:
            previous = self._sources.get(name)
            self._check_prepare(source, previous)
            source.acquisition = self._acquisition + (not self._is_open)
            self._sources[name] = source
            if source.metadata is None:
                # Held from now on: another writer may claim and discard it.
                source.metadata = STAGED.claim().get(name)
            try:
                self._on_prepare(name)
                if self._is_open:
                    self._stage_late(source)
                    source.store_uri = self._uri
                    self._on_join(name)
                    self._mark_created(source)
            except BaseException:
                if previous is None:
                    del self._sources[name]
                else:
                    self._sources[name] = previous
                raise
            if previous is not None:
                # A sink of an earlier acquisition must not write into this one.
                self._retire(previous)
        self._log("prepare", source=name, dtype=str(source.dtype), shape=source.shape)
        return FrameSink(self, source)

    def _make_source(
        self,
        name: str,
        data_key: str | None,
        dtype: Any,
        shape: Any,
        capacity: int | None,
        units: str | None,
        dims: Any,
        options: Mapping[str, Any],
    ) -> SourceInfo:
        if not isinstance(name, str) or not name:
            raise PathError(f"a source needs a name, got {name!r}")
        if dtype is None or shape is None:
            raise TypeError(f"source {name!r} needs the dtype and shape of its frames")
        sizes = frame_shape(name, shape)
        if capacity is not None and capacity < 0:
            raise CapacityError(
                f"source {name!r}: capacity must be 0 (no limit) or more, "
                f"got {capacity}"
            )
        if dims is not None and (
            len(dims) != len(sizes) or not all(isinstance(dim, str) for dim in dims)
        ):
            raise ValueError(
                f"source {name!r}: dims must name {len(sizes)} dimensions, got {dims!r}"
            )
        return SourceInfo(
            name=name,
            data_key=name if data_key is None else data_key,
            dtype=np.dtype(dtype),
            shape=sizes,
            capacity=capacity or 0,
            units=units,
            dims=None if dims is None else tuple(dims),
            options=dict(options),
        )

    def _check_prepare(self, source: SourceInfo, previous: SourceInfo | None) -> None:
        if self._is_open and previous is not None:
            state = "holds frames already" if previous.completed else "is open"
            if previous.frames_written or not previous.completed:
                raise StoreStateError(
                    f"cannot prepare source {source.name!r} on {self}: it {state} in "
                    "this acquisition; use another name, or a new URI"
                )
        current = self._acquisition + (not self._is_open)
        for other in self._sources.values():
            if (
                other.data_key == source.data_key
                and other.name != source.name
                and other.acquisition == current
                and not other.completed
            ):
                raise StoreStateError(
                    f"sources {other.name!r} and {source.name!r} of {self} cannot "
                    f"share the data key {source.data_key!r}"
                )

    def complete(self, name: str) -> None:
        """Close a source; the last one finalises the store. May be called again.

        Raises
        ------
        UnknownSourceError
            There is no such source.
        """
        self.close_source(self._source(name))

    def close_source(self, source: SourceInfo) -> None:
        """Close a source; what :meth:`FrameSink.close` does."""
        failure: BaseException | None = None
        with source.lock:
            # Nothing is accepted from here on, so what is drained is all there is.
            source.closing = True
        source.drain()
        with source.turn:
            first = not source.completed or source.failure is not None
            if first:
                source.completed = True
                failure = source.failure = self._complete(source)
        try:
            # A sink of an earlier acquisition has no say in this one.
            if self._sources.get(source.name) is source:
                self._finalize_if_done()
        except BaseException:
            if failure is None:
                raise
        if failure is not None:
            raise failure
        if first:
            self._log("complete", source=source.name, frames=source.frames_written)

    def _complete(self, source: SourceInfo) -> BaseException | None:
        """Close the array of a source, and return why that failed; its turn is held."""
        again = source.failure is not None
        # What failed in an earlier acquisition cannot be tried again: the array of
        # that name is this one's.
        if not source.created or (again and self._sources.get(source.name) != source):
            return source.failure
        try:
            self._on_complete(source.name)
        except BaseException as error:
            return error
        source.frames_published = source.frames_written
        return None

    def _finalize_if_done(self) -> None:
        with self.lifecycle, ExitStack() as stack:
            if not self._is_open:
                return
            waiting = [s for s in self._current() if not s.completed]
            # With these locks held no source can receive its first frame meanwhile.
            for source in waiting:
                stack.enter_context(source.lock)
            if any(s.frames_accepted for s in waiting):
                return
            if waiting and not any(s.frames_written for s in self._current()):
                return
            self._close_store()

    def _close_store(self) -> None:
        """Finalise; whatever happens, the writer is ready for the next acquisition."""
        self._is_open = False
        try:
            self._stop_workers()
            self._finalize()
        finally:
            STAGED.discard(self.metadata)
            self._log("finalize", uri=self._uri)

    def abort(self) -> None:
        """Close every source and the store, whatever their state; may be called again.

        What was written stays, with its exact length.

        Raises
        ------
        StoreWriteError
            The disk refused; the writer is closed all the same.
        """
        failure: BaseException | None = None
        with self.lifecycle:
            for source in list(self._sources.values()):
                if source.failure is not None:
                    # It was said; here it is only tried once more.
                    self._retire(source)
                    continue
                try:
                    self.close_source(source)
                except Exception as error:
                    failure = failure or error
            if self._is_open:
                try:
                    self._close_store()
                except Exception as error:
                    failure = failure or error
        if failure is not None:
            raise failure

    def clear_sources(self) -> None:
        """Forget every source.

        Raises
        ------
        StoreStateError
            One of them is receiving frames.
        """
        with self.lifecycle:
            receiving = [s.name for s in self._receiving()]
            if receiving:
                raise StoreStateError(
                    f"cannot clear the sources of {self}: {receiving} are receiving "
                    "frames; close their sinks or abort() first"
                )
            self.abort()
            self._sources.clear()
        self._log("clear_sources")

    def _is_receiving(self, source: SourceInfo) -> bool:
        return self._is_open and source.created

    def _reopen(self, source: SourceInfo) -> None:
        """Let a source that has not written yet come back to a finalised store."""
        with self.lifecycle:
            if self._is_open and source.created:
                return
            stale = source.acquisition != self._acquisition or self._uri_is_fresh
            if not source.created or stale:
                raise StoreStateError(
                    f"source {source.name!r} cannot write: {self} is not open; "
                    "call kickoff() first"
                )
            self._on_reopen()
            self._is_open = True

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

    # ----------------------------------------------------------------- documents

    def collect_stream_docs(
        self, name: str, indices_written: int
    ) -> Iterator[StreamDoc]:
        """Return the documents for frames that none was emitted for yet.

        The length is published before this returns. An iterator that is abandoned
        half-way is continued by the next call: nothing twice, nothing skipped.

        Parameters
        ----------
        name
            The source.
        indices_written
            Announce at most this many frames, counted from the first.

        Returns
        -------
        Iterator of tuple
            ``("stream_resource", doc)`` once, then ``("stream_datum", doc)``.

        Raises
        ------
        UnknownSourceError
            There is no such source.
        """
        source = self._source(name)
        stop = min(indices_written, self.publish_source(source))
        return stream_docs(FrameSink(self, source), source, stop)

    def reset_collection_state(self, name: str) -> None:
        """Announce the frames of a source again, under a new StreamResource.

        Raises
        ------
        UnknownSourceError
            There is no such source.
        """
        from uuid import uuid4

        source = self._source(name)
        with source.lock:
            source.collection_counter = 0
            source.resource_sent = False
            source.stream_resource_uid = str(uuid4())

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

    def _begin(self) -> None:
        """Check that an acquisition may start and take what is staged for it."""
        if not self._uri:
            raise StoreStateError(f"{self} has no URI; call set_uri() before kickoff()")
        if not self._uri_is_fresh:
            raise StoreStateError(
                f"{self} has used the URI {self._uri!r} already; "
                "call set_uri() for the next acquisition"
            )
        # Sources of earlier acquisitions take no part, not even in the minimum, and
        # their sinks must never write into this one.
        for source in self._sources.values():
            if source.acquisition <= self._acquisition:
                self._retire(source)
        self._sources = {
            name: source
            for name, source in self._sources.items()
            if source.acquisition > self._acquisition and not source.completed
        }
        # Their locks are not taken: another writer may be kicking off just now and look
        # at this one.
        foreign = {
            source.name
            for other in WRITERS.others(self)
            for source in list(other._sources.values())
            if not source.completed
        }
        self.metadata = STAGED.claim(foreign - set(self._sources))
        for source in self._sources.values():
            # What was staged anew since it was prepared is newer.
            if source.metadata is not None and source.name not in self.metadata:
                self.metadata[source.name] = source.metadata

    def _retire(self, source: SourceInfo) -> None:
        """Close a source that was left open in an earlier acquisition."""
        told = source.failure is not None
        try:
            self.close_source(source)
        except Exception:
            # It received no frame, or its owner has had this error.
            self.logger.log(
                logging.DEBUG if told else logging.WARNING,
                "could not close source %r of %s",
                source.name,
                self,
                exc_info=True,
            )

    def _stage_late(self, source: SourceInfo) -> None:
        """Take the metadata of a source that joins an open store."""
        if source.metadata is not None:
            self.metadata[source.name] = source.metadata

    def _log(self, what: str, **fields: Any) -> None:
        _logger.debug("%s of %s %s", what, self, fields, extra={"writer": self.name})

    def __str__(self) -> str:
        return f"writer ({self.name!r}, {self.mimetype!r})"

    def __repr__(self) -> str:
        state = f"writing {self._uri!r}" if self._is_open else "idle"
        kind, count = type(self).__name__, len(self._sources)
        return f"<{kind} {self.name!r} {count} sources, {state}>"


def _opens_once(kickoff: Any) -> Any:
    """Let a subclass's kickoff run once per acquisition, and undo it when it fails."""

    @functools.wraps(kickoff)
    def guarded(self: Any) -> None:
        with self.lifecycle:
            if self._is_open:
                return
            if self._opening:
                # A subclass that calls the kickoff of the class above it.
                kickoff(self)
                return
            self._begin()
            self._opening = True
            try:
                kickoff(self)
            except BaseException:
                STAGED.discard(self.metadata)
                raise
            finally:
                self._opening = False
            self._uri_is_fresh = False
            self._acquisition += 1
            for source in self._sources.values():
                source.store_uri = self._uri
                self._mark_created(source)
            self._is_open = True
        self._log("kickoff", uri=self._uri)

    return guarded
