"""The computer: its packages, its clock, and the disk under a folder."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from bluesky_beamtime.database.network import file_system_of, is_on_network
from bluesky_beamtime.database.sizes import human_size
from bluesky_beamtime.doctor.finding import Finding

_CORE = ("bluesky", "ophyd-async", "event-model", "zarr", "numpy", "sqlalchemy")
_LITTLE_SPACE = 10e9
_NO_SPACE = 1e9
_FEW_FILES = 100_000
_MEMORY = ("tmpfs", "ramfs")
_DRIFT = 2.0
_UNSYNCHRONISED = 0x40  # STA_UNSYNC of adjtimex(2)
_PROBE_BYTES = 64 << 20


def check_packages() -> Iterator[Finding]:
    """Look whether the packages at the core are those that we were made for."""
    from packaging.requirements import Requirement

    found = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    wrong: list[Finding] = []
    distribution = metadata.distribution("bluesky-beamtime")
    found.insert(0, f"bluesky-beamtime {distribution.version}")
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = "missing"
        if requirement.name in _CORE:
            found.append(f"{requirement.name} {version}")
        if version == "missing" or not requirement.specifier.contains(
            version, prereleases=True
        ):
            what = f"{requirement.name} is {version}; {requirement.specifier} is needed"
            command = f"pip install {shlex.quote(str(requirement))}"
            wrong.append(Finding("packages", "trouble", what, command))
    yield from wrong or [Finding("packages", "well", ", ".join(found))]


def check_clock(folder: Path) -> Iterator[Finding]:
    """Look whether this computer's clock is kept, and agrees with the disk's."""
    if _is_unsynchronised():
        yield Finding(
            "clock",
            "advice",
            "nothing keeps this computer's clock right (no NTP)",
            "sudo timedatectl set-ntp true",
        )
    else:
        yield Finding("clock", "well", f"this computer says {time.ctime()}")
    drift = _drift_of_disk(folder)
    if drift is not None and abs(drift) > _DRIFT:
        late = "ahead of" if drift > 0 else "behind"
        yield Finding(
            "clock",
            "trouble",
            f"the clock of the disk with {str(folder)!r} is {abs(drift):.1f} s {late} "
            "this computer's",
            "timedatectl status  # here, and on the file server",
        )


def _is_unsynchronised() -> bool:
    """Ask the kernel; False where it cannot tell."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        # struct timex: modes = 0 asks; status comes after as many words.
        buffer = (ctypes.c_char * 512)()
        if libc.adjtimex(ctypes.byref(buffer)) < 0:
            return False
    except (OSError, AttributeError):
        return False
    status = ctypes.c_int.from_buffer(buffer, 5 * ctypes.sizeof(ctypes.c_long))
    return bool(status.value & _UNSYNCHRONISED)


def _drift_of_disk(folder: Path) -> float | None:
    """Return by how much a file's time is ahead; None if none can be made."""
    try:
        before = time.time()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
            file.flush()
            stamp = os.fstat(file.fileno()).st_mtime
        after = time.time()
    except OSError:
        return None
    # Kernels stamp with the time of their last tick.
    return min(stamp - after, 0.0) if stamp < before else max(stamp - after, 0.0)


def check_disk(folder: Path) -> Iterator[Finding]:
    """Look what kind of disk a folder is on."""
    kind = file_system_of(folder / "x")
    if kind in _MEMORY:
        yield Finding(
            "disk",
            "trouble",
            f"{str(folder)!r} is in memory ({kind}): it is gone after a restart",
            "df -hT -x tmpfs  # which folders are on disks",
        )
    elif is_on_network(folder / "x"):
        yield Finding(
            "disk",
            "advice",
            f"{str(folder)!r} is on a network disk ({kind}): every event waits for the "
            "server, and so does the plan when it is away. Record on a local disk and "
            "copy from there",
            "df -hT -l  # which folders are on local disks",
        )
    else:
        yield Finding("disk", "well", f"a local disk ({kind or 'of unknown kind'})")


def check_space(folder: Path, biggest: int) -> Iterator[Finding]:
    """Look whether there is room for what comes.

    Parameters
    ----------
    folder
        Where it goes.
    biggest
        Bytes of the biggest of the last runs, 0 if nobody knows.
    """
    usage = shutil.disk_usage(folder)
    what = f"{human_size(usage.free)} of {human_size(usage.total)} are free"
    if biggest:
        what += f": {usage.free // biggest} runs as big as the biggest of the last ones"
    command = f"du -xh --max-depth=2 {shlex.quote(str(folder))} | sort -h | tail"
    if usage.free < max(_NO_SPACE, 2 * biggest):
        yield Finding("space", "trouble", what, command)
    elif usage.free < max(_LITTLE_SPACE, 20 * biggest):
        yield Finding("space", "advice", what, command)
    else:
        yield Finding("space", "well", what)
    files = os.statvfs(folder)
    if files.f_files and files.f_favail < _FEW_FILES:
        yield Finding(
            "space",
            "trouble" if files.f_favail < _FEW_FILES // 100 else "advice",
            f"only {files.f_favail} more files can be made on that disk",
            f"df -i {shlex.quote(str(folder))}",
        )


def measure_speed(folder: Path) -> Iterator[Finding]:
    """Write a file, see that it reaches the disk, and remove it."""
    block = os.urandom(1 << 20)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            began = time.perf_counter()
            for _ in range(_PROBE_BYTES // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            rate = _PROBE_BYTES / (time.perf_counter() - began)
            began = time.perf_counter()
            for _ in range(10):
                file.write(b"?")
                file.flush()
                os.fsync(file.fileno())
            sync = (time.perf_counter() - began) / 10
    except OSError as error:
        what = f"{str(folder)!r} cannot be written: {error.strerror}"
        yield Finding("speed", "trouble", what, f"ls -ld {shlex.quote(str(folder))}")
        return
    what = f"writes {human_size(rate)}/s to the disk, and syncs in {sync * 1e3:.1f} ms"
    yield Finding("speed", "well" if rate > 50e6 else "advice", what)
