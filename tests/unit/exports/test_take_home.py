"""One folder to take home: what is in it, what is not, and what is said of it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import event_model
import numpy as np
import pytest

from bluesky_beamtime import Beamtime, errors
from bluesky_beamtime.cli import main
from bluesky_beamtime.database import Run
from bluesky_beamtime.exports import take_home
from bluesky_beamtime.exports.belongings import Belonging
from bluesky_beamtime.exports.takehome import copying, naming, readme
from bluesky_beamtime.exports.takehome.manifest import Manifest
from bluesky_beamtime.storage import HDF5Writer, ZarrWriter
from bluesky_beamtime.testing import assert_documents_equal
from tests.exported import emit_reconfigured

from .conftest import CAM1, damage, emit_run

KEY = {"source": "sim", "dtype": "number", "shape": [], "units": "mm"}


def emit(
    beamtime: Beamtime, metadata: Any = None, *, key: str = "y", **more: Any
) -> str:
    """Emit a run of three numbers."""
    composed = event_model.compose_run(metadata=metadata or {})
    beamtime("start", {**composed.start_doc, **more})
    stream = composed.compose_descriptor(
        name="primary", data_keys={key: KEY}, object_keys={"d": [key]}
    )
    beamtime("descriptor", stream.descriptor_doc)
    for number in range(3):
        event = stream.compose_event(data={key: number}, timestamps={key: 1.0})
        beamtime("event", event)
    beamtime("stop", composed.compose_stop())
    return composed.start_doc["uid"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a beamtime with frames inside and outside of its folder."""
    path = tmp_path / "beamline" / "x.db"
    path.parent.mkdir()
    with Beamtime(path, sample="LaB6") as beamtime:
        store = path.parent / "x.zarr" / "frames" / "scan_00007"
        emit_run(beamtime, store, (ZarrWriter,))
        beamtime.sample = "secret"
        beamtime.users = ["Nobody's Business"]
        emit_run(beamtime, tmp_path / "elsewhere", (ZarrWriter, HDF5Writer))
    return path


