"""NeXus files, read back by nexusformat and h5py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from nexusformat.nexus import nxload
from nexusformat.nexus.validate import validate_file

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.storage import HDF5Writer, ZarrWriter

from . import conftest as sent
from .kinds import KINDS, Emitter


def test_everything_comes_back_with_names_and_units(run: Run, tmp_path: Path) -> None:
    (path,) = run.export(tmp_path / "run.nxs", "nexus")
    root: Any = nxload(path)
    entry = root.entry
    assert entry.nxclass == "NXentry"
    assert entry.entry_identifier.nxvalue == run.uid
    assert entry.title.nxvalue == "run 7: scan"
    assert entry.sample.nxclass == "NXsample"
    assert entry.sample["name"].nxvalue == "LaB6"
    places = {
        "x": "x/x",
        "counts": "det/counts",
        "word": "det/word",
        "spectrum": "det/spectrum",
        "map": "det/map",
        "cam1": "cam1/cam1",
        "cam2": "cam2/cam2",
    }
    for key, place in places.items():
        field = entry.instrument[place]
        got = np.asarray(field.nxdata)
        if key == "word":
            assert [value.decode() for value in got.tolist()] == sent.WORDS
        else:
            np.testing.assert_array_equal(got, sent.EXPECTED[key])
            assert got.dtype == sent.EXPECTED[key].dtype
        assert field.attrs.get("units") == sent.DATA_KEYS[key].get("units")
        assert field.attrs["bluesky_name"] == key
    assert entry.instrument.x.nxclass == "NXpositioner"
    assert entry.instrument.cam1.nxclass == "NXdetector"
    np.testing.assert_array_equal(entry.instrument.cam1.data.nxdata, sent.CAM1)
    gain = entry.instrument.det.configuration.gain
    assert (float(gain.nxdata), gain.attrs["units"]) == (2.5, "dB")
    stamps = entry.instrument.x.x_timestamps
    np.testing.assert_array_equal(stamps.nxdata, 100.0 + np.arange(5))


def test_default_plot_is_the_hinted_signal_against_the_motor(
    run: Run, tmp_path: Path
) -> None:
    (path,) = run.export(tmp_path / "run.nxs", "nexus")
    root: Any = nxload(path)
    plot = root.plottable_data
    assert plot.nxpath == "/entry/primary"
    assert plot.nxsignal.nxname == "counts"
    assert [axis.nxname for axis in plot.nxaxes] == ["x"]
    np.testing.assert_array_equal(plot.nxaxes[0].nxdata, sent.X)
    np.testing.assert_array_equal(plot["time"].nxdata, 200.0 + np.arange(5))


def test_each_camera_has_a_plot_of_its_own(run: Run, tmp_path: Path) -> None:
    (path,) = run.export(tmp_path / "run.nxs", "nexus")
    root: Any = nxload(path)
    for key, shape in (("cam1", (5, 8, 6)), ("cam2", (5, 2, 4, 5))):
        plot = root.entry[f"primary_{key}"]
        assert plot.nxclass == "NXdata"
        assert plot.nxsignal.shape == shape
        assert plot.nxaxes[0].nxname == "x"


def test_frames_of_hdf5_files_can_be_linked(tmp_path: Path) -> None:
    """Links are relative: the folder can move with its export."""
    pytest.importorskip("hdf5plugin")
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    with Beamtime(before / "x.db") as beamtime:
        uid = sent.emit_run(beamtime, before / "frames", (HDF5Writer,))
        (path,) = beamtime[uid].export(before / "run.nxs", "nexus", frames="external")
    before.rename(after)
    with h5py.File(after / path.name) as file:
        np.testing.assert_array_equal(file["entry/primary_cam1/cam1"], sent.CAM1)
        assert file["entry/instrument/cam1/cam1"].is_virtual
    os.rename(after / "frames", after / "elsewhere")
    with h5py.File(after / path.name) as file:
        assert not file["entry/instrument/cam1/cam1"][...].any()


def test_several_frames_of_an_event_can_be_linked(tmp_path: Path) -> None:
    """Also where an event was repeated after a pause, and frames lie apart."""
    pytest.importorskip("hdf5plugin")
    stack = np.arange(8 * 3 * 5, dtype="u2").reshape(8, 3, 5)
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = Emitter(beamtime, tmp_path)
        run.describe("primary", {}, {"cam": (stack, 2, HDF5Writer)})
        kind = run.stop()
        (path,) = beamtime[kind.uid].export(tmp_path, "nexus", frames="external")
    with h5py.File(path) as file:
        linked = file["entry/instrument/cam/cam"]
        assert linked.is_virtual
        np.testing.assert_array_equal(linked, stack.reshape(4, 2, 3, 5))
    assert path.stat().st_size < 64 << 10


@pytest.mark.parametrize("frames", ["frames", "50%beam", "a%b"])
def test_links_hold_through_linked_folders(tmp_path: Path, frames: str) -> None:
    """Both ends by way of a symbolic link, and opened by way of it or not."""
    pytest.importorskip("hdf5plugin")
    stack = np.arange(1, 25, dtype="u2").reshape(4, 2, 3)
    for folder in ("disk/raw", "far/away/exports"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "raw").symlink_to(tmp_path / "disk" / "raw")
    (tmp_path / "out").symlink_to(tmp_path / "far" / "away" / "exports")
    with Beamtime(tmp_path / "raw" / "x.db") as beamtime:
        run = Emitter(beamtime, tmp_path / "raw" / frames)
        run.describe("primary", {}, {"cam": (stack, 1, HDF5Writer)})
        found = beamtime[run.stop().uid]
        (path,) = found.export(tmp_path / "out" / "x.nxs", "nexus", frames="external")
    for way in (path, path.resolve()):
        with h5py.File(way) as file:
            linked = file["entry/instrument/cam/cam"]
            assert linked.is_virtual
            np.testing.assert_array_equal(linked, stack)


def check_structure(path: Path) -> None:
    """Check by h5py alone what readers rely on to find and draw a plot."""
    with h5py.File(path) as root:
        plots: list[h5py.Group] = []

        def look(name: str, node: Any) -> None:
            if isinstance(node, h5py.Group):
                assert str(node.attrs["NX_class"]).startswith("NX"), name
            if node.attrs.get("NX_class") == "NXdata":
                plots.append(node)

        root.visititems(look)
        assert root.attrs["NX_class"] == "NXroot"
        entry = root[root.attrs["default"]]
        if "default" in entry.attrs:
            assert entry[entry.attrs["default"]] in plots
        else:
            assert not plots
        for plot in plots:
            signal = plot[plot.attrs["signal"]]
            axes = plot.attrs["axes"].tolist()
            assert len(axes) == signal.ndim
            for place, axis in enumerate(axes):
                if axis != ".":
                    assert plot.attrs[f"{axis}_indices"] == place
                    assert plot[axis].shape == (signal.shape[place],)
            for name in plot.attrs.get("auxiliary_signals", ()):
                assert plot[name].shape == signal.shape
            for name in plot.attrs:
                if name.endswith("_indices"):
                    assert name.removesuffix("_indices") in plot
            assert plot["time"].attrs["units"] == "s"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_run_is_valid(tmp_path: Path, name: str) -> None:
    """By the definitions of the NeXus base classes, as nexusformat has them."""
    with Beamtime(tmp_path / "x.db", sample="LaB6") as beamtime:
        uid = KINDS[name](beamtime, tmp_path).uid
        beamtime[uid].note("the beam was away")
        (path,) = beamtime[uid].export(tmp_path / "run.nxs", "nexus")
    _, errors = validate_file(path)
    assert errors == 0
    check_structure(path)


@pytest.mark.parametrize(
    "name", ["bluesky", "instrument", "title", "user_1", "default"]
)
def test_a_stream_may_be_called_as_a_part_of_the_file(
    tmp_path: Path, name: str
) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = Emitter(beamtime, tmp_path)
        run.table(name, {"x": {}}, [{"x": 1.5}])
        uid = run.stop().uid
        (path,) = beamtime[uid].export(tmp_path / "run.nxs", "nexus")
    with h5py.File(path) as root:
        entry = root["entry"]
        assert entry["bluesky/streams"].asstr()[...].tolist() == [name]
        (plot,) = (
            group for group in entry.values() if group.attrs.get("bluesky_name") == name
        )
        assert plot["x"][...].tolist() == [1.5]
    check_structure(path)


def test_frames_that_cannot_be_linked_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="frames='embedded'"):
        run.export(tmp_path / "run.nxs", "nexus", frames="external")
    with pytest.raises(ExportError, match="frames='embedded' or 'external', not 'no'"):
        run.export(tmp_path / "run.nxs", "nexus", frames="no")
    assert not list(tmp_path.glob("*.nxs"))


def test_cut_off_camera_keeps_its_rows_apart(tmp_path: Path) -> None:
    """No row of another field is lost because a camera stopped early."""
    with Beamtime(tmp_path / "x.db") as beamtime:
        uid = sent.emit_run(beamtime, tmp_path / "frames", (ZarrWriter,), stored=3)
        (path,) = beamtime[uid].export(tmp_path / "run.nxs", "nexus")
    with h5py.File(path) as root:
        device = root["entry/instrument/cam1"]
        np.testing.assert_array_equal(device["cam1"], sent.CAM1[:3])
        np.testing.assert_array_equal(device["cam1_seq_num"], [1, 2, 3])
        np.testing.assert_array_equal(root["entry/instrument/x/x"], sent.X)
        plot = root["entry/primary_cam1"]
        assert plot.attrs["axes"].tolist() == ["time", ".", "."]
        np.testing.assert_array_equal(plot["time"], [200.0, 201.0, 202.0])


def test_fly_scan_with_two_cameras_opens_with_its_plot(RE: Any, tmp_path: Path) -> None:
    from ophyd_async.core import init_devices
    from ophyd_async.sim import SimMotor

    from bluesky_beamtime.devices import SimCamera
    from bluesky_beamtime.plans import fly_scan

    with Beamtime(tmp_path / "x.db", sample="LaB6") as beamtime:
        beamtime.attach(RE, report=False)
        with init_devices():
            x = SimMotor()
            cam1 = SimCamera(beamtime.frames, motor=x, shape=(16, 12), exposure=0.01)
            cam2 = SimCamera(beamtime.frames, motor=x, shape=(8, 10), exposure=0.01)
        RE(fly_scan([cam1, cam2], x, -1, 1, 12))
        run = beamtime[-1]
        (path,) = run.export(tmp_path, "nexus")
        frames = {key: run["primary"].frames(key)[:] for key in ("cam1", "cam2")}
        at = run["primary"].read()["cam1_x"].values
    check_structure(path)
    assert validate_file(path)[1] == 0
    root: Any = nxload(path)
    plot = root.plottable_data
    assert plot.nxpath == "/entry/primary_cam1"
    assert plot.nxsignal.shape == (12, 16, 12)
    assert plot.nxaxes[0].nxname == "cam1_x"
    np.testing.assert_array_equal(plot.nxaxes[0].nxdata, at)
    assert plot.nxaxes[0].attrs["units"] == "mm"
    for key, expected in frames.items():
        data = root.entry.instrument[key].data
        np.testing.assert_array_equal(data.nxdata, expected)
        assert root.entry[f"primary_{key}"].nxsignal.shape == expected.shape
