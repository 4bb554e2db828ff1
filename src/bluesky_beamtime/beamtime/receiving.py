"""Runs that were recorded elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.recording.importing import (
    ImportReport,
    Progress,
    import_documents,
)
from bluesky_beamtime.recording.ingesting import DocumentSource, Ingest, IngestedRun
from bluesky_beamtime.recording.sources import open_source

if TYPE_CHECKING:
    pass


from bluesky_beamtime.beamtime.parts import Parts


class Receiving(Parts):
    """Takes in what others have recorded."""

    def import_documents(
        self,
        source: Any,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ImportReport:
        """Store documents from elsewhere; those that are here already stay as they are.

        What was interrupted is gone on with by importing the same source again. A
        document that cannot be stored goes to the journal, with the place where it
        stands; the others are stored.

        Parameters
        ----------
        source
            A file, or a folder of files: JSON lines (``[name, document]`` as of
            suitcase-jsonl, or the journal of a beamtime) or msgpack (suitcase-msgpack);
            the URL of a Tiled server; a catalogue of databroker or Tiled, or anything
            else whose runs have ``documents()``; or ``(name, document)`` pairs.
        dry_run
            Say what would become of it, and change nothing.
        progress
            Called with what is being read, how much is read, and how much there is.

        Raises
        ------
        OSError
            A file cannot be read.
        DocumentError
            The source holds no documents.
        MissingExtraError
            The source is a Tiled server and ``tiled`` is not installed.
        ServerError
            The server cannot be read.
        DatabaseWriteError
            The disk is full.
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("import documents")
        return import_documents(
            self._database, source, dry_run=dry_run, progress=progress
        )

    def ingest(
        self,
        source: str | DocumentSource,
        *,
        on_run: Callable[[IngestedRun], None] | None = None,
    ) -> Ingest:
        """Return what records documents from a network, and notices what was lost.

        Parameters
        ----------
        source
            ``"zmq://host:port"`` of a bluesky proxy's outgoing side,
            ``"kafka://host:port/topic"``, or another source of messages.
        on_run
            Called for each run that has ended.

        Returns
        -------
        bluesky_beamtime.recording.Ingest
            Its ``run()`` records; ``close()`` it afterwards.

        Raises
        ------
        ServerError
            The address is none.
        MissingExtraError
            The package for the source is not installed.
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("record")
        opened = open_source(source) if isinstance(source, str) else source
        return Ingest(self._database, opened, on_run)
