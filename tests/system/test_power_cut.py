"""What a power cut leaves behind (R3), by replaying what had not reached the disk.

Every call that changes the disk is recorded while frames are written. A cut is
simulated at a random moment: what was fsynced before it is there; of everything else a
random part is, names in their order and bytes in any, some of them torn. Then the store
is repaired and read.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from bluesky_beamtime.errors import StorageError, StoreReadError
from bluesky_beamtime.storage import FrameArray, ZarrWriter, repair_store

CUTS = int(os.environ.get("BEAMTIME_POWER_CUTS", "400"))
FRAMES = 24


@dataclass
class Step:
    """One change of the disk, or an acknowledgement."""

    kind: str
    target: str | int
    data: bytes = b""
    offset: int = 0
    other: str = ""


@dataclass
class Recorder:
    """Stands between the code and the ``os`` module, for paths below a root."""

    root: str
    steps: list[Step] = field(default_factory=list)
    inodes: dict[str, int] = field(default_factory=dict)
    descriptors: dict[int, tuple[str, int | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        names = ("open", "pwritev", "replace", "unlink", "mkdir", "fsync", "fdatasync")
        self.real = {name: getattr(os, name) for name in (*names, "close")}

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in self.real:
            patch.setattr(os, name, getattr(self, name))

    def _ours(self, path: object) -> bool:
        return os.fspath(path).startswith(self.root)  # type: ignore[arg-type]

    def ack(self, number: int) -> None:
        with self.lock:
            self.steps.append(Step("ack", number))

    def open(self, path, flags, mode=0o777, **kwargs):
        with self.lock:
            existed = isinstance(path, int) or os.path.lexists(path)
            fd = self.real["open"](path, flags, mode, **kwargs)
            if isinstance(path, int) or not self._ours(path):
                return fd
            name = os.fspath(path)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                self.descriptors[fd] = (name, None)
                return fd
            if not existed:
                self.inodes[name] = len(self.steps) + 1
                self.steps.append(Step("create", name, offset=self.inodes[name]))
            elif flags & os.O_TRUNC:
                self.steps.append(Step("truncate", self.inodes[name]))
            self.descriptors[fd] = (name, self.inodes[name])
            return fd

    def close(self, fd):
        with self.lock:
            self.descriptors.pop(fd, None)
            self.real["close"](fd)

    def pwritev(self, fd, buffers, offset, *flags):
        with self.lock:
            count = self.real["pwritev"](fd, buffers, offset, *flags)
            known = self.descriptors.get(fd)
            if known is not None and known[1] is not None:
                data = b"".join(bytes(memoryview(b)) for b in buffers)[:count]
                self.steps.append(Step("write", known[1], data, offset))
            return count

    def replace(self, source, target, **kwargs):
        with self.lock:
            self.real["replace"](source, target, **kwargs)
            if self._ours(target):
                old, new = os.fspath(source), os.fspath(target)
                self.inodes[new] = self.inodes.pop(old)
                self.steps.append(Step("rename", old, other=new))

    def unlink(self, path, **kwargs):
        with self.lock:
            self.real["unlink"](path, **kwargs)
            if self._ours(path):
                self.inodes.pop(os.fspath(path), None)
                self.steps.append(Step("unlink", os.fspath(path)))

    def mkdir(self, path, *args, **kwargs):
        with self.lock:
            self.real["mkdir"](path, *args, **kwargs)
            if self._ours(path):
                self.steps.append(Step("mkdir", os.fspath(path)))

    def _sync(self, name, fd):
        # What is written while the disk works is not covered by this sync.
        with self.lock:
            known = self.descriptors.get(fd)
            covered = len(self.steps)
        self.real[name](fd)
        with self.lock:
            if known is not None:
                target = known[0] if known[1] is None else known[1]
                self.steps.append(Step("sync", target, offset=covered))

    def fsync(self, fd):
        self._sync("fsync", fd)

    def fdatasync(self, fd):
        self._sync("fdatasync", fd)


NAMING = ("create", "rename", "unlink", "mkdir")


def parents_of(step: Step) -> set[str]:
    return {os.path.dirname(str(step.target)), os.path.dirname(step.other or "")} - {""}


def cut(steps: list[Step], moment: int, root: Path, chance: random.Random) -> Path:
    """Build what a disk may hold after a power cut before step ``moment``."""
    past = steps[:moment]
    covered: dict[str | int, int] = {}
    for step in past:
        if step.kind == "sync":
            covered[step.target] = max(covered.get(step.target, 0), step.offset)
    naming = [n for n, step in enumerate(past) if step.kind in NAMING]
    # A journal keeps the order of names, so what is kept is a prefix of them.
    certain = -1
    for place, n in enumerate(naming):
        if any(covered.get(parent, 0) > n for parent in parents_of(past[n])):
            certain = place
    kept = naming[: chance.randint(certain + 1, len(naming))]
    contents: dict[int, bytearray] = {}
    for n, step in enumerate(past):
        if step.kind not in ("write", "truncate"):
            continue
        data = contents.setdefault(int(step.target), bytearray())
        safe = covered.get(step.target, 0) > n
        if not safe and chance.random() < 0.5:
            continue
        if step.kind == "truncate":
            data.clear()
            continue
        part = step.data
        if not safe and chance.random() < 0.3:
            part = part[: chance.randrange(len(part) + 1)]
        end = step.offset + len(part)
        if len(data) < end:
            data.extend(bytes(end - len(data)))
        data[step.offset : end] = part
    names: dict[str, int] = {}
    folders: list[str] = []
    for n in kept:
        step = past[n]
        match step.kind:
            case "create":
                names[str(step.target)] = step.offset
            case "rename":
                names[step.other] = names.pop(str(step.target))
            case "unlink":
                names.pop(str(step.target), None)
            case _:
                folders.append(str(step.target))
    target = root / "after"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    base = root / "before"
    for folder in folders:
        (target / os.path.relpath(folder, base)).mkdir(parents=True, exist_ok=True)
    for name, inode in names.items():
        path = target / os.path.relpath(name, base)
        if path.parent.is_dir():
            path.write_bytes(contents.get(inode, b""))
    return target


def record(
    root: Path, durability: str, patch: pytest.MonkeyPatch
) -> tuple[list[Step], np.ndarray]:
    """Write frames into two arrays and return every step with the frames."""
    frames = np.random.default_rng(3).integers(0, 999, (FRAMES, 6, 8)).astype("u2")
    (root / "before").mkdir()
    recorder = Recorder(str(root / "before") + os.sep)
    writer = ZarrWriter("power cut", durability=durability, frames_per_shard=10)
    with patch.context() as context:
        recorder.install(context)
        os.mkdir(root / "before" / "store")
        writer.set_uri(str(root / "before" / "store"))
        sinks = [
            writer.prepare("raw", "raw", "u2", (6, 8)),
            writer.prepare("lz4", "lz4", "u2", (6, 8), compression="lz4"),
        ]
        writer.kickoff()
        for number, frame in enumerate(frames):
            for sink in sinks:
                sink.write(frame)
            recorder.ack(number + 1)
            if number % 7 == 3:
                sinks[0].publish()
            if durability == "kill" and number % 9 == 5:
                # What the pacer does within 50 ms; here at a known moment.
                writer.flush()
                recorder.steps.append(Step("flushed", number + 1))
        for sink in sinks:
            sink.close()
    return recorder.steps, frames


def read_back(store: Path, name: str) -> tuple[FrameArray | None, int]:
    """Return the array after a repair, and how many frames it has."""
    try:
        repair_store(store)
        frames = FrameArray(store / name)
    except (StoreReadError, FileNotFoundError):
        return None, 0
    return frames, len(frames)


@pytest.mark.parametrize("durability", ["power", "kill"])
def test_what_a_power_cut_leaves(
    durability: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, frames = record(tmp_path, durability, monkeypatch)
    chance = random.Random(11)
    promise = "ack" if durability == "power" else "flushed"
    lost = wrong = checked = 0
    for _ in range(CUTS):
        moment = chance.randrange(len(steps) + 1)
        after = cut(steps, moment, tmp_path, chance) / "store"
        promised = max(
            (int(s.target) for s in steps[:moment] if s.kind == promise), default=0
        )
        for name in ("raw", "lz4"):
            array, length = read_back(after, name)
            for number in range(max(promised, length)):
                checked += 1
                try:
                    assert array is not None
                    same = np.array_equal(array[number], frames[number])
                except (StorageError, AssertionError, IndexError):
                    # Not there, and said so: allowed unless it was promised.
                    lost += number < promised
                else:
                    wrong += not same
    assert checked > CUTS
    assert (lost, wrong) == (0, 0)
