"""An acquisition: kicked off, closed source by source, finalised or aborted."""

from __future__ import annotations

import functools
import logging
from contextlib import ExitStack
from typing import Any

from bluesky_beamtime.errors import StoreStateError
from bluesky_beamtime.storage.metadata import STAGED
from bluesky_beamtime.storage.registry import WRITERS
from bluesky_beamtime.storage.source import SourceInfo
from bluesky_beamtime.storage.sources import WriterSources


class Acquiring(WriterSources):
    """How a writer opens a store for its sources, and closes it behind them."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.metadata: dict[str, dict[str, Any]] = {}
        self._uri_is_fresh = False
        self._opening = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kickoff" in cls.__dict__:
            cls.kickoff = _opens_once(cls.kickoff)

    # ---------------------------------------------------------------- beginning

    def _begin(self) -> None:
        """Check that an acquisition may start and take what is staged for it."""
        if not self._uri:
            raise StoreStateError(f"{self} has no URI; call set_uri() before kickoff()")
        if not self._uri_is_fresh:
            raise StoreStateError(
                f"{self} has used the URI {self._uri!r} already; "
                "call set_uri() for the next acquisition"
            )
        # Sources of earlier acquisitions take no part, not even in the minimum, and
        # their sinks must never write into this one.
        for source in self._sources.values():
            if source.acquisition <= self._acquisition:
                self._retire(source)
        self._sources = {
            name: source
            for name, source in self._sources.items()
            if source.acquisition > self._acquisition and not source.completed
        }
        # Their locks are not taken: another writer may be kicking off just now and look
        # at this one.
        foreign = {
            source.name
            for other in WRITERS.others(self)
            for source in list(other._sources.values())
            if not source.completed
        }
        self.metadata = STAGED.claim(foreign - set(self._sources))
        for source in self._sources.values():
            # What was staged anew since it was prepared is newer.
            if source.metadata is not None and source.name not in self.metadata:
                self.metadata[source.name] = source.metadata

    def _is_receiving(self, source: SourceInfo) -> bool:
        return self._is_open and source.created

    def _reopen(self, source: SourceInfo) -> None:
        """Let a source that has not written yet come back to a finalised store."""
        with self.lifecycle:
            if self._is_open and source.created:
                return
            stale = source.acquisition != self._acquisition or self._uri_is_fresh
            if not source.created or stale:
                raise StoreStateError(
                    f"source {source.name!r} cannot write: {self} is not open; "
                    "call kickoff() first"
                )
            self._on_reopen()
            self._is_open = True

    # ------------------------------------------------------------------- ending

    def complete(self, name: str) -> None:
        """Close a source; the last one finalises the store. May be called again.

        Raises
        ------
        UnknownSourceError
            There is no such source.
        """
        self.close_source(self._source(name))

    def close_source(self, source: SourceInfo) -> None:
        """Close a source; what :meth:`FrameSink.close` does."""
        failure: BaseException | None = None
        with source.lock:
            # Nothing is accepted from here on, so what is drained is all there is.
            source.closing = True
        source.drain()
        with source.turn:
            first = not source.completed or source.failure is not None
            if first:
                source.completed = True
                failure = source.failure = self._complete(source)
        try:
            # A sink of an earlier acquisition has no say in this one.
            if self._sources.get(source.name) is source:
                self._finalize_if_done()
        except BaseException:
            if failure is None:
                raise
        if failure is not None:
            raise failure
        if first:
            self._log("complete", source=source.name, frames=source.frames_written)

    def _complete(self, source: SourceInfo) -> BaseException | None:
        """Close the array of a source, and return why that failed; its turn is held."""
        again = source.failure is not None
        # What failed in an earlier acquisition cannot be tried again: the array of
        # that name is this one's.
        if not source.created or (again and self._sources.get(source.name) != source):
            return source.failure
        try:
            self._on_complete(source.name)
        except BaseException as error:
            return error
        source.frames_published = source.frames_written
        return None

    def _finalize_if_done(self) -> None:
        with self.lifecycle, ExitStack() as stack:
            if not self._is_open:
                return
            waiting = [s for s in self._current() if not s.completed]
            # With these locks held no source can receive its first frame meanwhile.
            for source in waiting:
                stack.enter_context(source.lock)
            if any(s.frames_accepted for s in waiting):
                return
            if waiting and not any(s.frames_written for s in self._current()):
                return
            self._close_store()

    def _close_store(self) -> None:
        """Finalise; whatever happens, the writer is ready for the next acquisition."""
        self._is_open = False
        try:
            self._stop_workers()
            self._finalize()
        finally:
            STAGED.discard(self.metadata)
            self._log("finalize", uri=self._uri)

    def abort(self) -> None:
        """Close every source and the store, whatever their state; may be called again.

        What was written stays, with its exact length.

        Raises
        ------
        StoreWriteError
            The disk refused; the writer is closed all the same.
        """
        failure: BaseException | None = None
        with self.lifecycle:
            for source in list(self._sources.values()):
                if source.failure is not None:
                    # It was said; here it is only tried once more.
                    self._retire(source)
                    continue
                try:
                    self.close_source(source)
                except Exception as error:
                    failure = failure or error
            if self._is_open:
                try:
                    self._close_store()
                except Exception as error:
                    failure = failure or error
        if failure is not None:
            raise failure

    def clear_sources(self) -> None:
        """Forget every source.

        Raises
        ------
        StoreStateError
            One of them is receiving frames.
        """
        with self.lifecycle:
            receiving = [s.name for s in self._receiving()]
            if receiving:
                raise StoreStateError(
                    f"cannot clear the sources of {self}: {receiving} are receiving "
                    "frames; close their sinks or abort() first"
                )
            self.abort()
            self._sources.clear()
        self._log("clear_sources")

    def _retire(self, source: SourceInfo) -> None:
        """Close a source that was left open in an earlier acquisition."""
        told = source.failure is not None
        try:
            self.close_source(source)
        except Exception:
            # It received no frame, or its owner has had this error.
            self.logger.log(
                logging.DEBUG if told else logging.WARNING,
                "could not close source %r of %s",
                source.name,
                self,
                exc_info=True,
            )


def _opens_once(kickoff: Any) -> Any:
    """Let a subclass's kickoff run once per acquisition, and undo it when it fails."""

    @functools.wraps(kickoff)
    def guarded(self: Any) -> None:
        with self.lifecycle:
            if self._is_open:
                return
            if self._opening:
                # A subclass that calls the kickoff of the class above it.
                kickoff(self)
                return
            self._begin()
            self._opening = True
            try:
                kickoff(self)
            except BaseException:
                STAGED.discard(self.metadata)
                raise
            finally:
                self._opening = False
            self._uri_is_fresh = False
            self._acquisition += 1
            for source in self._sources.values():
                source.store_uri = self._uri
                self._mark_created(source)
            self._is_open = True
        self._log("kickoff", uri=self._uri)

    return guarded
