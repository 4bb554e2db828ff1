"""The tutorial at the beamline is a session that was typed; here it is typed again.

``python -m tests.system.test_profile_session`` writes it anew: the lines that are typed
stay, what they print is what they print now.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.ipython_session import CTRL_C, normal, session, steps

for _package in ("IPython", "pexpect", "p4p", "softioc", "h5py", "matplotlib"):
    pytest.importorskip(_package)

TRANSCRIPT = Path(__file__).parents[2] / "docs/examples/beamline_session.txt"
READY = "Ready; Ctrl-C ends them.\n"


def beamtime(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "bluesky_beamtime", *map(str, arguments)]


@contextmanager
def profile_with_iocs(folder: Path) -> Iterator[Path]:
    """Give a new profile, and run its motors and its camera in other processes."""
    done = subprocess.run(
        beamtime("profile", "new", folder, "--epics"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    command = beamtime("profile", "ioc", folder, "--shape", "64", "64")
    iocs = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert iocs.stdout is not None
    try:
        assert READY in iter(iocs.stdout.readline, "")
        yield folder
    finally:
        iocs.terminate()
        iocs.wait(60)
        iocs.stdout.close()


def replay(transcript: str, folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Type each line; yield it, what the transcript says it prints, and what it does.

    The first is what is printed before anything is typed.
    """
    with profile_with_iocs(folder) as profile, session(profile) as typed:
        greeting = transcript.partition("In [1]")[0].splitlines()
        yield "", greeting, typed.greeting
        for line, shown in steps(transcript):
            interrupt = None
            if CTRL_C in shown:
                # The row of the table before it.
                interrupt = shown[shown.index(CTRL_C) - 1][:13]
            yield line, shown, typed.type(line, interrupt)
        assert "Traceback" not in typed.close()


# A minute of typing, on a machine that does much else.
@pytest.mark.timeout(600)
def test_the_tutorial_is_what_somebody_sees(tmp_path: Path) -> None:
    for line, shown, seen in replay(TRANSCRIPT.read_text(), tmp_path / "beamline"):
        assert normal(seen) == normal(shown), line


@pytest.mark.timeout(300)
def test_a_restart_goes_on(tmp_path: Path) -> None:
    """Scan numbers, the sample and what the RunEngine knows; without any IOC."""
    folder = tmp_path / "a beamline"
    subprocess.run(beamtime("profile", "new", folder), check=True, capture_output=True)
    with session(folder) as typed:
        assert "scan 1 comes next; in the beam: LaB6" in typed.greeting
        assert "devices: x y near far diode blob" in typed.greeting
        typed.type("RE.md['operator'] = 'Ada'")
        typed.type("%sample Si formula=Si")
        assert "run 1 count: success, 1 event" in typed.type("RE(count([diode]))")
        # Nobody says goodbye: it is killed.
    with session(folder) as typed:
        assert "scan 2 comes next; in the beam: Si" in typed.greeting
        typed.type("RE(count([near]))")
        printed = typed.type("print(beamtime[2].start['operator'])")
        assert printed == ["Ada"]
        (said,) = typed.type("%sample")
        assert said == "in the beam: Si, formula: Si"
        typed.close()


def write_anew(folder: Path) -> None:
    lines: list[str] = []
    typed = replay(TRANSCRIPT.read_text(), folder)
    for number, (line, shown, seen) in enumerate(typed):
        lines += [f"In [{number}]: {line}"] if number else []
        for printed in seen:
            # Not what the terminal makes of the keys: what was pressed.
            printed = printed.removeprefix("^C").removeprefix("^C")
            lines += [printed] if printed else []
            if CTRL_C in shown and printed[:13] == shown[shown.index(CTRL_C) - 1][:13]:
                lines.append(CTRL_C)
        lines.append("")
    TRANSCRIPT.write_text("\n".join(lines))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as new:
        write_anew(Path(new) / "beamline")
