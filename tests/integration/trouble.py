"""A beamline on which anything may go wrong, and what must hold afterwards.

:meth:`Beamline.aftermath` is the one place that says what an interrupted scan leaves:
the tests make trouble, call it, and add what is special.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import fcntl
import inspect
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import RunEngineInterrupted
from ophyd_async.core import TriggerInfo, init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import (
    AcquisitionThread,
    Camera,
    FrameReceiver,
    FrameStamp,
)
from bluesky_beamtime.storage import from_uri, verify_store
from bluesky_beamtime.testing import assert_documents_equal

PATIENCE = 30.0
"""Seconds to wait for what must happen; long, because machines that test are slow."""

Documents = list[tuple[str, dict[str, Any]]]


def eventually(condition: Callable[[], Any], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.002)


def known_frame(seed: int, number: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return the one frame that a source with this seed makes as its nth."""
    pixels = np.arange(int(np.prod(shape)), dtype="u4").reshape(shape)
    return ((pixels * 40_503 + seed * 7919 + number * 31) % 65_521).astype("<u2")


class ScriptedSource:
    """Frames that are known in advance, and moments at which something may happen.

    A moment is ``before`` or ``after`` the nth frame of its life is delivered, in the
    camera's thread; or the nth ``start``, ``stop`` or ``configure``, in the event loop,
    where the action may be a coroutine function.
    """

    def __init__(self, seed: int = 0, shape: tuple[int, int] = (6, 8)) -> None:
        self.seed = seed
        self.shape: tuple[int, ...] = shape
        self.dtype = np.dtype("<u2")
        self.next = 0
        self.calls: Counter[str] = Counter()
        self._moments: dict[tuple[str, int], Callable[[], Any]] = {}
        self._thread: AcquisitionThread | None = None

    def at(self, moment: str, number: int, action: Callable[[], Any]) -> None:
        """Do something once, at a moment; the first is number 0."""
        self._moments[moment, number] = action

    def next_time(self, moment: str, action: Callable[[], Any]) -> None:
        """Do something at the next start, stop or configure."""
        self.at(moment, self.calls[moment], action)

    def forget(self) -> None:
        """Let nothing happen any more."""
        self._moments.clear()

    def frame(self, number: int) -> np.ndarray[Any, Any]:
        """Return the nth frame."""
        return known_frame(self.seed, number, self.shape)

    async def _called(self, moment: str) -> None:
        number = self.calls[moment]
        self.calls[moment] += 1
        action = self._moments.pop((moment, number), None)
        if action is not None:
            answer = action()
            if inspect.isawaitable(answer):
                await answer

    async def configure(self, exposure: float | None) -> None:
        await self._called("configure")

    async def start(self, number: int, receiver: FrameReceiver) -> None:
        await self._called("start")

        def acquire(stopping: threading.Event) -> None:
            taken = 0
            while not stopping.is_set() and (number == 0 or taken < number):
                mine = self.next
                before = self._moments.pop(("before", mine), None)
                # A moment may bring another frame than the one that is due.
                frame = before() if before is not None else None
                if frame is None:
                    frame = self.frame(mine)
                self.next += 1
                taken += 1
                receiver.frame(frame, FrameStamp(id=mine, time=1000.0 + mine))
                after = self._moments.pop(("after", mine), None)
                if after is not None:
                    after()
                if number == 0:
                    # Endless: leave the interpreter to others.
                    stopping.wait(0.001)

        self._thread = AcquisitionThread(f"source {self.seed}", acquire, receiver)

    async def stop(self) -> None:
        await self._called("stop")
        if self._thread is not None:
            await self._thread.stop()
            self._thread = None


