"""The life of a store: named, prepared, kicked off, written, completed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from bluesky_beamtime.errors import PathError, StoreStateError
from bluesky_beamtime.storage.acquisition import Acquiring
from bluesky_beamtime.storage.documents import StreamDoc, stream_docs
from bluesky_beamtime.storage.layout import plain_json
from bluesky_beamtime.storage.metadata import STAGED
from bluesky_beamtime.storage.registry import WRITERS
from bluesky_beamtime.storage.sink import FrameSink
from bluesky_beamtime.storage.source import SourceInfo, declared_source


class Writer(Acquiring):
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
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise PathError(f"a writer needs a name, got {name!r}")
        super().__init__(name)

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
        source = declared_source(
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

    def _stage_late(self, source: SourceInfo) -> None:
        """Take the metadata of a source that joins an open store."""
        if source.metadata is not None:
            self.metadata[source.name] = source.metadata

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
