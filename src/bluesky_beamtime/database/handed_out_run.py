"""A run handed out: as documents, as records for a sink, as files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from bluesky_beamtime.database.documents import DocumentReader, NamedDocument
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.plugins import load_plugin
from bluesky_beamtime.sinks import DaqBlock, DaqReading, DocumentRecords
from bluesky_beamtime.storage import open_frames


class HandedOutRun(ABC):
    """A run whose documents and data other programs take; see :class:`Run`."""

    database: Database
    uid: str

    @property
    @abstractmethod
    def exit_status(self) -> str | None:
        """How it ended; ``interrupted`` if nobody records it any more."""

    def documents(self, *, original: bool = False) -> Iterator[NamedDocument]:
        """Yield ``(name, document)`` in the order in which they were emitted.

        Parameters
        ----------
        original
            Give URIs and paths as they were emitted. By default those inside the
            beamtime's folder follow it when it moves, and in an archive or a folder
            that was taken home all lead to the files that came along.

        Raises
        ------
        StoreReadError
            An array of an event is missing or damaged.
        """
        return iter(DocumentReader(self.database, self.uid, original=original))

    def readings(self) -> Iterator[DaqReading]:
        """Yield the events as readings for a sink, one for each object of an event.

        ``await pipe(run.readings(), sink)`` writes a table: the same rows that a
        :class:`~bluesky_beamtime.sinks.SinkSubscriber` writes while the run goes on.
        Frames are left out, and other data outside of events.
        """
        records = DocumentRecords(blocks=False)
        for name, document in self.documents():
            yield from cast("Iterator[DaqReading]", records(name, document))

    def blocks(self, *, block_keys: Collection[str] = ()) -> Iterator[DaqBlock]:
        """Yield the blocks of digitizers, for a sink.

        Parameters
        ----------
        block_keys
            Further data keys that hold blocks, ``(channels, samples)``, without saying
            so in their dimensions.

        Raises
        ------
        StorageError
            Blocks cannot be read.
        """

        def open_array(resource: Mapping[str, Any]) -> Any:
            parameters = resource.get("parameters")
            return open_frames(resource["uri"], resource["mimetype"], parameters)

        records = DocumentRecords(
            readings=False, block_keys=block_keys, open_array=open_array
        )
        for name, document in self.documents():
            yield from cast("Iterator[DaqBlock]", records(name, document))
        if self.exit_status == "interrupted":
            yield from records.end()

    def export(
        self,
        path: str | os.PathLike[str] | None,
        format: str,
        *,
        overwrite: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
        **options: Any,
    ) -> list[Path]:
        """Write the run for another program; return the files.

        They appear when they are finished, or not at all. What a format cannot hold in
        one file, as several streams in CSV, is one file each,
        ``<stem>-<name>.<ext>``.

        Parameters
        ----------
        path
            Where to; a folder that is there, one that ends with a slash, or None for
            the current one, gets ``<scan_id>_<plan>.<ext>``.
        format
            ``"nexus"`` or another one that is installed; the reference has a table.
        overwrite
            Replace what is there; never what belongs to the beamtime, nor a folder with
            anything in it that an export has not written.
        progress
            Called with what is being written, how much of it is done, and how much
            there is.
        **options
            What the format understands, such as ``frames="external"`` of nexus.

        Raises
        ------
        UnsupportedFormatError
            There is no such format.
        ExportError
            The file is there already, cannot be written, or the run has nothing that
            the format could hold.
        StorageError
            Frames cannot be read.
        MissingExtraError
            A package is not installed that the format needs.
        """
        write = load_plugin("bluesky_beamtime.exports", format, "export")
        return write(self, path, overwrite=overwrite, progress=progress, **options)