class ClosingGate:
    """Lets a camera's thread wait at a moment until the test opens it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE), "the gate was never opened"

    def wait_in_plan(self) -> Any:
        """Go on with a plan as soon as the thread has reached the gate."""
        while not self.reached.is_set():
            yield from bps.sleep(0.002)


# --------------------------------------------------------------- moments of a plan


def at_message(plan: Any, number: int, action: Callable[[], Any]) -> Any:
    """Insert the plan that ``action`` returns before the nth message of a plan."""
    count = 0

    def insert(msg: Any) -> Any:
        nonlocal count
        count += 1
        if count != number + 1:
            return None, None

        def first_the_action() -> Any:
            yield from action()
            return (yield msg)

        return first_the_action(), None

    return bpp.plan_mutator(plan, insert)


def _at_once(action: Callable[[], Any]) -> Callable[[], Any]:
    """Return a plan that does something without a message of its own."""

    def plan() -> Any:
        action()
        yield from bps.null()

    return plan


def waiting_to_be_cancelled() -> Any:
    """Wait for somebody who interrupts the plan."""
    yield from bps.sleep(10 * PATIENCE)


# ------------------------------------------------------------------ the beamline


class SteadyMotor(SimMotor):
    """A motor that is there at once, and that nothing stops on its way.

    One of ophyd-async that is stopped just when ``set`` begins fails it as cancelled.
    """

    move: Any = None

    def set(self, *args: Any, **options: Any) -> Any:
        """Move, and remember it."""
        self.move = super().set(*args, **options)
        return self.move

    async def stop(self, success: bool = False) -> None:
        """Go on to where it shall be."""


class Beamline:
    """A RunEngine, a beamtime that records it, two cameras in one store, a motor."""

    def __init__(self, RE: RunEngine, folder: Path, cameras: int = 2) -> None:
        self.RE = RE
        self.folder = folder
        self._threads = other_threads()
        self.beamtime = Beamtime(folder / "x.db", on_error="raise")
        self.beamtime.attach(RE)
        self.docs: Documents = []
        self._token = RE.subscribe(self._take)
        self.sources = [
            ScriptedSource(seed, (6 + seed, 8)) for seed in range(1, cameras + 1)
        ]
        with init_devices():
            self.motor = SteadyMotor("motor")
            self.cams = [
                Camera(self.beamtime.frames, source=source, name=f"cam{source.seed}")
                for source in self.sources
            ]
        self._checked = 0

    # ------------------------------------------------------------------ documents

    def _take(self, name: str, doc: dict[str, Any]) -> None:
        import event_model

        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
        self.docs.append((name, copy.deepcopy(doc)))
        if name == "stream_datum":
            self._is_readable(doc)

    def _is_readable(self, datum: dict[str, Any]) -> None:
        """Check that a reader of its own sees the frames at the moment of the datum."""
        resource = next(
            doc
            for name, doc in reversed(self.docs)
            if name == "stream_resource" and doc["uid"] == datum["stream_resource"]
        )
        rows = _array(resource["uri"]).shape[0]
        assert rows >= datum["indices"]["stop"] * self._rows_per_event(datum, resource)

    def _rows_per_event(self, datum: dict[str, Any], resource: dict[str, Any]) -> int:
        descriptor = next(
            doc
            for name, doc in reversed(self.docs)
            if name == "descriptor" and doc["uid"] == datum["descriptor"]
        )
        key = descriptor["data_keys"][resource["data_key"]]
        frame_dims = len(resource["parameters"]["chunk_shape"]) - 1
        return key["shape"][0] if len(key["shape"]) > frame_dims else 1

    # --------------------------------------------------------------------- plans

    def collections(self, points: int, per_event: int = 3) -> Any:
        """Return a step scan with several frames in each event."""

        @bpp.stage_decorator(self.cams)
        @bpp.run_decorator()
        def plan() -> Any:
            info = TriggerInfo(collections_per_event=per_event)
            for camera in self.cams:
                yield from bps.prepare(camera, info, wait=True)
            for _ in range(points):
                yield from bps.checkpoint()
                yield from bps.trigger_and_read(self.cams)
            yield from bps.checkpoint()

        return plan()

    # ------------------------------------------------------------------- trouble

    def interrupted(self, plan: Any, then: str | Callable[[], Any] = "resume") -> None:
        """Run a plan that is paused, and do something whenever it is paused."""
        try:
            self.RE(plan)
        except RunEngineInterrupted:
            while self.RE.state == "paused":
                try:
                    getattr(self.RE, then)() if isinstance(then, str) else then()
                except RunEngineInterrupted:
                    continue

    def from_outside(self, verb: str, *args: Any) -> Any:
        """Return a plan that is interrupted by another thread while it runs."""

        def plan() -> Any:
            caller = threading.Thread(target=getattr(self.RE, verb), args=args)
            caller.start()
            yield from waiting_to_be_cancelled()

        return plan

    def suspension(self) -> Any:
        """Let a suspender trip, and recover as soon as the plan is suspended."""
        recovered = asyncio.Event()
        self.RE.request_suspend(recovered.wait, pre_plan=_at_once(recovered.set))
        # The RunEngine takes it up between two messages.
        for _ in range(10):
            yield from bps.null()

    # ---------------------------------------------------------------- aftermath

    def aftermath(
        self,
        status: str | Iterable[str] = "success",
        *,
        reason: str | None = None,
        events: int | range | None = None,
        kind: str = "step",
        runs: int = 1,
        idle: bool = True,
        threads: bool = True,
        coverage: bool = True,
    ) -> list[Any]:
        """Check everything that must hold after a scan, however it ended.

        Parameters
        ----------
        status
            Exit status of the runs; or those that are allowed.
        reason
            A part of the reason in the stop documents.
        events
            Events that each run must have, each with its frames; or how many it may
            have.
        kind
            ``step``: one event per trigger; ``fly``: no events, only frames.
        runs
            Runs that the plan has opened.
        idle
            Whether the cameras were unstaged, so that the store must be closed.
        threads
            Whether the cameras' threads must have ended.
        coverage
            Whether all cameras must be announced up to the same event; only the reading
            side is looked at if not.

        Returns
        -------
        list of Run
            As they were recorded.
        """
        assert self.RE.state == "idle"
        if idle:
            self._wait_for_cameras()
            eventually(lambda: self.beamtime.frames.uri is None, "the store is closed")
            self._nothing_is_held(threads)
        documents = self.docs[self._checked :]
        self._checked = len(self.docs)
        by_run = _by_run(documents)
        assert len(by_run) == runs
        allowed = {status} if isinstance(status, str) else set(status)
        found = []
        for uid, docs in by_run.items():
            names = Counter(name for name, _ in docs)
            assert names["start"] == names["stop"] == 1
            stop = docs[-1][1]
            assert docs[-1][0] == "stop"
            assert stop["exit_status"] in allowed, stop
            if reason is not None:
                assert reason in stop["reason"]
            run = self.beamtime[uid]
            assert_documents_equal(run.documents(), docs)
            assert run.exit_status == stop["exit_status"]
            assert run.complete
            if coverage:
                Coverage(self, docs, kind).check(run, events)
            else:
                for stream in run:
                    run[stream].read().load()
            found.append(run)
        return found

    def _wait_for_cameras(self) -> None:
        """Wait for what the cameras were asked to do before.

        The RunEngine does not wait for what it unstages itself, nor for a preparation
        that it was halted in: the store may be about to be opened, and closed again.
        """

        async def take_turns() -> None:
            for camera in self.cams:
                async with camera._turn:
                    pass

        waiting = asyncio.run_coroutine_threadsafe(take_turns(), self.RE.loop)
        waiting.result(PATIENCE)

    def _nothing_is_held(self, threads: bool) -> None:
        frames = self.folder / "x.zarr"
        eventually(lambda: not open_below(frames), f"open: {open_below(frames)}")
        locked = locked_below(frames)
        assert not locked, f"locked: {locked}"
        if not threads:
            return
        # Somebody else may have closed the store, while the cameras are unstaged.
        eventually(
            lambda: all(source._thread is None for source in self.sources),
            "the cameras are stopped",
        )
        # The one that brings the database to the disk ends with the beamtime.
        self._no_thread_is_left("beamtime-sync-")

    def _no_thread_is_left(self, *besides: str) -> None:
        eventually(
            lambda: other_threads(*besides) <= self._threads,
            f"the end of {other_threads(*besides) - self._threads}",
        )

    def next_scan(self) -> None:
        """Check that a scan after the trouble is as if there had been none."""
        for source in self.sources:
            source.forget()
        before = self.beamtime[-1].scan_id if len(self.beamtime) else 0
        begin = [source.next for source in self.sources]
        self.RE(bp.count(self.cams, 2))
        (run,) = self.aftermath(events=2)
        assert run.scan_id == before + 1
        for source, first in zip(self.sources, begin, strict=True):
            data = run.primary.read()
            assert data[f"cam{source.seed}_id"].values.tolist() == [first, first + 1]
        folders = {doc["uri"] for name, doc in run.documents() if "uri" in doc}
        assert all(Path(from_uri(uri)).is_dir() for uri in folders)

    def forget_documents(self) -> None:
        """Leave the documents so far out of what is checked next."""
        self._checked = len(self.docs)

    def moves_to(self, RE: RunEngine) -> None:
        """Go on with another RunEngine."""
        self.RE.unsubscribe(self._token)
        self.beamtime.detach(self.RE)
        self.RE = RE
        self.beamtime.attach(RE)
        self._token = RE.subscribe(self._take)

    def rows(self, uri: str) -> np.ndarray[Any, Any]:
        """Read all that is in an array with plain zarr-python."""
        return np.asarray(_array(uri)[...])

    def verify(self) -> None:
        """Check every store that was written."""
        uris = {doc["uri"] for name, doc in self.docs if name == "stream_resource"}
        for folder in sorted({Path(from_uri(uri)).parent for uri in uris}):
            report = verify_store(folder)
            assert report.ok, report.problems

    def close(self) -> None:
        """Close the beamtime; nothing of it may be left open."""
        # Nothing stops it, and it flies for longer than what was interrupted.
        eventually(
            lambda: self.motor.move is None or self.motor.move.done, "the motor's end"
        )
        self.RE.unsubscribe(self._token)
        self.beamtime.close()
        assert open_below(self.folder) == []
        self._no_thread_is_left()


class Coverage:
    """What the documents of one run say about its frames, and whether it is true."""

    def __init__(self, line: Beamline, docs: Documents, kind: str) -> None:
        self.line, self.kind, self.docs = line, kind, docs
        self.resources = {
            doc["uid"]: doc for name, doc in docs if name == "stream_resource"
        }
        self.descriptors = {
            doc["uid"]: doc for name, doc in docs if name == "descriptor"
        }
        self.datums: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for name, doc in docs:
            if name == "stream_datum":
                stream = self.descriptors[doc["descriptor"]]["name"]
                key = self.resources[doc["stream_resource"]]["data_key"]
                self.datums.setdefault((stream, key), []).append(doc)

    def check(self, run: Any, events: int | range | None) -> None:
        """Check every stream with frames."""
        if isinstance(events, int):
            events = range(events, events + 1)
        streams = {stream for stream, _ in self.datums}
        assert events is None or streams or 0 in events, "no frames were announced"
        for stream in streams:
            finals = self._in_step(stream)
            assert events is None or len(finals) in events, (stream, len(finals))
            data = run[stream].read()
            for source in self.line.sources:
                if (stream, f"cam{source.seed}") in self.datums:
                    self._frames(stream, source, finals, data)
        stop = self.docs[-1][1]
        for stream, number in stop.get("num_events", {}).items():
            if stream in streams:
                assert number == len(self._in_step(stream))

    def _in_step(self, stream: str) -> dict[int, int]:
        """Check the ranges of all keys; return the index of each final event."""
        first: list[Any] | None = None
        for (name, key), datums in self.datums.items():
            if name != stream:
                continue
            spans = [
                (
                    (d["indices"]["start"], d["indices"]["stop"]),
                    (d["seq_nums"]["start"], d["seq_nums"]["stop"]),
                )
                for d in datums
            ]
            numbered = [numbers for _, numbers in spans]
            if first is None:
                first = numbered
            # Cameras may be at different rows; they are in step in their events.
            assert numbered == first, f"{key} is not in step"
            for stem in ("_time", "_id"):
                other = self.datums.get((stream, f"{key}{stem}"))
                if other is not None:
                    assert [
                        (d["indices"], d["seq_nums"], d["descriptor"]) for d in other
                    ] == [
                        (d["indices"], d["seq_nums"], d["descriptor"]) for d in datums
                    ]
            for (indices, numbers), (following, numbers_after) in pairwise(spans):
                # Never the same frame twice, never backwards.
                assert indices[1] <= following[0]
                if self.kind == "fly":
                    assert indices[1] == following[0]
                    assert numbers[1] == numbers_after[0]
            for indices, numbers in spans:
                assert indices[1] - indices[0] == numbers[1] - numbers[0] > 0
                if self.kind == "step":
                    assert indices[1] - indices[0] == 1
        assert first is not None
        seen = [number for start, stop in first for number in range(start, stop)]
        if self.kind == "step":
            emitted = [
                doc["seq_num"]
                for name, doc in self.docs
                if name == "event"
                and self.descriptors[doc["descriptor"]]["name"] == stream
            ]
            assert seen == emitted
        # Every event once at last, from 1 on and without a gap.
        assert sorted(set(seen)) == list(range(1, len(set(seen)) + 1))
        return {number: place for place, number in enumerate(seen)}

    def _frames(
        self, stream: str, source: ScriptedSource, finals: dict[int, int], data: Any
    ) -> None:
        """Check the bytes of one camera's frames, with and without this package."""
        key = f"cam{source.seed}"
        image, number, taken = [], [], []
        for suffix, rows in (("", image), ("_id", number), ("_time", taken)):
            datums = self.datums[stream, f"{key}{suffix}"]
            # One run has one resource for a key.
            (uid,) = {datum["stream_resource"] for datum in datums}
            resource = self.resources[uid]
            everything = np.asarray(_array(resource["uri"])[...])
            for datum in datums:
                n = self.line._rows_per_event(datum, resource)
                start, stop = (datum["indices"][at] * n for at in ("start", "stop"))
                part = everything[start:stop]
                rows += list(part.reshape(-1, n, *part.shape[1:]))
        ids = np.concatenate(number).astype(int)
        assert (np.diff(ids) > 0).all(), f"{key}: {ids}"
        np.testing.assert_array_equal(np.concatenate(taken), 1000.0 + ids)
        for frame, which in zip(np.concatenate(image), ids, strict=True):
            np.testing.assert_array_equal(frame, source.frame(int(which)))
        # What our reading side gives: each event once, with its last frame.
        wanted = np.stack([image[finals[event]] for event in sorted(finals)])
        if wanted.shape[1] == 1:
            wanted = wanted[:, 0]
        found = data[key].values
        assert found.shape == wanted.shape
        np.testing.assert_array_equal(found, wanted)


