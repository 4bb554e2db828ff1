"""IPython on a terminal of its own, and what somebody types there."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIMEOUT = 180.0
CTRL_C = "^C"
_PROMPT = re.compile(r"^In \[(\d+)\]: (.*)$")
# What differs from one time to the next, and from one machine to another.
_VARIES = (
    # What the terminal shows of Ctrl-C.
    (re.compile(r"^(\^C)+"), ""),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UID"),
    (re.compile(r"\['[0-9a-f]{8}'\]"), "['UID']"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "DATE"),
    (re.compile(r"\d\d:\d\d:\d\d\.\d"), "MOMENT"),
    (re.compile(r"\d\d:\d\d(:\d\d)?"), "TIME"),
    (re.compile(r"\b\d+(\.\d)? [kMG]?B\b"), "SIZE"),
    # How fast this was, and how well a busy machine kept up.
    (re.compile(r"(?<= frames), .*"), ""),
    (re.compile(r" \d+ late,"), ""),
    # Whether the first Ctrl-C was enough.
    (re.compile(r"^(A '(deferred|hard) pause' has|Deferred pause ack).*"), ""),
    (re.compile(r"\s+$"), ""),
)
# Progress bars, which are drawn as often as there is time.
_BAR = re.compile(r"\d+%\||\d+(\.\d+)?[a-z%]*/s\]|\[\d\d:\d\d[<,?]")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


class Session:
    """IPython in a profile, as it looks on the screen.

    Parameters
    ----------
    profile
        Folder that ``beamtime profile new`` made.
    """

    def __init__(self, profile: Path) -> None:
        import pexpect

        command = ["-m", "IPython", "--ipython-dir", str(profile), "--simple-prompt"]
        self._pty: Any = pexpect.spawn(
            sys.executable,
            [*command, "--colors", "NoColor", "--no-banner", "--no-confirm-exit"],
            env={
                **os.environ,
                "COLUMNS": "100",
                "INPUTRC": os.devnull,
                "MPLBACKEND": "Agg",
                "TERM": "dumb",
                "TZ": "UTC",
            },
            dimensions=(50, 100),
            encoding="utf-8",
            codec_errors="replace",
            timeout=TIMEOUT,
        )
        self._number = 1
        self.greeting = self._until_prompt()

    def _until_prompt(self) -> list[str]:
        # Of two prompts in a row the second belongs to a key that came late.
        self._pty.expect(rf"In \[{self._number}\]: ")
        return visible(self._pty.before)

    def type(self, line: str, interrupt_after: str | None = None) -> list[str]:
        """Type a line, and return what it prints.

        Parameters
        ----------
        line
            The line.
        interrupt_after
            Press Ctrl-C, until it is obeyed, when this stands on the screen.
        """
        self._pty.sendline(line)
        before = ""
        if interrupt_after is not None:
            self._pty.expect_exact(interrupt_after)
            before = self._pty.before + self._pty.after
            before += self._interrupt()
        self._number += 1
        printed = visible(before) + self._until_prompt()
        # The terminal shows what is typed.
        return printed[1:] if printed and printed[0].endswith(line) else printed

    def _interrupt(self) -> str:
        """Press Ctrl-C until the next prompt is there; returns what was seen."""
        import pexpect

        seen = ""
        for _ in range(5):
            # The first press asks for a pause at the next checkpoint, which may have
            # gone by; the next one for a pause now. They count within ten seconds.
            self._pty.sendintr()
            found = self._pty.expect_exact(["In [", pexpect.TIMEOUT], timeout=4)
            if found == 0:
                seen += self._pty.before
                # What follows is looked for as after any line.
                self._pty.buffer = "In [" + self._pty.buffer
                return seen
        raise AssertionError(f"Ctrl-C was not obeyed: {self._pty.before}")

    def close(self) -> str:
        """Leave IPython; returns the rest of what it prints."""
        import pexpect

        self._pty.sendline("exit")
        self._pty.expect(pexpect.EOF)
        rest: str = self._pty.before
        self._pty.wait()
        return rest

    def kill(self) -> None:
        """End it as a power cut would, if it is there still."""
        if self._pty.isalive():
            self._pty.kill(signal.SIGKILL)
            # However long this takes: closing the terminal would give up before.
            self._pty.wait()
        self._pty.close()


@contextmanager
def session(profile: Path) -> Iterator[Session]:
    """Give an IPython that is gone afterwards."""
    opened = Session(profile)
    try:
        yield opened
    finally:
        opened.kill()


def visible(text: str) -> list[str]:
    """Return the lines that remain on a screen, without progress bars."""
    text = _CONTROL.sub("", text).replace("\r\n", "\n")
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line for line in lines if line and not _BAR.search(line)]


def normal(lines: Sequence[str]) -> list[str]:
    """Return lines without what differs each time, and without empty ones."""
    said: list[str] = []
    for line in lines:
        for pattern, word in _VARIES:
            line = pattern.sub(word, line)
        if line:
            said.append(line)
    return said


def steps(transcript: str) -> list[tuple[str, list[str]]]:
    """Return what is typed in a transcript, each line with what it printed."""
    found: list[tuple[str, list[str]]] = []
    for line in transcript.splitlines():
        prompt = _PROMPT.match(line)
        if prompt is not None:
            found.append((prompt[2], []))
        elif found:
            found[-1][1].append(line)
    return found
