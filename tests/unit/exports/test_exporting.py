"""What every format shares: names, refusals, and nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import event_model
import pytest

from bluesky_beamtime import Beamtime, errors
from bluesky_beamtime.cli import main
from bluesky_beamtime.database import Run
from bluesky_beamtime.exports import ExportFiles, ExportFormat, RunContent
from bluesky_beamtime.plugins import plugin_names

from .conftest import key


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.part*")]


def test_formats_are_found_by_entry_points() -> None:
    names = "csv hdf5 jsonl msgpack netcdf nexus ome-tiff parquet spec tiff xlsx zarr"
    assert set(names.split()) <= set(plugin_names("bluesky_beamtime.exports"))


def test_unknown_format_names_those_there_are(run: Run, tmp_path: Path) -> None:
    with pytest.raises(errors.UnsupportedFormatError, match="nexus"):
        run.export(tmp_path / "x.docx", "docx")


def test_folder_gets_scan_id_and_plan(run: Run, tmp_path: Path) -> None:
    assert run.export(tmp_path, "nexus") == [tmp_path / "7_scan.nxs"]
    assert (tmp_path / "7_scan.nxs").is_file()


def test_folder_with_a_slash_is_made(run: Run, tmp_path: Path) -> None:
    (path,) = run.export(f"{tmp_path}/for/igor/", "hdf5")
    assert path.parent == tmp_path / "for" / "igor"
    assert path.is_file()
    (tmp_path / "file").touch()
    with pytest.raises(errors.ExportError, match=r"file.*cannot be made: "):
        run.export(f"{tmp_path}/file/", "hdf5")


@pytest.mark.parametrize("time", [1e15, -1e15])
def test_a_time_that_no_calendar_has_is_no_obstacle(
    tmp_path: Path, time: float
) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        made = event_model.compose_run(time=time, metadata={"plan_name": "odd"})
        beamtime("start", made.start_doc)
        stream = made.compose_descriptor("primary", {"x": key("number")})
        beamtime("descriptor", stream.descriptor_doc)
        event = stream.compose_event(data={"x": 1.0}, timestamps={"x": time})
        beamtime("event", event)
        for to in ("nexus", "spec", "csv"):
            (path,) = beamtime[-1].export(tmp_path / f"x.{to}", to)
            assert path.is_file()


def test_existing_file_is_refused_and_left(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.nxs"
    path.write_text("mine")
    with pytest.raises(errors.ExportError, match="is there already"):
        run.export(path, "nexus")
    assert path.read_text() == "mine"
    run.export(path, "nexus", overwrite=True)
    assert path.read_bytes().startswith(b"\x89HDF")
    assert not parts(tmp_path)


def test_failed_export_leaves_nothing(run: Run, tmp_path: Path) -> None:
    seen: list[str] = []

    def write(content: RunContent, files: ExportFiles) -> None:
        for path in files.several(["a", "b/c"]):
            path.write_text("half")
            seen.append(path.name)
        raise errors.StoreReadError("frames are gone")

    with pytest.raises(errors.StoreReadError):
        ExportFormat("odd", "odd", write)(run, tmp_path / "run.odd")
    assert len(seen) == 2
    assert seen == ["run-a.odd", "run-b_c.odd"]
    assert not [path for path in tmp_path.iterdir() if "odd" in path.name]


def test_file_has_its_name_only_when_it_is_finished(run: Run, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def watch(what: str, done: int, total: int) -> None:
        seen.append((what, done, total))
        assert not (tmp_path / "run.nxs").exists()
        assert parts(tmp_path)

    run.export(tmp_path / "run.nxs", "nexus", progress=watch)
    assert ("cam1", 5, 5) in seen
    assert (tmp_path / "run.nxs").exists()
    assert not parts(tmp_path)


def test_disk_that_refuses_is_one_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(errors.ExportError, match="No such file"):
        run.export(tmp_path / "nowhere" / "run.csv", "jsonl")


def test_missing_package_names_the_extra(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(errors.MissingExtraError, match=r"bluesky-beamtime\[export\]"):
        run.export(tmp_path / "run.h5", "hdf5")
    assert not parts(tmp_path)


def command(monkeypatch: pytest.MonkeyPatch, *words: Any) -> int:
    monkeypatch.setattr("sys.argv", ["beamtime", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_command_writes_and_prints_the_files(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = run.database.path
    out = tmp_path / "out"
    out.mkdir()
    words = ("export", file, "7", "--to", "nexus", "--out", out)
    assert command(monkeypatch, *words) == 0
    assert capsys.readouterr().out == f"{out / '7_scan.nxs'}\n"
    assert command(monkeypatch, *words) == 1
    assert "is there already" in capsys.readouterr().err
    assert command(monkeypatch, *words, "--overwrite") == 0
    capsys.readouterr()
    assert command(monkeypatch, "export", file, "-1", "--to", "csv", "-o", out) == 0
    assert "frames of map, cam1, cam2" in capsys.readouterr().err
