"""Frames on their way into a source: accepted, encoded, written, published."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bluesky_beamtime.errors import SinkClosedError
from bluesky_beamtime.storage.hooks import WriterHooks
from bluesky_beamtime.storage.layout import plain_json
from bluesky_beamtime.storage.paths import child_uri
from bluesky_beamtime.storage.source import SourceInfo
from bluesky_beamtime.storage.submission import SubmissionQueue

_WORKERS = "beamtime-frames"


class FrameWriting(WriterHooks):
    """What a :class:`FrameSink` does, for the source that it stands for.

    A frame is *accepted* under the source's short lock, which is never held while the
    disk works, and then written in its *turn*, one frame at a time. Closing waits for
    every frame that was accepted.
    """

    threads = 2
    """Worker threads for frames that are submitted."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()

    def write_frame(self, source: SourceInfo, frame: ArrayLike) -> None:
        """Write one frame; what :meth:`FrameSink.write` does."""
        array = source.check_frame(frame)
        chunk = self._encode(source.name, array)
        source.drain_queue()
        self._accept(source, 1)
        self._commit(source, chunk)

    def write_frames(self, source: SourceInfo, frames: ArrayLike) -> None:
        """Write several frames; what :meth:`FrameSink.write_many` does."""
        block = np.asarray(frames)
        if block.ndim == 0:
            raise TypeError("write_many() takes an array whose leading axis is frames")
        if len(block) == 0:
            return
        source.check_block(block)
        source.drain_queue()
        self._accept(source, len(block))
        with source.turn:
            before = source.frames_written
            try:
                self._write_frames(source, block)
            finally:
                source.settle(len(block), source.frames_written - before)

    def submit_frame(self, source: SourceInfo, frame: ArrayLike) -> Future[int]:
        """Hand one frame to the workers; what :meth:`FrameSink.submit` does."""
        array = source.check_frame(frame)
        self._accept(source, 1)
        try:
            with source.lock:
                if source.queue is None:
                    source.queue = self._make_queue(source)
            return source.queue.submit(array)
        except BaseException:
            source.settle(1, 0)
            raise

    def _accept(self, source: SourceInfo, count: int) -> None:
        """Count frames in, or refuse them."""
        while True:
            with source.lock:
                if source.closing or source.completed:
                    raise SinkClosedError(
                        f"the sink of source {source.name!r} of {self} is closed after "
                        f"{source.frames_written} frames; prepare() it for a new "
                        "acquisition"
                    )
                if self._is_receiving(source):
                    source.accept(count)
                    return
            self._reopen(source)

    def _commit(self, source: SourceInfo, chunk: Any) -> int:
        """Write an accepted frame in its turn and return its index."""
        with source.turn:
            written = 0
            try:
                self._write_frame(source.name, chunk)
                source.frames_written += 1
                written = 1
                return source.frames_written - 1
            finally:
                source.settle(1, written)

    def _workers(self) -> ThreadPoolExecutor:
        """Return the worker threads; their lock is held."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, f"{_WORKERS} {self}")
        return self._pool

    def _helpers(self) -> ThreadPoolExecutor | None:
        """Return threads that may work for the calling one, None if there are none."""
        # A callback of a future may write, from a worker that nobody else relieves.
        if self.threads < 2 or threading.current_thread().name.startswith(_WORKERS):
            return None
        with self._pool_lock:
            return self._workers()

    def _make_queue(self, source: SourceInfo) -> SubmissionQueue:
        def schedule(work: Callable[[], object]) -> None:
            with self._pool_lock:
                self._workers().submit(work)

        return SubmissionQueue(
            lambda frame: self._encode(source.name, frame),
            lambda chunk: self._commit(source, chunk),
            lambda: source.settle(1, 0),
            source.dtype.itemsize * int(np.prod(source.shape, dtype=np.int64)),
            schedule,
        )

    def _stop_workers(self) -> None:
        with self._pool_lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            # A callback of a future may close the sink from one of the workers.
            own = threading.current_thread().name.startswith(_WORKERS)
            pool.shutdown(wait=not own)

    # ---------------------------------------------------------- what others see

    def publish_source(self, source: SourceInfo) -> int:
        """Publish a source; what :meth:`FrameSink.publish` does."""
        if not source.created or source.completed:
            return source.frames_published
        source.frames_published = self._on_publish(source.name)
        return source.frames_published

    def source_published(self, source: SourceInfo) -> int:
        """Return how many frames a fresh reader sees, without publishing more."""
        if not source.created or source.completed:
            return source.frames_published
        return self._published(source)

    def set_source_attributes(
        self, source: SourceInfo, attributes: Mapping[str, Any]
    ) -> None:
        """Update attributes; what :meth:`FrameSink.set_attributes` does."""
        with source.lock:
            if source.completed:
                raise SinkClosedError(
                    f"the attributes of source {source.name!r} of {self} cannot be "
                    "changed: its sink is closed"
                )
            if not source.created:
                # Kept until there is an array.
                source.attributes.update(plain_json(dict(attributes)))
                return
        self._on_attributes(source.name, attributes)

    def _mark_created(self, source: SourceInfo) -> None:
        with source.lock:
            source.created = True
            attributes, source.attributes = source.attributes, {}
        if attributes:
            self._on_attributes(source.name, attributes)

    def source_uri(self, source: SourceInfo) -> str:
        """Return the URI of a source's array."""
        return child_uri(source.store_uri or self.uri, source.name)

    def source_chunk_shape(self, source: SourceInfo) -> tuple[int, ...]:
        """Return the shape of the chunks on disk, the frames' axis first."""
        return (1, *(max(1, size) for size in source.shape))

    def source_parameters(self, source: SourceInfo) -> dict[str, Any]:
        """Return the parameters of a source's StreamResource."""
        return {
            "array_name": source.name,
            "chunk_shape": list(self.source_chunk_shape(source)),
        }

    # ------------------------------------------- supplied by the writer itself

    @abstractmethod
    def _is_receiving(self, source: SourceInfo) -> bool:
        """Say whether the store of a source is open; its lock is held."""

    @abstractmethod
    def _reopen(self, source: SourceInfo) -> None:
        """Open the store of a source again, or raise why it cannot be written to."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """URI of the open, next or last store."""