def checked(folder: Path) -> list[str]:
    """Return the files of a folder, all of which its manifest has."""
    command = ["sha256sum", "-c", "--strict", "MANIFEST.sha256"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"FAILED" not in done.stdout
    files = [f for f in folder.rglob("*") if f.is_file()]
    assert len(done.stdout.splitlines()) == len(files) - 1
    return sorted(file.relative_to(folder).as_posix() for file in files)


def assert_equal(one: Run, other: Run) -> None:
    assert_documents_equal(
        list(one.documents(original=True)), list(other.documents(original=True))
    )
    for name in one.stream_names:
        here, there = one[name].read(chunks=None), other[name].read(chunks=None)
        assert set(here.variables) == set(there.variables)
        for key in here.variables:
            np.testing.assert_array_equal(here[key].values, there[key].values)


def hidden(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


# ------------------------------------------------------------------------ what is in it


def test_copy_reads_equal_data_wherever_it_is_carried(
    path: Path, tmp_path: Path
) -> None:
    with Beamtime(path, mode="r") as here:
        taken = here.take_home(tmp_path / "home")
        assert (taken.runs, taken.problems, taken.recording) == (2, (), ())
        moved = tmp_path / "far away" / "stick"
        moved.parent.mkdir()
        taken.path.rename(moved)
        with Beamtime(moved / "x.db", mode="r") as there:
            for age in (-1, -2):
                assert_equal(here[age], there[age])
            cam1 = here[-1].primary.read()["cam1"].values
            assert there.verify().ok
    # Nothing of the copy refers to where it was made from.
    path.parent.rename(tmp_path / "gone")
    (tmp_path / "elsewhere").rename(tmp_path / "gone too")
    with Beamtime(moved / "x.db", mode="r") as there:
        np.testing.assert_array_equal(there[-1].primary.read()["cam1"].values, cam1)
        assert there[-1].primary.read()["cam2"].shape == (5, 2, 4, 5)
    assert not hidden(tmp_path)
    files = checked(moved)
    assert taken.files == len(files) - 1
    assert {"index.html", "README.txt", "runs/7_scan.html", "x.db"} <= set(files)
    assert not [name for name in files if name.endswith(("-wal", "-shm", ".lock"))]


def test_database_opens_read_only_for_everybody(path: Path, tmp_path: Path) -> None:
    taken = take_home(path, tmp_path / "home")
    os.chmod(taken.database, 0o444)
    with closing(sqlite3.connect(f"file:{taken.database}?mode=ro", uri=True)) as found:
        assert found.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert len(found.execute("SELECT * FROM run_list").fetchall()) == 2
    assert sorted(p.name for p in taken.path.glob("x.db*")) == ["x.db"]


def test_chosen_runs_come_without_anything_of_the_others(
    path: Path, tmp_path: Path
) -> None:
    journal = path.with_name("x.journal.jsonl")
    with Beamtime(path, mode="r") as beamtime:
        other, chosen = beamtime[-1], beamtime[-2]
        lines = [{"run": run.uid, "doc": run.uid} for run in (other, chosen)]
        text = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines)
        journal.write_text(text)
        taken = beamtime.take_home(
            tmp_path / "home", runs=beamtime.search(sample="LaB6")
        )
        with Beamtime(taken.database, mode="r") as copy:
            assert [run.uid for run in copy] == [chosen.uid]
            assert_equal(chosen, copy[-1])
            assert copy.search(text="LaB6")[0].uid == chosen.uid
            assert not copy.search(text="secret")
    left = (taken.path / "x.journal.jsonl").read_text()
    assert left == text.splitlines(keepends=True)[1]
    strangers = [other.uid, "secret", "Nobody's Business", "elsewhere"]
    for file in taken.path.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        for word in strangers:
            assert word.encode() not in content, (word, file)
    files = checked(taken.path)
    assert not [name for name in files if "x_outside" in name]
    assert [name for name in files if name.startswith("x.zarr/frames/scan_00007/")]
    runs = {name.split("/")[2] for name in files if name.startswith("x.zarr/runs/")}
    assert runs == {chosen.uid, "zarr.json"} or runs == {chosen.uid}


def test_exports_are_there_and_linked(path: Path, tmp_path: Path) -> None:
    taken = take_home(path, tmp_path / "home", exports=["nexus", "csv"])
    files = checked(taken.path)
    assert "exports/nexus/7_scan.nxs" in files
    assert "exports/csv/7_scan_2.csv" in files
    pages = [(taken.path / f"runs/7_scan{n}.html").read_text() for n in ("", "_2")]
    assert "../exports/nexus/7_scan.nxs" in pages[0]
    assert "../exports/csv/7_scan_2.csv" in pages[1]


def test_readme_shows_xarray_only_what_it_can_open(tmp_path: Path) -> None:
    """Of two cameras one may be faster, or get further before a crash."""
    import zarr

    for name, lengths in {"even": (3, 3), "odd": (3, 2)}.items():
        group = zarr.open_group(tmp_path / name, mode="w")
        for key, length in zip("ab", lengths, strict=True):
            dims = ("time", f"{key}_x")
            group.create_array(key, shape=(length, 2), dtype="u2", dimension_names=dims)
    assert readme.is_dataset(tmp_path / "even")
    assert not readme.is_dataset(tmp_path / "odd")
    assert not readme.is_dataset(tmp_path / "even" / "a")
    assert not readme.is_dataset(tmp_path / "nothing")


def test_without_runs_there_is_a_page(tmp_path: Path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        taken = beamtime.take_home(tmp_path / "home", exports=["csv"])
    assert taken.runs == 0
    assert "There are no runs" in (taken.path / "index.html").read_text()
    checked(taken.path)


def test_old_files_are_taken_as_they_are(tmp_path: Path) -> None:
    # A copy: reading leaves files beside a database.
    kept = Path(__file__).parents[2] / "data" / "databases" / "v1"
    old = shutil.copytree(kept, tmp_path / "old") / "beamtime.db"
    taken = take_home(old, tmp_path / "whole")
    with closing(sqlite3.connect(taken.database)) as found:
        assert found.execute("PRAGMA user_version").fetchone() == (1,)
    with Beamtime(old, mode="r") as here:
        uid = here[-1].uid
        part = take_home(old, tmp_path / "part", runs=[uid])
        with Beamtime(part.database, mode="r") as there:
            assert [run.uid for run in there] == [uid]
            assert_documents_equal(
                list(here[uid].documents(original=True)),
                list(there[uid].documents(original=True)),
            )


# ------------------------------------------------------------------------------ pages


def links(page: Path) -> Iterator[Path]:
    """Yield what a page refers to, and fail for what is not beside it."""
    for target in re.findall(r'(?:src|href)="([^"]*)"', page.read_text()):
        if not target.startswith("data:image/png;base64,"):
            assert ":" not in target
            assert not target.startswith("/")
            yield page.parent / unquote(target)


def test_pages_need_nothing_but_the_folder(path: Path, tmp_path: Path) -> None:
    taken = take_home(path, tmp_path / "home", exports=["csv"])
    pages = list(taken.path.rglob("*.html"))
    assert len(pages) == 3
    for page in pages:
        found = list(links(page))
        assert found
        for target in found:
            assert target.resolve().is_relative_to(taken.path)
            assert target.exists(), target
        assert "<script" not in page.read_text()


def test_page_of_a_run_shows_what_it_measured(path: Path, tmp_path: Path) -> None:
    with Beamtime(path) as beamtime:
        beamtime[-2].note("the beam was lost", author="Ada")
        beamtime[-2].tag("good")
        taken = beamtime.take_home(tmp_path / "home")
    page = (taken.path / "runs" / "7_scan.html").read_text()
    for text in (
        "Run 7 scan",
        "the beam was lost",
        "good",
        "energy",
        "12.4",
        "gain",
        "counts (counts)",
        ">x (mm)<",
        "8 × 6 pixels",
    ):
        assert text in page, text
    # Hinted first, against the axis that was scanned.
    assert page.index("counts (counts)") < page.index('<figure class="frame"')
    pictures = sorted(p.name for p in (taken.path / "runs").glob("7_scan_[!2]*.png"))
    assert pictures == [
        "7_scan_primary_cam1.png",
        "7_scan_primary_map.png",
        "7_scan_small.png",
    ]
    index = (taken.path / "index.html").read_text()
    for text in ("2 runs", "LaB6", "success", "runs/7_scan_small.png"):
        assert text in index


def test_page_shows_every_value_of_a_setting(tmp_path: Path) -> None:
    told = ({"exposure": 0.1}, {"exposure": 0.5})
    with Beamtime(tmp_path / "x.db") as beamtime:
        emit_reconfigured(beamtime, *told)
    taken = take_home(tmp_path / "x.db", tmp_path / "home")
    (page,) = (taken.path / "runs").glob("*.html")
    assert "<dd>0.1 s from event 1, 0.5 s from event 3</dd>" in page.read_text("utf-8")


def test_picture_is_the_middle_frame(path: Path, tmp_path: Path) -> None:
    from PIL import Image

    from bluesky_beamtime.pages.pictures import array_png

    taken = take_home(path, tmp_path / "home")
    picture = taken.path / "runs" / "7_scan_primary_cam1.png"
    assert picture.read_bytes() == array_png(CAM1[len(CAM1) // 2], largest=400)
    with Image.open(picture) as image:
        assert image.size == (6 * 32, 8 * 32)


@pytest.mark.parametrize("motors", [5, "x", [["x"]], {"x": 1}])
def test_wrong_word_of_a_plan_costs_no_page(tmp_path: Path, motors: Any) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        emit(beamtime, motors=motors)
    taken = take_home(tmp_path / "x.db", tmp_path / "home")
    (page,) = (taken.path / "runs").glob("*.html")
    assert 'class="curve"' in page.read_text()
    assert list((taken.path / "runs").glob("*_small.png"))


def test_wrong_word_of_a_plan_costs_no_export(tmp_path: Path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        emit(beamtime, hints={"dimensions": [[["y"]], [["y"], "primary"]]})
    taken = take_home(tmp_path / "x.db", tmp_path / "home", exports=["nexus", "spec"])
    assert not taken.problems


def test_hostile_words_are_text(tmp_path: Path) -> None:
    words = "</title><script>alert('x')</script>"
    with Beamtime(tmp_path / "x.db", sample=f"sample {words}") as beamtime:
        # Documents allow no slash in keys.
        key = "<script>alert('x')"
        metadata = {"plan_name": f"plan {words}", f"key {key}": words}
        emit(beamtime, metadata, key=f"field {key}")
        beamtime[-1].note(f"note {words}", author=words)
        beamtime[-1].tag(f"tag {words}")
        beamtime.note(f"all {words}")
        taken = beamtime.take_home(tmp_path / "home", exports=["csv"])
    for page in taken.path.rglob("*.html"):
        text = page.read_text()
        assert "<script" not in text
        assert "alert(&#39;x&#39;)" in text
        assert all(target.exists() for target in links(page))
    checked(taken.path)


def test_names_of_runs_differ_on_every_file_system() -> None:
    def summary(uid: str, scan_id: int | None, plan: str | None) -> dict[str, Any]:
        return {"uid": uid, "scan_id": scan_id, "plan_name": plan}

    names = naming.run_names(
        [
            summary("a", 1, "Scan"),
            summary("b", 1, "sCan"),
            summary("c", 1, "scan_2"),
            summary("CON", None, None),
            summary("con", None, ""),
            summary("../../etc", None, None),
            summary("d", 2, 'a:b*c?"<>|\\/ .'),
            summary("e", 3, "é" * 300),
        ]
    )
    assert len({name.casefold() for name in names.values()}) == len(names)
    for name in names.values():
        assert re.fullmatch(r"[\w+-]+", name), name
        assert len(name.encode()) <= 64
        assert name.upper() != "CON"


def test_thousand_runs_have_a_light_index(tmp_path: Path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        # The same row again and again: how many there are is what matters here.
        for number in range(3):
            emit(beamtime, {"plan_name": "scan", "scan_id": number})
        taken = beamtime.take_home(tmp_path / "home")
    index = (taken.path / "index.html").read_text()
    empty, _, rest = index.partition("<tbody>")
    rows = rest.partition("</tbody>")[0]
    assert len(rows) / 3 * 1000 + len(empty) < 600_000


# --------------------------------------------------------------- missing and damaged


def test_missing_frames_are_named_and_cost_nothing_else(
    path: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "elsewhere" / "cam1")
    lost = path.parent / "x.zarr/frames/scan_00007/cam1/cam1/c.0.0.0"
    raw = bytearray(lost.read_bytes())
    raw[-20] ^= 255
    lost.write_bytes(raw)
    taken = take_home(path, tmp_path / "home", exports=["csv", "tiff"])
    assert taken.runs == 2
    problems = "\n".join(taken.problems)
    assert "elsewhere/cam1" in problems
    assert "frames/scan_00007/cam1/cam1" in problems
    assert "was not exported as tiff" in problems
    assert str(taken.path.parent) + "/." not in problems
    readme = (taken.path / "README.txt").read_text()
    index = (taken.path / "index.html").read_text()
    assert "missing or damaged" in readme
    assert "missing or damaged" in index
    for page in ("7_scan", "7_scan_2"):
        assert "Missing or damaged" in (taken.path / f"runs/{page}.html").read_text()
    assert "exports/csv/7_scan.csv" in checked(taken.path)
    with Beamtime(taken.database, mode="r") as copy:
        assert copy[-1].primary.read(["counts"])["counts"].values.tolist()[0] == 3

    with pytest.raises(errors.ExportError, match="missing or damaged"):
        take_home(path, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()
    assert not hidden(tmp_path)


def test_what_a_format_cannot_hold_is_no_loss(
    path: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    with Beamtime(path) as beamtime:
        uid = emit(beamtime, {"scan_id": 8, "plan_name": "count"})
    taken = take_home(path, tmp_path / "home", exports=["tiff"], strict=True)
    assert taken.problems == ()
    (told,) = taken.unfit
    assert told.startswith(f"run 8 ({uid}) was not exported as tiff: ")
    readme = (taken.path / "README.txt").read_text()
    assert "missing or damaged" not in readme
    assert told in readme
    assert "issing or damaged" not in (taken.path / "index.html").read_text()
    pages = {page.stem: page.read_text() for page in taken.path.glob("runs/*.html")}
    assert [name for name, page in pages.items() if told in page] == ["8_count"]
    assert not [name for name, page in pages.items() if "issing or damaged" in page]
    words = ["beamtime", "take-home", path, tmp_path / "new", "-e", "tiff"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert told in capsys.readouterr().out


def test_pages_name_what_is_missing_by_its_place_in_the_folder(
    path: Path, tmp_path: Path
) -> None:
    shutil.rmtree(path.parent / "x.zarr/frames/scan_00007/cam1/cam1")
    taken = take_home(path, tmp_path / "home")
    text = (taken.path / "runs" / "7_scan.html").read_text()
    assert "array at &#39;x.zarr/frames/scan_00007/cam1/cam1&#39;" in text
    for file in (*taken.path.rglob("*.html"), taken.path / "README.txt"):
        # Not the hidden folder, either, in which it was made.
        assert ".beamtime-export" not in file.read_text()


@pytest.mark.parametrize("table", ["runs", "samples", "stream_resources"])
def test_damaged_database_is_named_and_nothing_is_left(
    path: Path, tmp_path: Path, table: str
) -> None:
    with Beamtime(path, mode="r") as beamtime:
        newest = beamtime[-1].uid
    damage(path, table)
    for runs in (None, [newest]):
        with pytest.raises(errors.BeamtimeFileError, match="is damaged") as caught:
            take_home(path, tmp_path / "home", runs=runs)
        assert str(path) in str(caught.value)
        assert ".beamtime-" not in str(caught.value)
    assert not (tmp_path / "home").exists()
    assert not hidden(tmp_path)


def test_journal_comes_along_and_is_named(path: Path, tmp_path: Path) -> None:
    with Beamtime(path, mode="r") as beamtime:
        uid = beamtime[-1].uid
    line = f'{{"run":"{uid}","name":"event","doc":{{}}}}\n'
    path.with_name("x.journal.jsonl").write_text(line)
    taken = take_home(path, tmp_path / "home")
    assert (taken.path / "x.journal.jsonl").read_text() == line
    assert any("not in the tables" in problem for problem in taken.problems)
    assert "incomplete" in (taken.path / "index.html").read_text()


def test_run_that_goes_on_is_labelled(tmp_path: Path) -> None:
    composed = event_model.compose_run(metadata={"scan_id": 5, "plan_name": "count"})
    with Beamtime(tmp_path / "x.db") as beamtime:
        beamtime("start", composed.start_doc)
        taken = beamtime.take_home(tmp_path / "home")
        assert taken.recording == (composed.start_doc["uid"],)
        page = (taken.path / "runs" / "5_count.html").read_text()
        assert "went on while it was copied" in page
        assert "recording" in (taken.path / "index.html").read_text()
        beamtime("stop", composed.compose_stop())


# --------------------------------------------------------------------------- refusals


def test_what_is_there_is_refused_and_left(path: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine").write_text("mine")
    with pytest.raises(errors.ExportError, match="is there already") as caught:
        take_home(path, home)
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(errors.ExportError, match="not made by taking"):
        take_home(path, home, overwrite=True)
    assert os.listdir(home) == ["mine"]
    for inside in (path.parent / "x.zarr" / "home", path.parent / "x_files"):
        with pytest.raises(errors.ExportError, match=r"the beamtime itself|no folder"):
            take_home(path, inside)
    with pytest.raises(errors.ExportError, match="no folder"):
        take_home(path, tmp_path / "no" / "where")
    with pytest.raises(errors.UnsupportedFormatError, match="nexus"):
        take_home(path, tmp_path / "new", exports=["docx"])
    with pytest.raises(errors.BeamtimeFileError):
        take_home(tmp_path / "nothing.db", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_earlier_copy_is_replaced_when_the_new_one_is_finished(
    path: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    take_home(path, home)
    with Beamtime(path) as beamtime:
        emit(beamtime, {"scan_id": 8, "plan_name": "count"})
    seen: list[int] = []

    def watch(what: str, done: int, total: int) -> None:
        seen.append(len(list((home / "runs").glob("*.html"))))

    take_home(path, home, overwrite=True, progress=watch)
    assert set(seen) == {2}
    assert len(list((home / "runs").glob("*.html"))) == 3
    checked(home)
    assert not hidden(tmp_path)


def test_what_was_added_to_an_earlier_copy_is_not_removed(
    path: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    take_home(path, home)
    (home / ".DS_Store").write_bytes(b"left by a desktop")
    (home / "x.db-shm").write_bytes(b"")
    take_home(path, home, overwrite=True)
    (home / "runs" / "fit.ipynb").write_text("a night's work")
    with pytest.raises(errors.ExportError, match=r"runs/fit\.ipynb.*move it"):
        take_home(path, home, overwrite=True)
    assert (home / "runs" / "fit.ipynb").read_text() == "a night's work"
    (home / "runs" / "fit.ipynb").unlink()
    (home / "MANIFEST.sha256").write_bytes(b"spoilt")
    with pytest.raises(errors.ExportError, match="not of the earlier copy"):
        take_home(path, home, overwrite=True)


def test_folder_is_not_replaced_by_a_part_of_itself(path: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    take_home(path, home)
    with Beamtime(home / "x.db", mode="r") as beamtime:
        newest = beamtime[-1].uid
    for target in (home, home / ".." / "home"):
        with pytest.raises(errors.ExportError, match="holds the beamtime itself"):
            take_home(home / "x.db", target, runs=[newest], overwrite=True)
    with Beamtime(home / "x.db", mode="r") as beamtime:
        assert len(beamtime) == 2
    checked(home)
    assert not hidden(tmp_path)


def test_run_that_is_not_there_is_no_empty_folder(path: Path, tmp_path: Path) -> None:
    with Beamtime(path, mode="r") as beamtime:
        newest = beamtime[-1].uid
    for runs in (["nothing"], [newest, newest[:8]]):
        with pytest.raises(errors.RunNotFoundError, match="there is no run"):
            take_home(path, tmp_path / "home", runs=runs)
    assert not (tmp_path / "home").exists()
    assert not hidden(tmp_path)


def test_files_of_detectors_may_lie_where_the_pages_go(tmp_path: Path) -> None:
    path = tmp_path / "beamline" / "x.db"
    path.parent.mkdir()
    with Beamtime(path) as beamtime:
        emit_run(beamtime, path.parent / "runs" / "cam", (HDF5Writer,))
    taken = take_home(path, tmp_path / "home")
    assert not taken.problems
    assert any(name.startswith("runs/cam/") for name in checked(taken.path))
    assert (taken.path / "runs" / "7_scan.html").is_file()


def test_space_is_looked_at_before_anything_is_copied(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        copying.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000)
    )
    with pytest.raises(
        errors.ExportError, match=r"needs .* MB.* 1\.0 MB free"
    ) as caught:
        take_home(path, tmp_path / "home")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "home").exists()
    assert not hidden(tmp_path)


def test_file_that_grows_faster_than_it_is_copied_has_an_end(tmp_path: Path) -> None:
    source = tmp_path / "shard"
    source.write_bytes(bytes(20 << 20))

    def grow(what: str, done: int, total: int) -> None:
        with source.open("ab") as file:
            file.write(bytes(16 << 20))

    folder = tmp_path / "copy"
    folder.mkdir()
    manifest = Manifest(folder)
    copy = copying.FolderCopy(folder, manifest, grow, 20 << 20)
    copy.add(Belonging("a/shard", source, "frames", 20 << 20, 5))
    manifest.write()
    assert (folder / "a" / "shard").stat().st_size == 20 << 20
    assert (folder / "a" / "shard").stat().st_mtime_ns == 5
    checked(folder)


def test_two_names_that_a_disk_takes_for_one_are_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FAT does with upper and lower case: nothing is written over."""
    plain = copying.FolderCopy.add
    monkeypatch.setattr(
        copying.FolderCopy,
        "add",
        lambda self, file: (plain(self, file), plain(self, file)),
    )
    with pytest.raises(errors.ExportError, match="File exists") as caught:
        take_home(path, tmp_path / "home")
    assert caught.value.errno == errno.EEXIST
    assert not (tmp_path / "home").exists()


def test_disk_that_keeps_no_times_is_good_enough(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **more: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(args[0]))

    monkeypatch.setattr(os, "utime", refuse)
    taken = take_home(path, tmp_path / "home")
    assert not taken.problems
    checked(taken.path)


def test_file_that_cannot_be_read_is_named(path: Path, tmp_path: Path) -> None:
    files = path.with_name("x_files")
    files.mkdir()
    (files / "gone").symlink_to("/proc/self/mem")
    taken = take_home(path, tmp_path / "home")
    assert any("x_files/gone was not copied" in problem for problem in taken.problems)
    assert not (taken.path / "x_files" / "gone").exists()
    checked(taken.path)


def test_names_of_any_kind_are_in_the_manifest(path: Path, tmp_path: Path) -> None:
    files = path.with_name("x_files")
    files.mkdir()
    names = ["a b", "back\\slash", "new\nline", "\\n", " begin", "*star", "-", "ü"]
    for name in names:
        (files / name).write_text(name)
    taken = take_home(path, tmp_path / "home")
    found = checked(taken.path)
    assert {f"x_files/{name}" for name in names} <= set(found)
    (taken.path / "x_files" / "new\nline").write_text("changed")
    command = ["sha256sum", "-c", "--quiet", "MANIFEST.sha256"]
    assert subprocess.run(command, cwd=taken.path, capture_output=True).returncode


@pytest.mark.parametrize("package", ["jinja2", "PIL"])
def test_missing_package_is_named_before_anything_is_done(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    from bluesky_beamtime.exports.takehome.pages import templates

    templates.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        errors.MissingExtraError, match=r"bluesky-beamtime\[take-home\]"
    ):
        take_home(path, tmp_path / "home")
    assert sorted(os.listdir(tmp_path)) == ["beamline", "elsewhere"]


# ------------------------------------------------------------------------ the command


def test_command_says_what_it_took(
    path: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["beamtime", "take-home", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0)

    home = tmp_path / "home"
    assert run(str(path), str(home), "-1", "--export", "csv") == 0
    told = capsys.readouterr().out
    assert told.startswith("1 run, ")
    assert f"open {home / 'index.html'}" in told
    assert run(str(path), str(home)) == 1
    assert "is there already" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "elsewhere" / "cam1")
    assert run(str(path), str(home), "--overwrite") == 3
    told = capsys.readouterr().out
    assert told.startswith("2 runs, ")
    assert "elsewhere/cam1" in told
    assert run(str(path), str(tmp_path / "new"), "--strict") == 1
