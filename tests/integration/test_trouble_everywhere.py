"""Scans that are interrupted at every message, and at moments within a message.

By default every eighth message is one, other ones for each kind of interruption. With
``BEAMTIME_TROUBLE=all`` it is every message.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import IllegalMessageSequence

from bluesky_beamtime.plans import (
    fly_frames,
    fly_scan,
    grid_frames,
    paced_frames,
    snap,
)
from tests.integration.trouble import Beamline, at_message

STRIDE = 1 if os.environ.get("BEAMTIME_TROUBLE") == "all" else 8

PLANS: dict[str, tuple[Callable[[Beamline], Any], str, int]] = {
    "snap": (lambda line: snap(line.cams), "step", 1),
    "count": (lambda line: bp.count(line.cams, 2), "step", 2),
    "scan": (lambda line: bp.scan(line.cams, line.motor, 0, 1, 2), "step", 2),
    "grid_frames": (
        lambda line: grid_frames(line.cams, line.motor, 0, 1, 2, exposure=0.1),
        "step",
        2,
    ),
    # Frames are announced once, at the end: on a slow machine too the messages are the
    # same each time.
    "fly_frames": (
        lambda line: fly_frames(line.cams, 20, exposure=None, flush_period=60),
        "fly",
        20,
    ),
    "fly_scan": (
        lambda line: fly_scan(
            line.cams, line.motor, 0, 1, 8, exposure=0.01, flush_period=60
        ),
        "fly",
        8,
    ),
    "paced_frames": (
        lambda line: paced_frames(line.cams, 6, rate=300, flush_period=60),
        "fly",
        6,
    ),
}


class HutchOpenedError(Exception):
    """What goes wrong in a plan."""


def hutch_is_opened() -> Any:
    raise HutchOpenedError("the hutch was opened")
    yield


# What happens in the plan, what is done if that pauses it, and the exit status of a run
# that is open at that moment: "success" if it goes on to its end.
ACTIONS: dict[str, tuple[Callable[[Beamline], Any], str, str]] = {
    "pause and resume": (lambda line: bps.pause, "resume", "success"),
    "pause and abort": (lambda line: bps.pause, "abort", "abort"),
    "pause and stop": (lambda line: bps.pause, "stop", "success"),
    "pause and halt": (lambda line: bps.pause, "halt", "abort"),
    "abort": (lambda line: line.from_outside("abort", "enough"), "", "abort"),
    "stop": (lambda line: line.from_outside("stop"), "", "success"),
    "halt": (lambda line: line.from_outside("halt"), "", "abort"),
    "suspend": (lambda line: line.suspension, "", "success"),
    "error": (lambda line: hutch_is_opened, "", "fail"),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("plan", PLANS)
def test_at_every_message(line: Beamline, plan: str, action: str) -> None:
    make, kind, events = PLANS[plan]
    commands: list[str] = []

    def listen(msg: Any) -> Any:
        commands.append(msg.command)
        return msg

    line.RE(bpp.msg_mutator(make(line), listen))
    line.aftermath(kind=kind, events=events)

    happens, then, _ = ACTIONS[action]
    begin = list(ACTIONS).index(action) % STRIDE
    for number in range(begin, len(commands), STRIDE):
        error = expected_error(plan, action, commands, number)
        with pytest.raises(error) if error else contextlib.nullcontext():
            line.interrupted(at_message(make(line), number, happens(line)), then)
        line.aftermath(kind=kind, **expected(plan, action, commands, number))
    line.next_scan()


def expected_error(
    plan: str, action: str, commands: list[str], number: int
) -> type[Exception] | None:
    """Return what the RunEngine raises, beside that it was interrupted."""
    if action == "error":
        return HutchOpenedError
    replayed = action in ("pause and resume", "suspend")
    if replayed and plan in ("count", "scan") and commands[number - 1] == "close_run":
        # Bluesky goes back into the last point, whose run is closed.
        return IllegalMessageSequence
    return None


def expected(
    plan: str, action: str, commands: list[str], number: int
) -> dict[str, Any]:
    """Return what a scan leaves that is interrupted before the nth message."""
    _, kind, events = PLANS[plan]
    _, _, status = ACTIONS[action]
    opened, closed = commands.index("open_run"), commands.index("close_run")
    pauses = action == "suspend" or action.startswith("pause")
    clears = "clear_checkpoint" in commands
    if pauses and clears and number > commands.index("clear_checkpoint"):
        # There is nothing to go back to.
        status, reason = "abort", "immediate pause" if number < closed else None
    elif action in ("pause and resume", "suspend"):
        return {"status": "success", "events": events}
    else:
        reason = "the hutch was opened" if action == "error" else None
    if number <= opened:
        return {"runs": 0}
    if number > closed:
        return {"status": "success", "events": events}
    done = commands[:number].count("save")
    if kind == "fly":
        # Those that were taken by then.
        done = events if number == closed else range(events + 1)
    return {"status": status, "reason": reason, "events": done}


@pytest.mark.parametrize("plan", ["count", "grid_frames"])
def test_paused_at_every_message_of_one_scan(line: Beamline, plan: str) -> None:
    make, kind, events = PLANS[plan]

    def pausing(msg: Any) -> Any:
        def paused() -> Any:
            yield from bps.pause()
            return (yield msg)

        if msg.command in ("pause", "unstage"):
            # For unstage, see expected_error().
            return None, None
        return paused(), None

    line.interrupted(bpp.plan_mutator(make(line), pausing))
    (run,) = line.aftermath(kind=kind, events=events)
    assert len(run.primary.read()["time"]) == events
    line.next_scan()


# ------------------------------------------------------- moments within a message

REQUESTS: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "pause and resume": (lambda RE: RE.request_pause(False), "resume", "success"),
    "pause and abort": (lambda RE: RE.request_pause(False), "abort", "abort"),
    "pause and stop": (lambda RE: RE.request_pause(False), "stop", "success"),
    "pause and halt": (lambda RE: RE.request_pause(False), "halt", "abort"),
    "deferred pause": (lambda RE: RE.request_pause(True), "resume", "success"),
    "abort": (lambda RE: RE.abort("enough"), "", "abort"),
    "stop": (lambda RE: RE.stop(), "", "success"),
    "halt": (lambda RE: RE.halt(), "", "abort"),
}


@pytest.mark.parametrize(
    ("plan", "moment"),
    [
        *itertools.product(
            ("count", "fly_frames"), ("before", "after", "start", "stop")
        ),
        ("collections", "before"),
        ("collections", "after"),
    ],
)
def test_while_a_camera_is_at_work(line: Beamline, plan: str, moment: str) -> None:
    for request in REQUESTS:
        interrupt_a_camera(line, plan, moment, request)
    line.next_scan()


def interrupt_a_camera(line: Beamline, plan: str, moment: str, request: str) -> None:
    """Interrupt a scan from a camera's thread, or while one is started or stopped."""
    ask, then, status = REQUESTS[request]
    events = {"count": 3, "collections": 3, "fly_frames": 20}[plan]
    source = line.sources[1]
    if moment in ("before", "after"):
        # The first event is there, and the second is being taken.
        number = {"count": 1, "collections": 4, "fly_frames": 7}[plan]

        def ask_from_the_thread() -> None:
            ask(line.RE)

        source.at(moment, source.next + number, ask_from_the_thread)
    else:
        # Staging stops the camera too.
        number = {"start": 1, "stop": 2}[moment] - (plan == "fly_frames")
        source.at(
            moment,
            source.calls[moment] + number,
            lambda: asyncio.to_thread(ask, line.RE),
        )

    make = {
        "count": lambda: bp.count(line.cams, 3),
        "collections": lambda: line.collections(3),
        "fly_frames": lambda: fly_frames(line.cams, 20, exposure=None),
    }[plan]
    line.interrupted(make(), then)
    kind = "fly" if plan == "fly_frames" else "step"
    in_time: int | range = range(events + 1)
    if kind == "fly" and request.startswith("pause"):
        status = "abort"
    elif request in ("pause and resume", "deferred pause"):
        in_time = events
    line.aftermath(status, kind=kind, events=in_time)
