"""What a format has to say: the hooks behind a writer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from bluesky_beamtime.errors import StoreStateError
from bluesky_beamtime.storage.source import SourceInfo


class WriterHooks(ABC):
    """The part of a writer that a format supplies.

    A format must have :meth:`_class_mimetype`, :meth:`_on_prepare`, :meth:`kickoff`,
    :meth:`_write_frame` and :meth:`_finalize`; the other hooks have defaults.
    """

    @abstractmethod
    def kickoff(self) -> None:
        """Open the store of the next acquisition; nothing happens while it is open.

        Raises
        ------
        StoreStateError
            There is no URI, or it was used by an earlier acquisition.
        """

    @classmethod
    @abstractmethod
    def _class_mimetype(cls) -> str:
        """Return the mimetype of the format."""

    @abstractmethod
    def _on_prepare(self, name: str) -> None:
        """Check a source that was registered; raising takes it back."""

    @abstractmethod
    def _write_frame(self, name: str, frame: Any) -> None:
        """Write a frame, or what :meth:`_encode` made of it; the source's lock is held.

        It must survive the death of the process when this returns, and must not be
        kept: its memory is used again.
        """

    @abstractmethod
    def _finalize(self) -> None:
        """Close the store."""

    def _check_uri(self, uri: str) -> None:  # noqa: B027 - may stay empty
        """Refuse a URI that this format cannot write to."""

    def _encode(self, name: str, frame: NDArray[Any]) -> Any:
        """Turn a frame into what is written, without any lock."""
        return frame

    def _write_frames(self, source: SourceInfo, frames: NDArray[Any]) -> None:
        """Write a block of frames and count them; the source's lock is held."""
        for number in range(len(frames)):
            # With the ellipsis a frame without dimensions keeps its byte order.
            frame = frames[number, ...]
            self._write_frame(source.name, self._encode(source.name, frame))
            source.frames_written += 1

    def _on_join(self, name: str) -> None:  # noqa: B027 - may stay empty
        """Add a source to the open store."""

    def _on_complete(self, name: str) -> None:  # noqa: B027 - may stay empty
        """Close a source of the open store; its lock is held."""

    def _on_reopen(self) -> None:
        """Open the finalised store again."""
        raise StoreStateError(f"{self} is finalised; prepare a new acquisition")

    def _on_publish(self, name: str) -> int:
        """Let fresh readers see what is written and return how many frames."""
        return self._source(name).frames_written

    def _published(self, source: SourceInfo) -> int:
        """Return how many frames fresh readers see."""
        return source.frames_written

    def _on_flush(self, name: str) -> None:
        """Bring a source to the disk itself and publish it."""
        self._on_publish(name)

    def _on_attributes(  # noqa: B027 - may stay empty
        self, name: str, attributes: Mapping[str, Any]
    ) -> None:
        """Update attributes of a source's array."""

    # Known to the hooks, and supplied by the writer itself.

    @abstractmethod
    def _source(self, name: str) -> SourceInfo:
        """Return a source by its name."""
