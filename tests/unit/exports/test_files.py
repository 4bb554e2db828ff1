"""Where the files of an export wait, how they get their names, and what is cleared."""

from __future__ import annotations

import errno
import gc
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports import ExportFiles
from bluesky_beamtime.exports.names import safe_name, unique_names
from bluesky_beamtime.exports.staging import Staging, clear_dead
from bluesky_beamtime.storage import ZarrWriter

from .kinds import Emitter


def write(path: Path, names: list[str], text: str, **options: Any) -> None:
    with ExportFiles(path, progress=None, **options) as files:
        for temporary in files.several(names):
            temporary.write_text(text)


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def die(staging: Staging) -> None:
    """Let go of the lock as the kernel does when a process ends."""
    detached = staging._end.detach()  # pyright: ignore[reportPrivateUsage]
    assert detached is not None
    _, fd, _ = detached[2]
    os.close(fd)


def test_what_was_being_replaced_comes_back_wherever_it_is_interrupted(
    tmp_path: Path,
) -> None:
    staging = Staging(tmp_path)
    for name in ("gone", "replaced"):
        (staging.kept / name).mkdir()
        (staging.kept / name / "data").write_text("before")
    (tmp_path / "replaced").mkdir()
    del staging
    gc.collect()
    assert (tmp_path / "gone" / "data").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["gone", "replaced"]
    assert not os.listdir(tmp_path / "replaced")


def test_a_forked_child_leaves_the_folder_of_its_parent(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    child = os.fork()
    if not child:
        staging.remove()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert staging.path.is_dir()
    staging.remove()
    assert not os.listdir(tmp_path)


def test_only_what_the_dead_left_is_cleared(tmp_path: Path) -> None:
    alive, dead = Staging(tmp_path), Staging(tmp_path)
    (tmp_path / ".beamtime-export-mine.part").write_text("a file of somebody")
    (tmp_path / ".other.part").mkdir()
    (dead.path / "half").write_text("ha")
    die(dead)
    clear_dead(tmp_path)
    assert alive.path.exists()
    assert not dead.path.exists()
    assert (tmp_path / ".other.part").exists()
    assert (tmp_path / ".beamtime-export-mine.part").exists()
    alive.remove()
    alive.remove()
    assert not alive.path.exists()


def test_what_a_dead_export_was_replacing_comes_back(tmp_path: Path) -> None:
    dead = Staging(tmp_path)
    for name in ("gone", "new"):
        (dead.kept / name).mkdir()
        (dead.kept / name / "data").write_text("before")
    (tmp_path / "new").mkdir()
    die(dead)
    clear_dead(tmp_path)
    assert (tmp_path / "gone" / "data").read_text() == "before"
    assert not list((tmp_path / "new").iterdir())
    assert sorted(os.listdir(tmp_path)) == ["gone", "new"]


def test_link_to_a_folder_elsewhere_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / ".beamtime-export-000000000000.part").symlink_to(precious)
    clear_dead(out)
    assert (precious / "data").read_text() == "mine"


