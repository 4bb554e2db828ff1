"""Frames copied to an object store behind the one who takes them."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import orjson
from sqlalchemy import func, literal, select, update

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.replica.locking import FollowerLock
from bluesky_beamtime.database.replica.places import Places
from bluesky_beamtime.errors import (
    BackendError,
    BeamtimeError,
    StorageError,
    StoreStateError,
)
from bluesky_beamtime.storage import FolderLock
from bluesky_beamtime.storage.backends import open_backend
from bluesky_beamtime.storage.layout import METADATA_FILE
from bluesky_beamtime.storage.remote_array import Remote, Retry
from bluesky_beamtime.storage.remote_store import RemoteStore

logger = logging.getLogger(__name__)

# A store in which nothing has happened for so long is copied to its last frame; should
# it be written further, its last shard is copied once more.
_SETTLED_SECONDS = 1.0
# Between two looks at the stores in which nothing happened lately.
_ROUND_SECONDS = 60.0
_LONGEST_PAUSE = 30.0
_BLOCK = 8 << 20

Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameProgress:
    """How far an object store is behind the frames of a file."""

    behind: int | None
    """Stores that are not copied to their last frame; None before the first look."""
    copied: int
    """Bytes that were copied since the start."""
    failure: BeamtimeError | None
    """Why the last look failed; None when it did not."""


@dataclass(slots=True)
class _Store:
    """One store of frames: an acquisition, or the arrays of a run's events."""

    path: Path
    remote: Remote | None = None
    copy: RemoteStore | None = None
    seen: Signature = (0, 0, 0)
    quiet_since: float = 0.0
    pushed: Signature | None = None
    done: Signature | None = field(default=None)


