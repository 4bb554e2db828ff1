"""Files of legacy Resources are found wherever copies of a beamtime are carried."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import event_model
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.exports import archive, restore
from bluesky_beamtime.exports.belongings import gather
from bluesky_beamtime.exports.takehome import take_home


@dataclass
class Case:
    """A place as detectors name it.

    ``{home}`` and ``{disk}`` are folders, ``{home_}`` and ``{disk_}`` without slash.
    """

    root: str
    path: str
    file: str
    """The file that it means, or the beginning that its files have in common."""
    files: tuple[str, ...] = ("",)
    """How the names of its files go on."""


INSIDE = {
    "nothing, relative": Case("", "raw/1", "{home}/raw/1"),
    "dot, relative": Case(".", "raw/1b", "{home}/raw/1b"),
    "relative, relative": Case("raw", "2", "{home}/raw/2"),
    "absolute, relative": Case("{home}/raw", "3", "{home}/raw/3"),
    "slash, relative": Case("/", "{home_}/raw/4", "{home}/raw/4"),
    "the folder, relative": Case("{home}", "raw/5", "{home}/raw/5"),
    "nothing, absolute": Case("", "{home}/raw/6", "{home}/raw/6"),
    "relative, absolute": Case("raw", "{home}/raw/7", "{home}/raw/7"),
    "absolute, absolute": Case("{home}/raw", "{home}/raw/8", "{home}/raw/8"),
    "slash, absolute": Case("/", "{home}/raw/9", "{home}/raw/9"),
    "elsewhere, absolute": Case("{disk}", "{home}/raw/10", "{home}/raw/10"),
    "in x_files": Case("", "{home}/x_files/11", "{home}/x_files/11"),
    "series": Case("{home}", "x_files/run_", "{home}/x_files/run_", ("1", "2")),
    "named as the database": Case("{home}", "x", "{home}/x", ("_1", "_2")),
}
OUTSIDE = {
    "absolute, relative": Case("{disk}/sub", "1", "{disk}/sub/1"),
    "slash, relative": Case("/", "{disk_}/2", "{disk}/2"),
    "nothing, absolute": Case("", "{disk}/3", "{disk}/3"),
    "relative, absolute": Case("raw", "{disk}/4", "{disk}/4"),
    "absolute, absolute": Case("{disk}/sub", "{disk}/sub/5", "{disk}/sub/5"),
    "slash, absolute": Case("/", "{disk}/6", "{disk}/6"),
    "inside, absolute": Case("{home}/raw", "{disk}/7", "{disk}/7"),
    "not below its root": Case("{disk}/sub", "{disk}/8", "{disk}/8"),
    "dots": Case("{disk}/sub", "gone/../../9", "{disk}/9"),
    "slash meant nothing": Case("{disk}", "/sub/10", "{disk}/sub/10"),
    "a folder": Case("", "{disk}/day/", "{disk}/day/", ("1", "2")),
    "series": Case("", "{disk}/many", "{disk}/many", ("_1.cbf", "_2.cbf")),
    "odd name": Case("", "{disk}/sp ace#%20ü", "{disk}/sp ace#%20ü"),
}
CASES = {
    **{f"inside: {name}": case for name, case in INSIDE.items()},
    **{f"outside: {name}": case for name, case in OUTSIDE.items()},
}
COPIES = ("archive", "restored", "home", "carried")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with copies of a beamtime, whose originals are gone."""
    folder = tmp_path_factory.mktemp("legacy")
    path = folder / "beamline" / "x.db"
    record(path, folder / "disk")
    archive(path, folder / "archive")
    take_home(path, folder / "home")
    (folder / "beamline").rename(folder / "lost")
    (folder / "disk").rename(folder / "lost disk")
    restore(folder / "archive", folder / "restored")
    shutil.copytree(folder / "restored", folder / "far away" / "carried")
    (folder / "far away" / "carried").rename(folder / "carried")
    return folder


def record(path: Path, disk: Path, cases: dict[str, Case] = CASES) -> None:
    """Record a run for each of the places, and make their files."""
    path.parent.mkdir()
    with Beamtime(path) as beamtime:
        for name, case in cases.items():
            root, place, file = filled(case, path.parent, disk)
            for ending in case.files:
                Path(file + ending).parent.mkdir(parents=True, exist_ok=True)
                Path(file + ending).write_text(name + ending)
            composed = event_model.compose_run(metadata={"case": name})
            bundle = composed.compose_resource(
                spec="OLD", root=root, resource_path=place, resource_kwargs={}
            )
            beamtime("start", composed.start_doc)
            beamtime("resource", bundle.resource_doc)
            beamtime("stop", composed.compose_stop())


def filled(case: Case, home: Path, disk: Path) -> tuple[str, str, str]:
    """Return root, path and file of a case."""
    folders = {"home": str(home), "disk": str(disk)}
    folders |= {f"{name}_": folder.strip("/") for name, folder in folders.items()}
    root, path, file = (
        text.format(**folders) for text in (case.root, case.path, case.file)
    )
    return root, path, file


