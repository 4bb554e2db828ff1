"""Ctrl-C once and twice: a real SIGINT to a real process that runs a scan.

The process says through a pipe when a camera has reached a frame; then it gets the
signal. The camera goes on only after the RunEngine has taken the signal up, so that
each interruption is where it is meant to be on any machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CHILD = """
import faulthandler, os, signal, sys, threading, time, types
from pathlib import Path
import bluesky.utils
from bluesky import RunEngine, plans as bp
from bluesky_beamtime.plans import fly_frames
from tests.integration.trouble import beamline, eventually

# Should it hang, it says where.
faulthandler.dump_traceback_later(240, exit=True)
folder, said, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

# Bluesky tells a second Ctrl-C from an echo of the first, and from another first, by
# the time between them. It is a second here, on machines of any speed.
now = 1000.0
bluesky.utils.time = types.SimpleNamespace(**{**vars(time), "monotonic": lambda: now})

def say(word):
    os.write(said, word.encode() + b"\\n")

# Python misses a signal that comes just before its main thread begins to wait for a
# lock, until the next signal.
signal.signal(signal.SIGUSR1, lambda *_: None)

def nudge():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

def scan(presses, then):
    def wait_for_signals():
        global now
        now += 60
        say("press")
        eventually(lambda: nudge() or RE.deferred_pause_requested, "the first Ctrl-C")
        if presses == "twice":
            now += 1
            say("press")
            # It may be paused and resumed before anybody looks.
            eventually(
                lambda: nudge() or paused or RE.state != "running", "the second Ctrl-C"
            )

    paused = []

    def after_the_pause():
        paused.append(RE.state)
        getattr(RE, then)()

    source = line.sources[0]
    source.at("before", source.next + 2, wait_for_signals)
    if kind == "fly":
        plan = fly_frames(line.cams, 30, exposure=None, flush_period=0.01)
    else:
        plan = bp.count(line.cams, 4)
    line.interrupted(plan, after_the_pause)
    assert paused == ([] if kind == "fly" else ["paused"]), paused
    if kind == "fly":
        # It ends with a deferred pause, and by an immediate one.
        ends = {"once": ("success", 30), "twice": ("abort", range(31))}[presses]
    elif then == "resume":
        ends = ("success", 4)
    else:
        status = "success" if then == "stop" else "abort"
        ends = (status, 3 if presses == "once" else 2)
    line.aftermath(ends[0], kind=kind, events=ends[1])
    line.next_scan()

RE = RunEngine()
with beamline(RE, folder) as line:
    for scenario in sys.argv[4:]:
        scan(*scenario.split("-"))
say("fine")
"""


def run_and_press(folder: Path, kind: str, *scenarios: str) -> None:
    """Run scans in a process of their own, and press Ctrl-C whenever it says so."""
    reading, writing = os.pipe()
    # A pipe that nobody reads would stop who writes much into it.
    errors = folder.with_name(f"{folder.name}-errors")
    with errors.open("w") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), str(writing), kind, *scenarios],
            cwd=ROOT,
            pass_fds=[writing],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    os.close(writing)
    words: list[str] = []
    with child, os.fdopen(reading) as said:
        try:
            for line in said:
                words.append(line.strip())
                if words[-1] == "press":
                    child.send_signal(signal.SIGINT)
            child.wait()
        finally:
            child.kill()
    assert child.returncode == 0, errors.read_text()
    presses = sum(2 if "twice" in scenario else 1 for scenario in scenarios)
    assert words == ["press"] * presses + ["fine"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("presses", ["once", "twice"])
def test_a_step_scan(tmp_path: Path, presses: str) -> None:
    ends = ("resume", "abort", "stop", "halt")
    run_and_press(tmp_path, "step", *(f"{presses}-{end}" for end in ends))


@pytest.mark.timeout(300)
def test_a_fly_scan(tmp_path: Path) -> None:
    run_and_press(tmp_path, "fly", "once-resume", "twice-resume")