class FrameFollower:
    """Copies the stores of a file to an object store, in a thread.

    Frames are acknowledged here and never wait. A store that grows is followed shard by
    shard, and to its last frame when it rests.

    Parameters
    ----------
    database
        The file, opened for recording.
    places
        Where its frames go.
    keep_local
        Whether they stay here. If not, the frames of a run that is over are removed
        when what arrived has been read back and is equal; the file then says where they
        are. Arrays inside events stay.
    interval
        Seconds between two looks.

    Raises
    ------
    PathError, UnsupportedFormatError, MissingExtraError
        That is no URL of an object store, or there is no driver for it.
    """

    def __init__(
        self,
        database: Database,
        places: Places,
        *,
        keep_local: bool = True,
        interval: float = 0.5,
    ) -> None:
        self.places = places
        self.keep_local = keep_local
        self.interval = interval
        self._database = database
        self._backend = open_backend(places.far_store)
        self._stop = threading.Event()
        self._remote = Remote(self._backend, "", Retry(attempts=2), self._stop)
        self._root = places.store
        name = database.path.name
        self._ledger = database.path.with_name(f".{name}.copied")
        self._lock = FollowerLock(database.path.with_name(f".{name}.frames"))
        self._known: dict[str, Signature] = {}
        self._stores: dict[str, _Store] = {}
        self._groups: dict[str, bytes] = {}
        self._round_at = 0.0
        self._behind: int | None = None
        self._failure: BeamtimeError | None = None
        self._looks = 0
        self._copied = 0
        self._idle = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def progress(self) -> FrameProgress:
        """How far the object store is, as of the last look; never waits for it."""
        return FrameProgress(
            behind=self._behind,
            copied=self._copied + self._remote.size,
            failure=self._failure,
        )

    # ------------------------------------------------------------------------ life

    def start(self) -> None:
        """Follow until :meth:`close`; may be called again."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run,
                name=f"beamtime-frames-{self._root.name}",
                daemon=True,
            )
            self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every frame that is here now is there; say whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._idle:
            wanted = self._looks + 2
            while self._looks < wanted or self._behind or self._failure:
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or not self._alive():
                    return False
                self._idle.wait(0.1 if left is None else min(0.1, left))
        return True

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def close(self, timeout: float = 3.0) -> None:
        """Copy the rest as far as that is possible in time, and stop."""
        thread = self._thread
        if thread is None:
            return
        if self._failure is None:
            self.wait(timeout)
        self._stop.set()
        thread.join(2.0)
        self._thread = None

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        pause = self.interval
        try:
            while not self._stop.is_set():
                if self._lock.acquire():
                    pause = self._try(pause)
                with self._idle:
                    self._looks += 1
                    self._idle.notify_all()
                self._stop.wait(pause)
        finally:
            self._lock.release()
            with suppress(Exception):
                self._backend.close()

    def _try(self, pause: float) -> float:
        """Look once; return how long to wait for the next look."""
        try:
            self._look()
        except Exception as error:
            failure = error
            if not isinstance(failure, BeamtimeError):
                logger.exception("the copy of %s stumbled", self._root)
                failure = BackendError(f"{type(error).__name__}: {error}")
            if self._failure is None:
                logger.warning(
                    "frames are kept in %s and not copied now: %s; it will be tried "
                    "again",
                    self._root,
                    failure,
                )
            self._failure = failure
            return min(2 * max(pause, self.interval), _LONGEST_PAUSE)
        self._failure = None
        return self.interval

    def _look(self) -> None:
        """Go once over the stores in which something may have happened."""
        now = time.monotonic()
        whole = now >= self._round_at
        if whole:
            self._known = self._read_ledger()
            self._round_at = now + _ROUND_SECONDS
        first: StorageError | None = None
        behind = 0
        for path in self._find(everything=whole):
            key = path.relative_to(self._root).as_posix()
            store = self._stores.setdefault(
                key, _Store(path, done=self._known.get(key))
            )
            try:
                behind += not self._follow(key, store)
            except BackendError:
                self._behind = max(1, behind)
                raise
            except StorageError as error:
                # One store that is damaged does not keep the others here.
                first = first or error
                behind += 1
            if self._stop.is_set():
                break
        self._behind = behind
        if first is not None:
            raise first

    def _find(self, *, everything: bool) -> Iterator[Path]:
        """Yield the stores to look at."""
        if everything:
            days = _folders(self._root / "frames")
            yield from (store for day in days for store in _folders(day))
            yield from _folders(self._root / "runs")
            return
        lately = sorted(_folders(self._root / "frames"))[-2:]
        fresh = [store for day in lately for store in _folders(day)]
        for path in [*fresh, *_folders(self._root / "runs")]:
            key = path.relative_to(self._root).as_posix()
            store = self._stores.get(key)
            may_go = not self.keep_local and key.startswith("frames/")
            if store is None or store.done is None or self._is_recent(store) or may_go:
                yield path

    def _is_recent(self, store: _Store) -> bool:
        return time.monotonic() - store.quiet_since < _ROUND_SECONDS

    def _follow(self, key: str, store: _Store) -> bool:
        """Copy what is new in a store; return whether all of it is there."""
        now = time.monotonic()
        signature = _signature(store.path)
        if signature != store.seen:
            store.seen, store.quiet_since = signature, now
        if store.done == signature:
            store.copy = None
            if not self.keep_local and key.startswith("frames/"):
                self._move(key, store)
            return True
        if store.copy is None:
            store.remote = Remote(self._backend, key, Retry(attempts=2), self._stop)
            store.copy = RemoteStore(store.path, store.remote)
            self._copy_groups(store.path)
        settled = now - store.quiet_since >= _SETTLED_SECONDS
        if settled or store.pushed != signature:
            before = store.remote.size if store.remote else 0
            try:
                store.copy.update(final=settled)
            finally:
                self._copied += store.remote.size - before if store.remote else 0
            store.pushed = signature
        if not settled or _signature(store.path) != signature:
            return False
        store.done = signature
        self._known[key] = signature
        self._write_ledger(key, signature)
        return True

    def _copy_groups(self, path: Path) -> None:
        """Copy the metadata of the groups above, so that the whole can be walked."""
        for folder in reversed([p for p in path.parents if _inside(p, self._root)]):
            with suppress(OSError):
                data = (folder / METADATA_FILE).read_bytes()
                inside = folder.relative_to(self._root).as_posix()
                key = METADATA_FILE if inside == "." else f"{inside}/{METADATA_FILE}"
                if self._groups.get(key) != data:
                    self._remote.put(key, data)
                    self._groups[key] = data

    # ---------------------------------------------------------------- what is done

    def _read_ledger(self) -> dict[str, Signature]:
        """Return which stores were copied to their end, and what they were then."""
        known: dict[str, Signature] = {}
        with suppress(OSError):
            for line in self._ledger.read_bytes().splitlines():
                with suppress(ValueError, TypeError):
                    place, key, *signature = orjson.loads(line)
                    if place == self.places.far_store:
                        known[key] = (signature[0], signature[1], signature[2])
        return known

    def _write_ledger(self, key: str, signature: Signature) -> None:
        with suppress(OSError), self._ledger.open("ab") as file:
            file.write(orjson.dumps([self.places.far_store, key, *signature]) + b"\n")

    # --------------------------------------------------------------------- removal

    def _move(self, key: str, store: _Store) -> None:
        """Remove frames that have arrived, of runs that are over."""
        prefix = f"{quote(self._root.name)}/{quote(key)}/"
        if FolderLock.is_held(store.path) or not self._is_over(prefix):
            return
        for path, inside in _files(store.path):
            if not self._equals(path, f"{key}/{inside}"):
                raise BackendError(
                    f"{inside!r} of {str(store.path)!r} is not the same in "
                    f"{self.places.far_store}; nothing was removed here"
                )
        resources = schema.stream_resources
        far = f"{self.places.far_store}/{quote(key)}/"
        begins = func.substr(resources.c.uri, 1, len(prefix)) == prefix
        rest = func.substr(resources.c.uri, len(prefix) + 1)
        locks: list[FolderLock] = []
        try:
            # Nobody begins to write here from now on.
            locks += map(FolderLock, _folders(store.path))
            if _signature(store.path) != store.done:
                return
            with self._database.writing() as connection:
                connection.execute(
                    update(resources)
                    .where(begins)
                    .values(uri=literal(far, schema.Text) + rest)
                )
            shutil.rmtree(store.path)
        except StoreStateError:
            return
        finally:
            for lock in locks:
                lock.release()
        logger.info("%s is in %s alone now", store.path, self.places.far_store)

    def _is_over(self, prefix: str) -> bool:
        runs, resources = schema.runs, schema.stream_resources
        begins = func.substr(resources.c.uri, 1, len(prefix)) == prefix
        query = (
            select(runs.c.exit_status)
            .join(resources, resources.c.run_uid == runs.c.uid)
            .where(begins)
        )
        with self._database.reading() as connection:
            ends = connection.execute(query).scalars().all()
        # Without a run nobody would find it elsewhere.
        return bool(ends) and None not in ends

    def _equals(self, path: Path, key: str) -> bool:
        here, there = hashlib.sha256(), hashlib.sha256()
        size = path.stat().st_size
        with path.open("rb") as file:
            for start in range(0, size, _BLOCK):
                count = min(_BLOCK, size - start)
                here.update(file.read(count))
                there.update(self._part(key, start, count))
        arrived = self._remote.get_size(key)
        return arrived == size and here.digest() == there.digest()

    def _part(self, key: str, start: int, count: int) -> bytes:
        get: Callable[[], bytes] = lambda: bytes(  # noqa: E731
            self._backend.get_range(key, start, count)
        )
        return self._remote.call(get)


def _inside(path: Path, root: Path) -> bool:
    return path == root or path.is_relative_to(root)


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and entry.name[0] != "."
            )
    except OSError:
        return []


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of a store that are copied, with their path inside."""
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if name[0] != ".")
        for name in sorted(names):
            if name[0] != ".":
                file = Path(folder, name)
                yield file, file.relative_to(path).as_posix()


def _signature(path: Path) -> Signature:
    """Return what changes when a store does: files, bytes and the newest time."""
    count = size = newest = 0
    for file, _ in _files(path):
        with suppress(OSError):
            status = file.stat()
            count += 1
            size += status.st_size
            newest = max(newest, status.st_mtime_ns)
    return count, size, newest
