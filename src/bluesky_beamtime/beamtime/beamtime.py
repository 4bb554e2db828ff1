"""Beamtime: the one object that users hold."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.index_follower import IndexFollower
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.samples import SampleMetadata
from bluesky_beamtime.database.search import Runs, count_incomplete
from bluesky_beamtime.database.sizes import folder_size, human_size
from bluesky_beamtime.recording import (
    DocumentRecorder,
    label_interrupted,
)
from bluesky_beamtime.storage import FrameStore, create_group

if TYPE_CHECKING:
    from bluesky_beamtime.beamtime.attaching import Attachment
    from bluesky_beamtime.database.replica import Following

from bluesky_beamtime.beamtime.describing import Describing
from bluesky_beamtime.beamtime.finding import Finding
from bluesky_beamtime.beamtime.keeping import Keeping
from bluesky_beamtime.beamtime.receiving import Receiving
from bluesky_beamtime.beamtime.recording import Recording
from bluesky_beamtime.beamtime.sharing import Sharing

# Summing up the files of thousands of runs must not make a prompt wait.
_PATIENCE = 0.3


class Beamtime(Recording, Describing, Finding, Receiving, Sharing, Keeping):
    """Everything that a beamline measured: records it, lists it, finds it, reads it.

    ::

        beamtime = Beamtime("2026-11-LaB6.db", sample="LaB6")
        beamtime.attach(RE)
        camera = SimCamera(beamtime.frames)
        RE(count([camera], 10))
        beamtime[-1].primary.read()

    Documents and numbers go to the SQLite file ``x.db``, frames and arrays to the Zarr
    hierarchy ``x.zarr`` beside it; the folder may be moved as a whole.

    Parameters
    ----------
    path
        The file; made if it does not exist, in a folder that does. Or the URL of a
        PostgreSQL database, ``"postgresql://user@host/database"``: with ``mode="a"`` a
        file on this machine is recorded into as always, and the server follows it; with
        ``mode="r"`` the server is read.
    sample
        What is in the beam, see :attr:`sample`.
    mode
        ``"a"`` to record, ``"r"`` to read: nothing that is there is changed then.
    durability
        ``"kill"``: what was accepted survives the death of the process at once, and a
        power cut after 50 ms; ``"power"``: it survives both at once, and is slower.
    on_error
        What becomes of a document that cannot be stored. ``"journal"``: it goes with
        the rest of its run to ``x.journal.jsonl``, with a loud warning, and the plan
        goes on; ``"raise"``: the plan stops.
    frames
        With a server: URL of an object store, such as ``"s3://bucket/prefix"``, to
        which frames are copied for those who read from the server.
    spool
        With a server: the folder of the file that is recorded into; by default one
        below ``~/.local/state/bluesky-beamtime``.
    keep_local
        With ``frames``: whether frames stay here when they were copied, and compared.
    index
        An index over many beamtimes, which is told of every run; see :meth:`register`.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    mode : str
        As given.

    Raises
    ------
    BeamtimeFileError
        The path is no beamtime's, or there is another kind of file; it is not changed.
    NewerVersionError
        The file was written by a newer version of this package.

    Notes
    -----
    Usable from several threads. Several processes may read a beamtime while others
    record into it. Opening one for recording labels the runs that were cut off by a
    crash, and repairs their frames. It is a callback: ``RE.subscribe(beamtime)``
    records, and :meth:`attach` does a little more.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sample: str | Mapping[str, Any] | SampleMetadata | None = None,
        mode: Literal["a", "r"] = "a",
        durability: Literal["kill", "power"] = "kill",
        on_error: Literal["journal", "raise"] = "journal",
        frames: str | None = None,
        spool: str | os.PathLike[str] | None = None,
        keep_local: bool = True,
        index: str | os.PathLike[str] | None = None,
    ) -> None:
        self.mode: Literal["a", "r"] = mode
        self._sample: SampleMetadata | None = None
        self._frames: FrameStore | None = None
        self._attached: dict[int, Attachment] = {}
        self._recorder: DocumentRecorder | None = None
        self._following: Following | None = None
        self._index: IndexFollower | None = None
        if isinstance(path, str) and path.startswith("postgres") and "://" in path:
            from bluesky_beamtime.database.replica import open_server

            opened = open_server(
                path,
                mode=mode,
                durability=durability,
                frames=frames,
                spool=spool,
                keep_local=keep_local,
            )
            self._database, self._journal = opened.database, opened.journal
            self._following = opened.following
        else:
            if frames is not None or spool is not None:
                raise ValueError(
                    "frames= and spool= are for a beamtime on a server; the frames of "
                    "a file are beside it, replicate_to() copies both"
                )
            self._database = Database(path, mode=mode, durability=durability)
            self._journal = JournalIndex(self._database.journal)
        try:
            self.path = self._database.path
            self._runs = Runs(self._database, self._journal)
            if mode == "a":
                self._begin_recording(on_error)
            if sample is not None:
                self.sample = sample
            if index is not None:
                self.register(index)
        except BaseException:
            self.close()
            raise

    def _begin_recording(self, on_error: Literal["journal", "raise"]) -> None:
        self._recorder = DocumentRecorder(self._database, on_error=on_error)
        power = self._database.durability == "power"
        create_group(self._database.store, sync=power)
        label_interrupted(self._database)
        if self._following is not None:
            self._follow(self._following, numbers=True)

    def close(self) -> None:
        """Bring everything to the disk and let go of the files; may be called again.

        Documents that arrive afterwards are kept in the journal, with a warning; so
        are those of a run that an attached RunEngine has not ended, see :meth:`detach`.
        Runs that it begins later are not, which is warned of if its plan is paused.
        """
        for attached in list(self._attached.values()):
            if attached.between_runs and self._recorder is not None:
                self._recorder.warn(
                    f"{str(self._database.path)!r} is closed while a plan is paused: "
                    "runs that it begins from now on are not recorded; open the "
                    "beamtime and attach it again before the plan is resumed"
                )
            self.detach(attached.RE)
        if self._recorder is not None:
            self._recorder.close()
        if self._index is not None:
            self._index.close()
        if self._following is not None:
            self._following.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        name = self._database.path.name.removesuffix(".db")
        if self._database.closed:
            return f"<Beamtime {name!r} closed>"
        count = len(self)
        parts = [f"{count} run{'' if count == 1 else 's'}"]
        incomplete = count_incomplete(self._database, self._journal)
        if incomplete:
            parts.append(f"{incomplete} incomplete")
        parts.append(self._size())
        if self._following is not None:
            parts.append(f"replica: {self._following.progress}")
        return f"<Beamtime {name!r} {', '.join(parts)}>"

    def _size(self) -> str:
        """Return what the files take on the disk, as people write it."""
        asked: Any = getattr(self._database, "size", None)
        if asked is not None:
            return human_size(asked())
        total, complete = 0, True
        deadline = time.monotonic() + _PATIENCE
        for folder in (self._database.store, self._database.files):
            size, seen = folder_size(folder, deadline)
            total, complete = total + size, complete and seen
        for path in (self.path, Path(f"{self.path}-wal"), self._database.journal):
            if path.exists():
                total += path.stat().st_size
        return ("" if complete else "over ") + human_size(total)
