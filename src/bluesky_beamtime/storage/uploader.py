"""A local store followed by a copy in an object store, while it is being written."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bluesky_beamtime.errors import (
    BackendError,
    StorageError,
    StoreStateError,
)
from bluesky_beamtime.storage.backends import StorageBackend, check_prefix, open_backend
from bluesky_beamtime.storage.paths import from_uri
from bluesky_beamtime.storage.remote_array import Remote, Retry
from bluesky_beamtime.storage.remote_store import RemoteStore

# Between two looks at a store whose backend fails, at most.
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadProgress:
    """How far a copy is behind its store."""

    arrays: Mapping[str, tuple[int, int]]
    """By path in the store: frames published, and frames that a remote reader sees."""
    shards: int
    """Shards uploaded by this uploader, in whole or in part."""
    size: int
    """Bytes uploaded by this uploader."""
    failure: StorageError | None
    """Why the last look failed; None when it did not."""

    @property
    def frames_behind(self) -> int:
        """Published frames that a remote reader does not see yet."""
        return sum(max(0, here - max(0, there)) for here, there in self.arrays.values())


class StoreUploader:
    """Copies a store that is being written to a backend, and keeps the copy correct.

    The local store acknowledges frames first and never waits for this; the copy follows
    in a thread of its own. What a reader of the copy sees:

    =====================  ==========================================================
    when                   what is there
    =====================  ==========================================================
    a source has joined    within ``interval``: its array, with length 0, and the
                           groups above it, each with its attributes
    a shard is full        after its upload: the shard, then a length that covers it
    frames beyond          nothing yet, for they are in the last shard, which is not
                           full; ``frames_per_shard`` decides how far the copy lags
    :meth:`close`          the last shard of each array, then its exact length; then
                           all that is not hidden is equal, byte for byte
    the backend fails      what was there before; the upload goes on by itself
    the uploader dies      what was there before; a new one goes on from there
    =====================  ==========================================================

    A length never covers a frame whose shard is not there, at any moment. Attributes of
    an array are those of the moment when its length was uploaded. A shard is uploaded
    once; again only when its upload was not covered by a length before the uploader
    died, or when it was the unfinished last one of a store that is written further.

    One uploader for one store. To go on later, or to copy a finished store, use the
    same arguments; a place that holds another store is refused.

    Parameters
    ----------
    store
        Path or ``file:`` URI of the store; it need not exist yet.
    backend
        Where to, as a backend or its URL. A backend that is given stays open.
    prefix
        Below it, in the backend.
    interval
        Seconds between two looks at the store.
    retry
        How often a call is tried before a look counts as failed; the next look tries
        again, after ``interval`` or, while failures go on, up to 30 s.
    closing_timeout
        Seconds for which :meth:`close` tries to upload the rest.
    **options
        Options for the backend, when its URL is given.

    Examples
    --------
    >>> with StoreUploader(frames.uri, "s3://beamline/2026"):  # doctest: +SKIP
    ...     RE(scan)  # the writer has closed the store when this returns
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        backend: StorageBackend | str,
        prefix: str = "",
        *,
        interval: float = 1.0,
        retry: Retry | None = None,
        closing_timeout: float = 120.0,
        **options: Any,
    ) -> None:
        self.path = Path(from_uri(os.fspath(store))).absolute()
        self._owned = isinstance(backend, str)
        self.backend = (
            open_backend(backend, **options) if isinstance(backend, str) else backend
        )
        self.interval = interval
        self.closing_timeout = closing_timeout
        # Set when the uploader is being closed: wait for nothing any more.
        self._stop = threading.Event()
        self._remote = Remote(
            self.backend, check_prefix(prefix), retry or Retry(), self._stop
        )
        self._copy = RemoteStore(self.path, self._remote)
        self._failure: StorageError | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.logger = logging.getLogger(__name__)

    @property
    def prefix(self) -> str:
        """Prefix of the copy in the backend."""
        return self._remote.prefix

    @property
    def progress(self) -> UploadProgress:
        """How far the copy is, as of the last look; never waits for the backend."""
        arrays = {
            name: (self._copy.lengths.get(name, 0), max(0, array.covered))
            for name, array in self._copy.arrays.items()
        }
        return UploadProgress(
            arrays=arrays,
            shards=self._remote.shards,
            size=self._remote.size,
            failure=self._failure,
        )

    # ----------------------------------------------------------------------- life

    def start(self) -> Self:
        """Follow the store in a thread, until :meth:`close`; may be called again."""
        self._check_open()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run,
                name=f"beamtime-uploader {self.path.name}",
                daemon=True,
            )
            self._thread.start()
        return self

    def push(self) -> UploadProgress:
        """Upload every shard that is full, now and in this thread.

        Raises
        ------
        BackendError
            The backend failed more often than ``retry`` allows; call again later.
        StoreStateError
            The place holds another store.
        StoreReadError
            The local store cannot be read; the other arrays were uploaded.
        """
        self._check_open()
        with self._lock:
            self._look(final=False)
        return self.progress

    def close(self, timeout: float | None = None) -> UploadProgress:
        """Upload the rest, the last shards included, and stop; may be called again.

        Close the store's writer first: of a store that is still written, the frames
        published by now are uploaded.

        Parameters
        ----------
        timeout
            Seconds after which a backend that fails is given up, by default
            ``closing_timeout``. A call that hangs is waited for as long as the
            backend's own limits let it.

        Raises
        ------
        BackendError
            The backend failed until the end; the message says what is missing. The copy
            is correct as far as it goes, and ``close`` may be called once more.
        StoreStateError, StoreReadError
            As for :meth:`push`.
        """
        if self._closed:
            return self.progress
        self._stop.set()
        timeout = self.closing_timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout)
        with self._locked(deadline):
            self._finish(deadline)
            self._closed = True
            if self._owned:
                self.backend.close()
        return self.progress

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        behind = self.progress.frames_behind
        return (
            f"<StoreUploader {self.path} to {self.backend.url}, {behind} frames behind>"
        )

    # -------------------------------------------------------------------- internals

    def _check_open(self) -> None:
        if self._closed or self._stop.is_set():
            raise StoreStateError(f"{self!r} is closed; make another one to go on")

    @contextmanager
    def _locked(self, deadline: float) -> Generator[None]:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._unfinished("a call to it is still waiting")
        try:
            yield
        finally:
            self._lock.release()

    def _run(self) -> None:
        pause = self.interval
        while not self._stop.wait(pause):
            try:
                with self._lock:
                    self._look(final=False)
            except Exception as error:
                if not isinstance(error, StorageError):
                    # A fault in a backend, or here. The copy tries on, and says so.
                    self._failure = BackendError(
                        f"the copy of {str(self.path)!r} stopped at {error!r}"
                    )
                if pause <= self.interval:
                    self.logger.warning(
                        "the copy of %s lags: %s", self.path, error, exc_info=True
                    )
                pause = min(2 * max(pause, 0.1), _LONGEST_PAUSE)
            else:
                pause = self.interval

    def _finish(self, deadline: float) -> None:
        pause = self._remote.retry.pause
        while True:
            try:
                self._look(final=True)
                return
            except BackendError as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._unfinished(str(error)) from error
                time.sleep(min(max(pause, 0.05), left))
                pause = min(2 * pause, self._remote.retry.longest)

    def _unfinished(self, why: str) -> BackendError:
        return BackendError(
            f"the copy of {str(self.path)!r} in {self.backend.url} is not finished: "
            f"{why}. It lacks {self.progress.frames_behind} frames, which are all in "
            "the local store; close() again, or go on later with another StoreUploader"
        )

    def _look(self, *, final: bool) -> None:
        """Go once through the store; the lock is held."""
        try:
            self._copy.update(final=final)
        except StorageError as error:
            self._failure = error
            raise
        self._failure = None
