"""What the writers to a local disk have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from bluesky_beamtime.errors import PathError, StoreWriteError
from bluesky_beamtime.storage.pacer import Pacer
from bluesky_beamtime.storage.paths import from_uri
from bluesky_beamtime.storage.remote_frames import is_remote
from bluesky_beamtime.storage.source import SourceInfo
from bluesky_beamtime.storage.writer import Writer

Durability = Literal["kill", "power"]


class GrowingArray(Protocol):
    """Frames of one source on a local disk; all methods are thread-safe."""

    @property
    def length(self) -> int:
        """Frames that would survive ``kill -9``."""
        ...

    @property
    def published(self) -> int:
        """Frames that a fresh reader sees."""
        ...

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        ...

    @property
    def unsynced(self) -> bool:
        """Whether a power cut would lose something that was acknowledged."""
        ...

    def encode(self, frame: NDArray[Any]) -> Any:
        """Return what is stored of a frame; needs no lock."""
        ...

    def append_encoded(self, frame: Any) -> int:
        """Append what :meth:`encode` returned."""
        ...

    def append_block(
        self, frames: NDArray[Any], workers: Executor | None = None
    ) -> int:
        """Append frames that lie along the leading axis."""
        ...

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Update attributes; they are written with the next :meth:`publish`."""
        ...

    def publish(self, *, sync: bool = False) -> int:
        """Let fresh readers see every frame that is written."""
        ...

    def sync(self) -> None:
        """Bring every frame written so far to the disk itself."""
        ...

    def close(self) -> None:
        """Publish the exact length, bring everything to the disk, close the files."""
        ...


class LocalWriter(Writer):
    """A writer with a growing array for each source, which a pacer looks after.

    Parameters
    ----------
    name
        Name of the group of devices that share the writer.
    durability
        ``"kill"``: frames survive the death of the process at once, and a power cut
        after 50 ms. ``"power"``: every frame is fsynced before it is acknowledged.
    threads
        Worker threads that compress and write submitted frames.
    """

    def __init__(self, name: str, *, durability: Durability, threads: int) -> None:
        super().__init__(name)
        if threads < 1:
            raise ValueError(f"threads must be 1 or more, got {threads}")
        if durability not in ("kill", "power"):
            raise ValueError(
                f"durability is 'kill' or 'power', not {durability!r}; see the docs on "
                "the crash promise"
            )
        self.threads = threads
        self.durability = durability
        self._arrays: dict[str, GrowingArray] = {}
        self._pacer: Pacer | None = None

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return Path(from_uri(self._uri))

    # ------------------------------------------------- what a format brings

    @abstractmethod
    def _open_folder(self) -> None:
        """Make the store's folder, and lock it for the arrays that are open."""

    @abstractmethod
    def _create(
        self,
        source: SourceInfo,
        attributes: dict[str, Any],
        dimension_names: tuple[str, ...],
    ) -> GrowingArray:
        """Make the empty array of a source."""

    @abstractmethod
    def _on_closed(self, name: str) -> None:
        """Let others have the array of a source, which is closed."""

    @abstractmethod
    def _release(self) -> None:
        """Let others have the store: it is not open any more."""

    # -------------------------------------------------------------------- hooks

    def _check_uri(self, uri: str) -> None:
        path = from_uri(uri)
        if is_remote(path):
            raise PathError(
                f"{self} writes to the local disk, where frames survive a crash at "
                f"once, not to {uri!r}: write to a folder and let a StoreUploader copy "
                "each full shard there while it grows"
            )
        if "://" in path or "\0" in path or not os.path.isabs(path):
            raise PathError(
                f"{self} writes to the local disk: give a file: URI or an absolute "
                f"path, not {uri!r}"
            )

    def _refuse_unknown(
        self, options: Mapping[str, Any], known: Collection[str]
    ) -> None:
        """Refuse options that this format has not."""
        unknown = set(options) - set(known)
        if unknown:
            raise TypeError(
                f"{self} knows no option {', '.join(sorted(map(repr, unknown)))}; "
                f"it has {', '.join(sorted(map(repr, known)))}"
            )

    def kickoff(self) -> None:
        """Make the store's folder and the arrays of its sources; see the base class.

        Raises
        ------
        StoreStateError
            Another live writer has this store, or the place of a source holds frames.
        StoreWriteError
            The disk refused.
        """
        # Arrays of an earlier acquisition that never received a frame.
        self._abandon()
        try:
            self._open_folder()
            for name in self._sources:
                self._on_join(name)
        except BaseException:
            self._abandon()
            raise
        self._start()

    def _start(self) -> None:
        self._pacer = Pacer(lambda: list(self._arrays.values()), self.name)

    def _abandon(self) -> None:
        """Close every array that is not closed, whatever becomes of it."""
        arrays, self._arrays = self._arrays, {}
        for array in arrays.values():
            try:
                if not array.closed:
                    array.close()
            except StoreWriteError:
                self.logger.warning("could not close %s", array, exc_info=True)
        self._release()

    def _on_join(self, name: str) -> None:
        source = self._source(name)
        attributes: dict[str, Any] = {"data_key": source.data_key}
        if source.units is not None:
            attributes["units"] = source.units
        if name in self.metadata:
            attributes["metadata"] = self.metadata[name]
        dims = source.dims or default_dims(source.data_key, len(source.shape))
        array = self._create(source, attributes, ("time", *dims))
        # Replaced as a whole: the pacer's thread looks at the table meanwhile.
        self._arrays = {**self._arrays, name: array}

    def _encode(self, name: str, frame: NDArray[Any]) -> Any:
        array = self._arrays.get(name)
        # Before kickoff there is no array; the state check that follows says so.
        return None if array is None else array.encode(frame)

    def _write_frame(self, name: str, frame: Any) -> None:
        array = self._arrays[name]
        if self._pacer is not None:
            self._pacer.check(array)
        array.append_encoded(frame)

    def _write_frames(self, source: SourceInfo, frames: NDArray[Any]) -> None:
        array = self._arrays[source.name]
        if self._pacer is not None:
            self._pacer.check(array)
        try:
            array.append_block(frames, self._helpers())
        finally:
            source.frames_written = array.length

    def _on_publish(self, name: str) -> int:
        return self._arrays[name].publish()

    def _published(self, source: SourceInfo) -> int:
        return self._arrays[source.name].published

    def _on_flush(self, name: str) -> None:
        array = self._arrays[name]
        array.sync()
        array.publish(sync=True)

    def _on_attributes(self, name: str, attributes: Mapping[str, Any]) -> None:
        array = self._arrays.get(name)
        if array is not None:
            array.set_attributes(attributes)

    def _on_complete(self, name: str) -> None:
        array = self._arrays[name]
        try:
            array.close()
            if self._pacer is not None:
                self._pacer.check_synced(array)
        finally:
            self._on_closed(name)

    def _on_reopen(self) -> None:
        self._open_folder()
        self._start()

    def _finalize(self) -> None:
        if self._pacer is not None:
            self._pacer.stop()
            self._pacer = None
        self._release()


def default_dims(data_key: str, count: int) -> tuple[str, ...]:
    """Return names for a frame's dimensions: ``<key>_y``, ``<key>_x`` and the like."""
    names = {
        0: (),
        1: ("x",),
        2: ("y", "x"),
        3: ("z", "y", "x"),
    }.get(count, tuple(f"dim{number}" for number in range(count)))
    return tuple(f"{data_key}_{name}" for name in names)
