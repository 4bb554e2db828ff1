"""A writer and its paths, shared by the devices of one acquisition."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from bluesky_beamtime.storage.documents import quote_name
from bluesky_beamtime.storage.footprint import Footprint
from bluesky_beamtime.storage.layout import create_group
from bluesky_beamtime.storage.paths import (
    AcquisitionPathProvider,
    PathProvider,
    from_uri,
)
from bluesky_beamtime.storage.registry import make_writer
from bluesky_beamtime.storage.sink import FrameSink
from bluesky_beamtime.storage.writer import Writer

_NUMBERS = itertools.count(1)


class FrameStore:
    """Where several devices put their frames: one store for each acquisition.

    The first device that attaches starts an acquisition: its store is named and
    opened. Others join it, also late. When the last one is detached the store is
    closed, and the next attach starts another.

    Parameters
    ----------
    base
        A folder, in which each acquisition gets ``<YYYY_MM_DD>/<name>``; or a path
        provider, which is asked once per acquisition.
    name
        Returns the name of the acquisition, None for a number. Called once per
        acquisition, from the thread of the first attach.
    mimetype
        Format of the store.
    **options
        Options of the format's writer, such as ``compression`` or ``durability``.

    Notes
    -----
    Thread-safe. Stores of the same base share one writer. A context manager that
    closes.
    """

    def __init__(
        self,
        base: str | os.PathLike[str] | PathProvider,
        *,
        name: Callable[[], str | None] | None = None,
        mimetype: str = "application/x-zarr",
        **options: Any,
    ) -> None:
        if isinstance(base, (str, os.PathLike)):
            folder = Path(base).expanduser().resolve()
            self._paths: PathProvider = AcquisitionPathProvider(folder)
            self._root: Path | None = folder
            registered = str(folder)
        else:
            self._paths = base
            self._root = None
            registered = f"frame store {next(_NUMBERS)}"
        self._name = name
        self.mimetype = mimetype
        self._registered = registered
        self._options = options
        self._lock = threading.RLock()
        self._writer: Writer | None = None
        self._sinks: list[FrameSink] = []

    @property
    def writer(self) -> Writer:
        """The writer of this store."""
        with self._lock:
            if self._writer is None:
                self._writer = make_writer(
                    self.mimetype, self._registered, **self._options
                )
            return self._writer

    @property
    def uri(self) -> str | None:
        """URI of the store of the acquisition that is going on, None when idle."""
        writer = self._writer
        if writer is None or not self._attached(writer):
            return None
        return writer.uri

    @staticmethod
    def _attached(writer: Writer) -> list[str]:
        return [s.name for s in writer.sources.values() if not s.completed]

    def attach(
        self,
        name: str,
        *,
        dtype: Any,
        shape: tuple[int, ...],
        data_key: str | None = None,
        capacity: int = 0,
        units: str | None = None,
        dims: tuple[str, ...] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> FrameSink:
        """Return a sink in the store of the acquisition, which the first one starts.

        Parameters
        ----------
        name
            Name of the source; characters that cannot stand in a folder's name are
            escaped, and a name that was used in this acquisition gets ``_2``.
        dtype, shape, capacity, units, dims, **options
            See :meth:`Writer.prepare`.
        data_key
            Name in the event descriptor, by default ``name``.
        metadata
            Metadata of the device, for the attributes of store and array.

        Raises
        ------
        StoreWriteError
            The disk refused.
        StoreStateError
            Another live writer has the store.
        """
        with self._lock:
            writer = self.writer
            with writer.lifecycle:
                fresh = not self._attached(writer)
                if fresh:
                    writer.abort()
                    writer.clear_sources()
                folder = self._free_name(writer, quote_name(name))
                try:
                    if fresh:
                        self._start(writer)
                    sink = writer.prepare(
                        folder,
                        data_key if data_key is not None else name,
                        dtype,
                        shape,
                        capacity,
                        units=units,
                        dims=dims,
                        metadata=metadata,
                        **options,
                    )
                    if fresh:
                        writer.kickoff()
                except BaseException:
                    if fresh:
                        writer.clear_sources()
                        self._remove_empty(writer.uri)
                    raise
            # Sinks of earlier acquisitions have nothing left to close.
            self._sinks = [one for one in self._sinks if not one.closed]
            self._sinks.append(sink)
            return sink

    def _start(self, writer: Writer) -> None:
        """Choose where the acquisition that begins goes."""
        info = self._paths(self._name() if self._name else None)
        if self._root is not None and self.mimetype == "application/x-zarr":
            # The folders above are groups too, so that the whole can be opened and
            # walked as one Zarr hierarchy.
            create_group(Path(from_uri(info.store_uri)).parent, root=self._root)
        writer.set_uri(info.store_uri)

    def _remove_empty(self, uri: str) -> None:
        """Remove the folder that was reserved for an acquisition that did not begin."""
        if self._root is not None and uri:
            with suppress(OSError):
                os.rmdir(from_uri(uri))

    @staticmethod
    def _free_name(writer: Writer, name: str) -> str:
        taken = writer.sources
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        return free

    def footprint(self, key: str, dtype: Any, shape: tuple[int, ...]) -> Footprint:
        """Return what an array of such frames would take, and where; attach nothing."""
        folder = self._root or getattr(self._paths, "base", None)
        if folder is None:
            folder = getattr(self._paths, "base_dir", None)
        return Footprint(
            key,
            dtype,
            shape,
            folder=None if folder is None else str(folder),
            compressed=self._options.get("compression", "none") != "none",
        )

    def detach(self, sink: FrameSink) -> None:
        """Close a sink; the last one closes the store. May be called again."""
        sink.close()

    def close(self) -> None:
        """Close every sink that was attached here; may be called again.

        The writer is released unless another store of the same base uses it just now.
        Attaching again begins a new acquisition.

        Raises
        ------
        StoreWriteError
            The disk refused; all sinks are closed all the same.
        """
        failure: Exception | None = None
        with self._lock:
            sinks, self._sinks = self._sinks, []
            for sink in sinks:
                try:
                    sink.close()
                except Exception as error:
                    failure = failure or error
            writer, self._writer = self._writer, None
            if writer is not None and not self._attached(writer):
                type(writer).release(writer.name)
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        where = self.uri
        state = f"writing {where!r}" if where else "idle"
        return f"<FrameStore {self._registered!r}, {state}>"