def test_folder_without_locks_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There nobody can know who is alive."""

    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", refuse)
    other = Staging(tmp_path)
    write(tmp_path / "run.txt", ["a"], "x", overwrite=False)
    assert other.path.exists()
    assert texts(tmp_path) == {"run.txt": "x"}


@pytest.mark.parametrize(
    ("name", "extension", "made"),
    [
        ("LaB6.csv", "csv", "LaB6-a.csv"),
        ("LaB6.T300.csv", "csv", "LaB6.T300-a.csv"),
        (".hidden.csv", "csv", ".hidden-a.csv"),
        ("LaB6.T300.ome.tiff", "ome.tiff", "LaB6.T300-a.ome.tiff"),
        ("LaB6.ome.tiff", "tiff", "LaB6.ome-a.tiff"),
        ("LaB6.T300.txt", "csv", "LaB6.T300-a.txt"),
        ("LaB6", "csv", "LaB6-a"),
        (".csv", "csv", ".csv-a"),
        ("..csv", "csv", ".-a.csv"),
        ("csv", "csv", "csv-a"),
    ],
)
def test_name_stands_before_the_extension(
    tmp_path: Path, name: str, extension: str, made: str
) -> None:
    write(tmp_path / name, ["a", "b"], "x", overwrite=False, extension=extension)
    assert sorted(texts(tmp_path)) == sorted((made, made.replace("-a", "-b")))


@pytest.mark.parametrize("links", [True, False])
def test_all_names_are_given_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Somebody takes the second name while the files are written."""
    if not links:
        # As on a FAT stick.
        def refuse(*args: Any, **options: Any) -> None:
            raise OSError(errno.EPERM, "no links")

        monkeypatch.setattr("os.link", refuse)
    with (
        pytest.raises(ExportError, match="is there already"),
        ExportFiles(tmp_path / "run.txt", overwrite=False, progress=None) as files,
    ):
        for temporary in files.several(["a", "b", "c"]):
            temporary.write_text("new")
        (tmp_path / "run-b.txt").write_text("theirs")
    assert texts(tmp_path) == {"run-b.txt": "theirs"}
    (tmp_path / "run-b.txt").unlink()
    write(tmp_path / "run.txt", ["a", "b", "c"], "new", overwrite=False)
    assert texts(tmp_path) == {f"run-{name}.txt": "new" for name in "abc"}
    write(tmp_path / "run.txt", ["a", "b", "c"], "newer", overwrite=True)
    assert texts(tmp_path) == {f"run-{name}.txt": "newer" for name in "abc"}


def test_what_was_replaced_comes_back_when_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "run.txt", ["a", "b"], "old", overwrite=False)
    replace = os.replace

    def refuse(source: Any, target: Any) -> None:
        if Path(target).name == "run-c.txt":
            raise OSError(errno.EIO, "broken")
        replace(source, target)

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="broken"):
        write(tmp_path / "run.txt", ["a", "b", "c"], "new", overwrite=True)
    assert texts(tmp_path) == {"run-a.txt": "old", "run-b.txt": "old"}
    assert sorted(os.listdir(tmp_path)) == ["run-a.txt", "run-b.txt"]


@pytest.mark.parametrize("was", ["file", "folder", "link"])
def test_anything_can_be_replaced_by_a_folder(tmp_path: Path, was: str) -> None:
    final, other = tmp_path / "run.zarr", tmp_path / "other"
    other.mkdir()
    (other / "data").write_text("mine")
    if was == "file":
        final.write_text("old")
    elif was == "folder":
        final.mkdir()
        (final / "old").write_text("old")
    else:
        final.symlink_to(other)
    with ExportFiles(
        final, overwrite=True, progress=None, replaces=Path.exists
    ) as files:
        temporary = files.single()
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert os.listdir(final) == ["new"]
    assert (other / "data").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["other", "run.zarr"]


def test_names_stay_apart_and_fit() -> None:
    names = ["a/b", "a_b", "A_B", "", "..", "x" * 300, "x" * 301, "ü" * 200]
    made = unique_names(names, safe_name)
    assert list(made) == names
    assert len({name.casefold() for name in made.values()}) == len(names)
    for name in made.values():
        assert len(name.encode()) < 250
        assert not set(name) & set("/\0")
        assert name[0] != "."


@pytest.mark.parametrize(
    "to", ["nexus", "hdf5", "netcdf", "zarr", "tiff", "ome-tiff", "parquet"]
)
def test_a_stack_is_never_in_memory(tmp_path: Path, to: str) -> None:
    """A few blocks of it are, whatever its size."""
    stack = np.zeros((96, 512, 512), "u2")
    stack[:, 0, 0] = np.arange(96)
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = Emitter(beamtime, tmp_path)
        run.describe("primary", {}, {"cam": (stack, 1, ZarrWriter)})
        uid = run.stop().uid
        small = beamtime[uid]
        size, stack, run = stack.nbytes, None, None
        small.export(tmp_path / "warm", to)
        tracemalloc.start()
        try:
            small.export(tmp_path / "out", to)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < size * 0.8
    assert peak < 40 << 20
