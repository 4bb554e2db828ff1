"""Scans that are paused, stopped and aborted at any moment, again and again."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import FailedPause, RunEngineInterrupted
from ophyd_async.core import TriggerInfo

from bluesky_beamtime.plans import fly_frames
from bluesky_beamtime.storage import FrameStore

ENDINGS = ("resume", "abort", "stop", "defer", "nothing")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Bluesky logs every interruption with its traceback."""
    logger = logging.getLogger("bluesky")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def several_collections(cameras: list[Any]) -> Any:
    @bpp.stage_decorator(cameras)
    @bpp.run_decorator()
    def plan() -> Any:
        info = TriggerInfo(collections_per_event=3)
        for camera in cameras:
            yield from bps.prepare(camera, info, wait=True)
        for _ in range(6):
            yield from bps.checkpoint()
            yield from bps.trigger_and_read(cameras)
        yield from bps.checkpoint()

    return plan()


def one_shot(cameras: Any) -> Any:
    """Bluesky cannot go back into a point after the last one, while it unstages."""
    yield from bps.one_shot(cameras)
    yield from bps.checkpoint()


def interrupted(RE: RunEngine, plan: Any, ending: str, after: float) -> None:
    """Run a plan, pause it after some time, and end it in some way."""

    def pause() -> None:
        time.sleep(after)
        if ending != "nothing" and RE.state == "running":
            # It may just have ended.
            with contextlib.suppress(Exception):
                RE.request_pause(defer=ending == "defer")

    helper = threading.Thread(target=pause)
    helper.start()
    try:
        RE(plan)
    except RunEngineInterrupted:
        if RE.state == "paused":
            {"abort": RE.abort, "stop": RE.stop}.get(ending, RE.resume)()
    finally:
        helper.join()


@pytest.mark.parametrize("kind", ["step", "collections", "fly"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_lost_twice_or_made_up(
    RE: RunEngine,
    run: Any,
    camera: Any,
    store: FrameStore,
    eventually: Any,
    kind: str,
    ending: str,
) -> None:
    cams = [camera("quick"), camera("slow", period=0.003)]
    chance = random.Random(f"{kind} {ending}")
    for _ in range(4):
        before = len(run.docs)
        plan = {
            "step": lambda: bp.count(cams, 8, per_shot=one_shot),
            "collections": lambda: several_collections(cams),
            "fly": lambda: fly_frames(cams, 50, exposure=None, flush_period=0.03),
        }[kind]()
        # A fly scan has nothing to go back to.
        tolerated = FailedPause if kind == "fly" else ()
        with contextlib.suppress(tolerated):
            interrupted(RE, plan, ending, chance.random() * 0.2)
        assert RE.state == "idle"
        # The RunEngine does not wait for what it unstages when a pause fails.
        eventually(lambda: store.uri is None)
        check(run, run.docs[before:], kind, ending)


def check(
    run: Any, docs: list[tuple[str, dict[str, Any]]], kind: str, end: str
) -> None:
    """Check the documents of one run."""
    uris = {
        doc["uid"]: doc["data_key"] for name, doc in docs if name == "stream_resource"
    }
    indices: dict[str, list[tuple[int, int]]] = {key: [] for key in uris.values()}
    for name, doc in docs:
        if name == "stream_datum":
            key = uris[doc["stream_resource"]]
            indices[key].append((doc["indices"]["start"], doc["indices"]["stop"]))
    events = sum(name == "event" for name, _ in docs)
    statuses = [doc["exit_status"] for name, doc in docs if name == "stop"]
    for key, ranges in indices.items():
        assert ranges == indices[key.removesuffix("_id").removesuffix("_time")]
        for (_, stop), (start, _) in pairwise(ranges):
            assert stop == start if kind == "fly" else stop <= start
        if kind != "fly":
            assert all(stop - start == 1 for start, stop in ranges)
            assert len(ranges) == events
    widths = {
        key: [stop - start for start, stop in indices.get(key, [])]
        for key in ("quick", "slow")
    }
    assert widths["quick"] == widths["slow"]
    for key in widths:
        if key in indices:
            announced = announced_ids(docs, uris, run, key)
            assert announced == announced_ids(docs, uris, run, f"{key}_id")
            if kind == "fly":
                assert announced == list(range(announced[0], announced[-1] + 1))
            if kind == "collections":
                for first in range(0, len(announced), 3):
                    start = announced[first]
                    assert announced[first : first + 3] == [start, start + 1, start + 2]
    if statuses == ["success"] and end != "stop":
        assert events >= {"step": 8, "collections": 6, "fly": 0}[kind]
        if kind == "fly":
            assert sum(widths["quick"]) == 50


def announced_ids(
    docs: list[tuple[str, dict[str, Any]]], uris: dict[str, str], run: Any, key: str
) -> list[int]:
    """Return the numbers of the announced frames, read back."""
    import zarr

    from bluesky_beamtime.storage import from_uri

    (uri,) = {
        doc["uri"]
        for name, doc in docs
        if name == "stream_resource" and doc["data_key"] == key
    }
    rows = zarr.open_array(from_uri(uri), mode="r")[...]
    found: list[int] = []
    for name, doc in docs:
        if name == "stream_datum" and uris[doc["stream_resource"]] == key:
            n = run.rows_per_event(doc)
            part = rows[doc["indices"]["start"] * n : doc["indices"]["stop"] * n]
            found += part.reshape(len(part), -1)[:, 0].tolist()
    return found