def resource(path: Path, name: str, *, original: bool = False) -> dict[str, Any]:
    with Beamtime(path, mode="r") as beamtime:
        (run,) = beamtime.search(case=name)
        documents = run.documents(original=original)
        return next(doc for kind, doc in documents if kind == "resource")


def assert_found(path: Path, name: str) -> None:
    """Read the files that a document names, all of them beside the database."""
    document = resource(path, name)
    place = os.path.join(document["root"], document["resource_path"])
    assert Path(place).is_relative_to(path.parent)
    for ending in CASES[name].files:
        assert Path(place + ending).read_text() == name + ending


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("name", CASES)
def test_file_that_a_document_names_is_there(
    folder: Path, copy: str, name: str
) -> None:
    assert_found(folder / copy / "x.db", name)


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("name", CASES)
def test_originals_stay_as_they_were_emitted(
    folder: Path, copy: str, name: str
) -> None:
    root, path, _ = filled(CASES[name], folder / "beamline", folder / "disk")
    document = resource(folder / copy / "x.db", name, original=True)
    assert (document["root"], document["resource_path"]) == (root, path)


def test_nothing_is_missing_and_the_database_is_there_once(folder: Path) -> None:
    with gather(folder / "restored" / "x.db", assets=False) as found:
        listed = [each.name for each in found.files()]
        assert found.absent == ()
    assert len(listed) == len(set(listed))
    assert not [name for name in listed if name.startswith("x.db-")]
    # What came from outside is the restored beamtime's own.
    assert [name for name in listed if name.startswith("x_outside/")]


@pytest.mark.parametrize("name", [name for name in CASES if name[:2] == "in"])
def test_what_is_inside_follows_the_folder(folder: Path, name: str) -> None:
    assert_found(folder / "lost" / "x.db", name)


def test_documents_are_those_emitted_while_nothing_moved(tmp_path: Path) -> None:
    path, disk = tmp_path / "home" / "x.db", tmp_path / "disk"
    record(path, disk)
    for name, case in CASES.items():
        given, emitted = (resource(path, name, original=o) for o in (False, True))
        if os.path.isabs(os.path.join(emitted["root"], emitted["resource_path"])):
            assert given == emitted, name
        else:
            assert_found(path, name)
        assert filled(case, path.parent, disk)[0] == emitted["root"]


def test_rows_of_before_are_moved_too(tmp_path: Path) -> None:
    """They say what was emitted, also of what is inside."""
    path, disk = tmp_path / "beamline" / "x.db", tmp_path / "disk"
    record(path, disk)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE resources SET root = document ->> 'root', "
            "resource_path = document ->> 'resource_path'"
        )
    archive(path, tmp_path / "archive")
    path.parent.rename(tmp_path / "lost")
    disk.rename(tmp_path / "lost disk")
    for name in CASES:
        assert_found(tmp_path / "archive" / "x.db", name)


def test_what_the_archive_has_is_referred_to_when_it_is_gone(tmp_path: Path) -> None:
    path, disk = tmp_path / "beamline" / "x.db", tmp_path / "disk"
    record(path, disk)
    archive(path, tmp_path / "archive")
    disk.rename(tmp_path / "lost disk")
    with Beamtime(path) as beamtime:
        beamtime("start", event_model.compose_run().start_doc)
    assert archive(path, tmp_path / "archive").absent == ()
    for name in CASES:
        assert_found(tmp_path / "archive" / "x.db", name)


def test_where_a_relative_place_was_meant_is_not_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was relative to the folder of a process that nobody knows any more."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cases = {
        "gone": Case("raw", "1", "raw/1"),
        "out": Case("", "../elsewhere/raw/2", "raw/2"),
    }
    path = tmp_path / "home" / "x.db"
    record(path, tmp_path, cases)
    with gather(path) as found:
        assert [each.reason for each in found.absent] == ["missing", "refused"]
        assert found.assets == ()
    for name in cases:
        assert resource(path, name) == resource(path, name, original=True)


def test_chosen_runs_bring_the_files_whose_beginning_they_name(tmp_path: Path) -> None:
    path = tmp_path / "beamline" / "x.db"
    cases = {
        "one": Case("{home}/x_files", "one_", "{home}/x_files/one_", ("1", "2")),
        "two": Case("{home}/x_files", "two", "{home}/x_files/two"),
        "three": Case("{home}/x_files", "two_", "{home}/x_files/two_", ("1",)),
    }
    record(path, tmp_path / "disk", cases)
    with Beamtime(path, mode="r") as beamtime:
        chosen = [run for run in beamtime if run.start["case"] != "three"]
        taken = beamtime.take_home(tmp_path / "home", runs=chosen)
    names = sorted(os.listdir(taken.path / "x_files"))
    assert names == ["one_1", "one_2", "two"]
    assert taken.problems == ()
