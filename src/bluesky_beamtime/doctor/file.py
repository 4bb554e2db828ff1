"""The file of a beamtime: its log, its journal, and who records into it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.liveness import live_writers
from bluesky_beamtime.database.network import is_on_network
from bluesky_beamtime.database.opening import log_size
from bluesky_beamtime.database.schema import SCHEMA_VERSION
from bluesky_beamtime.database.sizes import human_size
from bluesky_beamtime.database.slow_subscribers import read_subscribers
from bluesky_beamtime.doctor.finding import Finding

_LONG_LOG = 64e6
_SLOW_SHARE, _VERY_SLOW_SHARE = 0.1, 0.25
_SLOW_SECONDS = 1.0


def check_version(database: Database) -> Iterator[Finding]:
    """Look whether the file can be recorded into."""
    with database.reading() as connection:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar()
    name = database.path.name
    if version == SCHEMA_VERSION:
        yield Finding("file", "well", f"{name} is of this version")
    else:
        yield Finding(
            "file",
            "advice",
            f"{name} is of an older version: it can be read, not recorded into",
            f"beamtime migrate {shlex.quote(str(database.path))}",
        )


def check_log(database: Database) -> Iterator[Finding]:
    """Look whether SQLite's log is short, and of the kind that is safe there."""
    path = database.path
    # Asked of SQLite: closing the file here would end the locks of this process.
    with database.reading() as connection:
        wal = connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    quoted = shlex.quote(str(path))
    if wal and is_on_network(path):
        yield Finding(
            "log",
            "trouble",
            "a write-ahead log on a network disk can damage the file when two machines "
            "use it",
            f"sqlite3 {quoted} 'PRAGMA journal_mode=TRUNCATE'",
        )
        return
    size = log_size(path)
    if size > _LONG_LOG:
        yield Finding(
            "log",
            "advice",
            f"the write-ahead log has grown to {human_size(size)}: a program has been "
            "reading for very long, or stopped in the middle",
            f"sqlite3 {quoted} 'PRAGMA wal_checkpoint(TRUNCATE)'",
        )
    elif wal:
        yield Finding("log", "well", f"a write-ahead log of {human_size(size)}")
    else:
        yield Finding("log", "well", "a rollback journal, as is safe on network disks")


def check_journal(database: Database) -> Iterator[Finding]:
    """Look whether documents wait beside the file."""
    try:
        with database.journal.open("rb") as file:
            lines = sum(1 for _ in file)
    except FileNotFoundError:
        lines = 0
    if lines:
        yield Finding(
            "journal",
            "trouble",
            f"{lines} documents could not be stored, and wait in "
            f"{database.journal.name}",
            f"beamtime recover {shlex.quote(str(database.path))}",
        )
    else:
        yield Finding("journal", "well", "every document is in the tables")


def check_writers(path: Path) -> Iterator[Finding]:
    """Look who records into the file."""
    held = live_writers(path)
    if not held:
        yield Finding("writers", "well", "nobody records now")
        return
    who = [_holder(path.with_name(name)) for name in held]
    several = len(held) > 1
    yield Finding(
        "writers",
        "advice" if several else "well",
        f"recorded into by {'; '.join(who)}",
        f"lsof {shlex.quote(str(path))}" if several else "",
    )


def _holder(lock: Path) -> str:
    """Return who holds a lock file, as far as this computer knows."""
    with suppress(OSError, ValueError):
        found = lock.stat()
        inode = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:"
        inode += str(found.st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if inode in fields and "FLOCK" in fields:
                return _process(int(fields[4]))
    return "a process that this computer does not know"


def _process(number: int) -> str:
    with suppress(OSError):
        command = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
        words = " ".join(os.fsdecode(word) for word in command if word)
        return f"process {number} ({words:.60})"
    return f"process {number}"


def check_subscribers(database: Database) -> Iterator[Finding]:
    """Look whether a callback made the plan of the last run wait."""
    for one in read_subscribers(database):
        if one.share > _SLOW_SHARE and one.seconds > _SLOW_SECONDS:
            yield Finding(
                "subscribers",
                "trouble" if one.share > _VERY_SLOW_SHARE else "advice",
                f"the plan waited {one.seconds:.1f} s, {one.share:.0%} of run "
                f"{one.run[:8]}, for the callback {one.name}",
                "RE.unsubscribe(…), or give its work to a thread of its own",
            )