# ------------------------------------------------------------------ what is held


def open_below(folder: Path) -> list[str]:
    """Return the files below a folder that this process has open."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            if target.startswith(f"{folder}/"):
                found.append(target)
    return found


def locked_below(folder: Path) -> list[Path]:
    """Return the lock files below a folder that somebody holds."""
    found = []
    for path in folder.rglob(".writer.lock"):
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            found.append(path)
        finally:
            os.close(fd)
    return found


POOLS = ("asyncio_", "zarr_", "ThreadPoolExecutor")
"""Beginnings of the names of threads that stay for good, in pools of other packages."""


def other_threads(*besides: str) -> set[str]:
    """Return the names of the threads that are running, but for those of pools."""
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if not name.startswith((*POOLS, *besides))}


def _array(uri: str) -> Any:
    import zarr

    return zarr.open_array(from_uri(uri), mode="r")


def _by_run(documents: Documents) -> dict[str, Documents]:
    runs: dict[str, Documents] = {}
    owner: dict[str, str] = {}
    for name, doc in documents:
        parent = next(
            (doc[key] for key in ("run_start", "descriptor") if key in doc), ""
        )
        uid = doc["uid"] if name == "start" else owner[parent]
        owner[doc["uid"]] = uid
        runs.setdefault(uid, []).append((name, doc))
    return runs


@contextlib.contextmanager
def beamline(RE: RunEngine, folder: Path, **options: Any) -> Iterator[Beamline]:
    """Give a beamline, and see to it that it leaves nothing behind."""
    # Bluesky logs every interruption with its traceback.
    logger = logging.getLogger("bluesky")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    line = Beamline(RE, folder, **options)
    try:
        yield line
        line.verify()
        line.close()
    finally:
        line.beamtime.close()
        logger.setLevel(level)
