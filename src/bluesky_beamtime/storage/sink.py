"""What a producer of frames holds: a way to write them, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from bluesky_beamtime.storage.source import SourceInfo
from bluesky_beamtime.storage.submission import SubmissionStats

if TYPE_CHECKING:
    from bluesky_beamtime.storage.writer import Writer


class FrameSink:
    """Takes the frames of one source; made by :meth:`Writer.prepare`.

    All methods are thread-safe. Frames that several threads write at once are stored
    one after another, in the order in which they got in. A context manager that closes.
    """

    def __init__(self, writer: Writer, source: SourceInfo) -> None:
        self._writer = writer
        self._source = source

    @property
    def name(self) -> str:
        """Name of the source and of its array."""
        return self._source.name

    @property
    def data_key(self) -> str:
        """Name in the event descriptor."""
        return self._source.data_key

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of a frame."""
        return self._source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        return self._source.shape

    @property
    def uri(self) -> str:
        """URI of the array, or of the file that holds it."""
        return self._writer.source_uri(self._source)

    @property
    def mimetype(self) -> str:
        """Mimetype for StreamResource documents."""
        return self._writer.mimetype

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of the chunks on disk, the frames' axis first."""
        return self._writer.source_chunk_shape(self._source)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters for StreamResource documents."""
        return self._writer.source_parameters(self._source)

    @property
    def frames_written(self) -> int:
        """Frames that were acknowledged: they survive the death of the process."""
        return self._source.frames_written

    @property
    def frames_published(self) -> int:
        """Frames that a fresh reader sees at this moment."""
        return self._writer.source_published(self._source)

    @property
    def closed(self) -> bool:
        """Whether the sink is closed."""
        return self._source.completed

    def write(self, frame: ArrayLike) -> None:
        """Write one frame; blocks until it would survive ``kill -9``.

        The frame's memory may be used again when this returns.

        Parameters
        ----------
        frame
            Array of the declared dtype and shape.

        Raises
        ------
        FrameMismatchError
            Another dtype or shape; nothing is written.
        CapacityError
            More frames than promised; nothing is written.
        SinkClosedError
            The sink is closed.
        StoreStateError
            The writer was not kicked off.
        StoreWriteError
            The disk refused; the frame is not written, and trying again is allowed.
        """
        self._writer.write_frame(self._source, frame)

    def write_many(self, frames: ArrayLike) -> None:
        """Write several frames at once, which is quicker for small ones.

        Parameters
        ----------
        frames
            Array whose leading axis counts frames.

        Raises
        ------
        StoreWriteError
            The disk refused; :attr:`frames_written` says how many leading frames are
            safe. Otherwise as :meth:`write`, with nothing written.
        """
        self._writer.write_frames(self._source, frames)

    def submit(self, frame: ArrayLike) -> Future[int]:
        """Copy a frame into a bounded queue, from which worker threads write it.

        Blocks while the queue is full, which :attr:`submission` counts. Use this where
        frames come faster in bursts than one thread can compress them; frames in the
        queue are lost with the process, which their futures do not hide.

        Parameters
        ----------
        frame
            Array of the declared dtype and shape; its memory may be used again when
            this returns.

        Returns
        -------
        concurrent.futures.Future
            Resolves with the frame's index once it would survive ``kill -9``, or fails
            with what :meth:`write` would have raised. Frames are stored in the order of
            submission; when one fails, those behind it in the queue fail with it.

        Raises
        ------
        FrameMismatchError, CapacityError, SinkClosedError, StoreStateError
            As :meth:`write`.
        """
        return self._writer.submit_frame(self._source, frame)

    @property
    def submission(self) -> SubmissionStats:
        """How many frames were submitted, and how long producers waited for room."""
        queue = self._source.queue
        return SubmissionStats() if queue is None else replace(queue.stats)

    def publish(self) -> int:
        """Let fresh readers see every frame written so far; return how many."""
        return self._writer.publish_source(self._source)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Update attributes of the array; they are written with the next publish.

        Raises
        ------
        SinkClosedError
            The sink is closed; nothing was changed.
        MetadataError
            They cannot be written as JSON.
        """
        self._writer.set_source_attributes(self._source, attributes)

    def close(self) -> None:
        """Publish the exact length and close this source; may be called again.

        Raises
        ------
        StoreWriteError
            The disk refused. The sink takes no more frames all the same; call again to
            publish what could not be.
        """
        self._writer.close_source(self._source)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        source = self._source
        state = "closed" if source.completed else "open"
        return (
            f"<FrameSink {source.name!r} {source.frames_written} frames of "
            f"{source.promised}, {state}>"
        )
