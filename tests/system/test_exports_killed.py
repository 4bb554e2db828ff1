"""``kill -9``, Ctrl-C and rivals while runs are exported.

A process that has imported everything forks the ones that export: they are killed at
random moments, and what they leave is looked at. A file with the name of an export is
whole or absent, whatever happens, and the next export clears up.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime import Beamtime
from tests.exported import FORMATS, emit_long_run, seen_in

ROUNDS = int(os.environ.get("BEAMTIME_EXPORT_KILLS", "2"))
pytestmark = pytest.mark.filterwarnings(
    "ignore::bluesky_beamtime.errors.BeamtimeWarning"
)

NURSERY = """
import json, os, signal, sys, tempfile, warnings
import dask.array, h5netcdf, h5py, msgpack, pyarrow.parquet, tifffile, xarray, zarr
from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ExportError

warnings.simplefilter("ignore")
# Whoever runs the tests in the background has children to whom Ctrl-C is nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What is imported when it is used.
with Beamtime(sys.argv[1], mode="r") as beamtime, tempfile.TemporaryDirectory() as out:
    for to in ("csv", "hdf5", "nexus", "netcdf", "parquet", "spec", "tiff", "xlsx"):
        beamtime[sys.argv[2]].export(f"{out}/run.x", to, overwrite=True)

def export(file, uid, path, to, overwrite, times, go):
    os.read(go, 1)
    code = 1
    try:
        with Beamtime(file, mode="r") as beamtime:
            for _ in range(times):
                beamtime[uid].export(path, to, overwrite=overwrite)
        code = 0
    except ExportError as error:
        code = 17 if "is there already" in str(error) else 1
    except KeyboardInterrupt:
        code = 2
    finally:
        # Ctrl-C may come while it is clearing up, too.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os._exit(code)

for line in sys.stdin:
    *job, count = json.loads(line)
    go, start = os.pipe()
    children = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            os.close(start)
            export(*job, go)
        children.append(pid)
    print(json.dumps({"began": children}), flush=True)
    os.close(go)
    os.close(start)
    ended = [os.waitpid(pid, 0)[1] for pid in children]
    print(json.dumps({"ended": ended}), flush=True)
"""


class Nursery:
    """Has children that export, and tells how they ended."""

    def __init__(self, file: Path, uid: str) -> None:
        self._file, self._uid = file, uid
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(file), uid],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self, path: Path, to: str, *, overwrite: bool, times: int = 1, count: int = 1
    ) -> list[int]:
        """Return the process ids of children that begin to export."""
        job = [str(self._file), self._uid, str(path), to, overwrite, times, count]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._line("began")

    def ended(self) -> list[int]:
        """Wait for the children; return how they ended, a negative signal or a code."""
        return [os.waitstatus_to_exitcode(status) for status in self._line("ended")]

    def interrupt(self, child: int) -> int:
        """Press Ctrl-C until a child ends, and return its code.

        Where C calls Python nobody can take an exception, and Ctrl-C does nothing.
        """
        assert self._process.stdout is not None
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGINT)
            if select.select([self._process.stdout], [], [], 1)[0]:
                break
        (code,) = self.ended()
        return code

    def _line(self, what: str) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], 60)[0]:
            # What it says from now on would be taken for something else.
            self._process.kill()
            pytest.fail("an export did not come to an end")
        return json.loads(self._process.stdout.readline())[what]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("source")
    with Beamtime(folder / "x.db") as beamtime:
        uid = emit_long_run(beamtime, folder / "frames", events=150, frames=24)
    return folder / "x.db", uid


@pytest.fixture(scope="module")
def nursery(source: tuple[Path, str]) -> Iterator[Nursery]:
    nursery = Nursery(*source)
    yield nursery
    nursery.close()


def hidden(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.mark.parametrize("to", FORMATS)
def test_killed_export_leaves_a_whole_file_or_none(
    source: tuple[Path, str], nursery: Nursery, tmp_path: Path, to: str
) -> None:
    name = f"run.{FORMATS[to]}"
    chance = random.Random(f"kill {to}")
    out = tmp_path / "out"
    out.mkdir()
    with Beamtime(source[0], mode="r") as beamtime:
        run = beamtime[source[1]]
        (reference,) = run.export(tmp_path / name, to)
        whole = seen_in(reference, to)
        begun = time.monotonic()
        nursery.start(tmp_path / name, to, overwrite=True)
        assert nursery.ended() == [0]
        span = time.monotonic() - begun
        unfinished = number = 0
        while number < ROUNDS or not unfinished:
            assert number < 30, "no kill came in the middle of an export"
            replaces = number % 2 == 1
            if not replaces:
                for path in out.iterdir():
                    if not path.name.startswith("."):
                        path.rename(tmp_path / f"{number}-{path.name}")
            before = (out / name).exists()
            (child,) = nursery.start(out / name, to, overwrite=True, times=1000)
            time.sleep(chance.uniform(0.1, 1.5) * span)
            number += 1
            os.kill(child, signal.SIGKILL)
            assert nursery.ended() == [-signal.SIGKILL]
            unfinished += len(hidden(out))
            if (out / name).exists():
                assert seen_in(out / name, to) == whole
            elif before:
                # Between two renames, which only a folder needs.
                assert to == "zarr"
            assert run.export(out / name, to, overwrite=True) == [out / name]
            assert seen_in(out / name, to) == whole
            assert os.listdir(out) == [name]


@pytest.mark.parametrize("to", ["nexus", "zarr", "xlsx"])
def test_ctrl_c_leaves_a_whole_file_or_none(
    nursery: Nursery, tmp_path: Path, to: str
) -> None:
    """Wherever it comes: HDF5 in particular does not survive a broken write."""
    chance = random.Random(f"interrupt {to}")
    for number in range(ROUNDS):
        path = tmp_path / f"{number}.{FORMATS[to]}"
        (child,) = nursery.start(path, to, overwrite=True, times=1000)
        give_up = time.monotonic() + 60
        while not hidden(tmp_path) and time.monotonic() < give_up:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.3))
        # A library may make an error of its own of it.
        assert nursery.interrupt(child) in (1, 2)
        assert os.listdir(tmp_path) in ([], [path.name], hidden(tmp_path))
        # It may come between any two steps, those of clearing up as well.
        nursery.start(path, to, overwrite=True)
        assert nursery.ended() == [0]
        assert os.listdir(tmp_path) == [path.name]
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("to", ["nexus", "zarr"])
def test_of_rivals_for_a_name_one_gets_it(
    nursery: Nursery, tmp_path: Path, to: str
) -> None:
    path = tmp_path / f"run.{FORMATS[to]}"
    nursery.start(path, to, overwrite=False, count=3)
    assert sorted(nursery.ended()) == [0, 17, 17]
    assert os.listdir(tmp_path) == [path.name]
    before = seen_in(path, to)
    nursery.start(path, to, overwrite=True, count=3, times=2)
    assert nursery.ended() == [0, 0, 0]
    assert os.listdir(tmp_path) == [path.name]
    assert seen_in(path, to) == before
