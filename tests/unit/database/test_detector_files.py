"""HDF5 files that detectors write themselves: found, checked, and read."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run
from typer.testing import CliRunner

from bluesky_beamtime import Beamtime
from bluesky_beamtime.cli import app
from bluesky_beamtime.errors import StoreReadError
from bluesky_beamtime.storage import hdf5_dataset

h5py = pytest.importorskip("h5py")

FRAMES = np.arange(10)[:, np.newaxis, np.newaxis] * np.ones((2, 3))


def write(file: Path, frames: Any = FRAMES, dataset: str = "entry/data") -> None:
    with h5py.File(file, "w") as opened:
        opened[dataset] = frames


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Return a beamtime with a run of ten events, and the file of their frames."""

    def make(first: int = 0, each: int = 1, events: int = 10) -> tuple[Path, Path]:
        path, file = tmp_path / "x.db", tmp_path / "x_files" / "cam.h5"
        file.parent.mkdir()
        write(file)
        run = compose_run()
        shape = [each, 2, 3]
        key = {"dtype": "array", "shape": shape, "source": "s", "external": "STREAM:"}
        stream = run.compose_descriptor(name="primary", data_keys={"cam": key})
        bundle = run.compose_stream_resource(
            data_key="cam",
            mimetype="application/x-hdf5",
            uri=f"file://localhost{file}",
            parameters={"dataset": "entry/data"},
        )
        indices = {"start": first, "stop": first + events}
        seq_nums = {"start": 1, "stop": events + 1}
        with Beamtime(path) as beamtime:
            beamtime("start", run.start_doc)
            beamtime("descriptor", stream.descriptor_doc)
            beamtime("stream_resource", bundle.stream_resource_doc)
            datum = bundle.compose_stream_datum(
                indices, seq_nums, stream.descriptor_doc
            )
            beamtime("stream_datum", datum)
            beamtime("stop", run.compose_stop())
        return path, file

    return make


def told(path: Path) -> list[tuple[str, str]]:
    with Beamtime(path, mode="r") as beamtime:
        report = beamtime.verify()
        assert report.checked["HDF5 files"] == 1
        assert report.ok == (not report.problems)
        return [(each.kind, each.what) for each in report.problems]


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (cut, "cannot read"),
        (lambda file: file.write_bytes(bytes(1000)), "cannot read"),
        (lambda file: file.write_bytes(b""), "cannot read"),
        (lambda file: write(file, dataset="entry/other"), "no dataset 'entry/data'"),
        (lambda file: write(file, FRAMES[:4]), "10 frames are promised, 4 can be read"),
        (lambda file: write(file, FRAMES[:0]), "10 frames are promised, 0 can be read"),
        (lambda file: write(file, 1.0), "one value, not frames"),
        (Path.unlink, "cannot read"),
    ],
)
def test_file_that_is_not_whole_is_told(make: Any, spoil: Any, what: str) -> None:
    """And reading it fails as reading does; the run still has a picture of itself."""
    path, file = make()
    assert told(path) == []
    spoil(file)
    ((kind, sentence),) = told(path)
    assert kind == "frames" and what in sentence
    result = CliRunner().invoke(app, ["verify", str(path)])
    assert result.exit_code == 1 and "all is well" not in result.stdout
    with Beamtime(path, mode="r") as beamtime:
        run = beamtime[-1]
        with pytest.raises(StoreReadError, match=r"cannot read|no dataset|holds|value"):
            np.asarray(run.primary.read("cam")["cam"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert "stream primary" in run._repr_html_()


@pytest.mark.parametrize("chunks", ["auto", None])
def test_frames_that_are_there_are_read(make: Any, chunks: Any) -> None:
    path, file = make()
    write(file, FRAMES[:4])
    with Beamtime(path, mode="r") as beamtime:
        cam = beamtime[-1].primary.read(chunks=chunks)["cam"]
        np.testing.assert_array_equal(cam[:4], FRAMES[:4])
        for part in (cam[2:], cam[[0, 9]], cam[4]):
            with pytest.raises(StoreReadError, match=r"frames [49] to .*cam.h5' holds"):
                np.asarray(part)
        # What was written meanwhile is there.
        write(file)
        np.testing.assert_array_equal(cam, FRAMES)


@pytest.mark.parametrize("frames", ["external", "embedded"])
def test_frames_that_are_not_there_are_not_exported(make: Any, frames: str) -> None:
    path, file = make()
    write(file, FRAMES[:4])
    with (
        Beamtime(path, mode="r") as beamtime,
        pytest.raises(StoreReadError, match="frames 4 to 9 were promised"),
    ):
        beamtime[-1].export(path.with_name("x.nxs"), "nexus", frames=frames)
    assert not path.with_name("x.nxs").exists()


def test_frames_before_the_first_are_told(make: Any) -> None:
    path, _ = make(first=-2)
    assert told(path) == [
        ("frames", "frames from -2 on are promised, there is none before 0")
    ]
    with (
        Beamtime(path, mode="r") as beamtime,
        pytest.raises(StoreReadError, match="frames -2 to -1 were promised"),
    ):
        np.asarray(beamtime[-1].primary.read()["cam"])


def test_several_frames_of_an_event_are_counted(make: Any) -> None:
    path, file = make(each=2, events=5)
    assert told(path) == []
    write(file, FRAMES[:9])
    assert told(path) == [("frames", "10 frames are promised, 9 can be read")]


def test_without_h5py_nobody_says_that_it_is_well(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = make()

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(hdf5_dataset, "import_module", absent)
    ((kind, sentence),) = told(path)
    assert kind == "frames" and "not checked" in sentence
    assert "bluesky-beamtime[hdf5]" in sentence


WRITER = """
import sys, h5py
file = h5py.File(sys.argv[1], "a", libver="latest")
if sys.argv[2] == "swmr":
    file.swmr_mode = True
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["swmr", "locked"])
def test_file_that_is_being_written_is_not_broken(make: Any, mode: str) -> None:
    """By another process, with or without a way in for readers."""
    path, file = make()
    with h5py.File(file, "w", libver="latest") as opened:
        opened["entry/data"] = FRAMES
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", WRITER, str(file), mode]
    environment = os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE"}
    with subprocess.Popen(command, env=environment, **pipes) as writer:
        assert writer.stdout is not None and writer.stdin is not None
        assert writer.stdout.readline() == b"open\n"
        assert told(path) == []
        writer.stdin.close()
        assert writer.wait(60) == 0
    assert told(path) == []


def test_damage_of_any_kind_cannot_be_read(tmp_path: Path) -> None:
    """The HDF5 library tells of it by several exceptions."""
    file = tmp_path / "x.h5"
    write(file)
    whole = file.read_bytes()
    for place in range(0, 2048, 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        try:
            hdf5_dataset.HDF5Dataset(file, "entry/data")
        except StoreReadError:
            continue
