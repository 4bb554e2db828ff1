"""Faults that were found once, and must not come back."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import (
    MissingExtraError,
    PathError,
    SinkClosedError,
    StoreStateError,
    StoreWriteError,
)
from bluesky_beamtime.storage import (
    AcquisitionPathProvider,
    FrameSink,
    FrameStore,
    HDF5Writer,
    Writer,
    ZarrWriter,
    from_uri,
    get_available_writers,
    make_writer,
    open_frames,
    register_metadata,
    registry,
    repair_store,
    snapshot_metadata,
    verify_store,
)
from bluesky_beamtime.storage.layout import read_metadata
from bluesky_beamtime.storage.sharded_array import ShardedArray

FRAME = np.ones((2, 3), "<u2")
FORMATS = ["application/x-zarr", "application/x-hdf5"]


def begin(folder: Path, name: str = "cam", **options: Any) -> tuple[Writer, FrameSink]:
    writer = ZarrWriter.get(f"faults {folder}", **options)
    writer.set_uri(str(folder))
    sink = writer.prepare(name, None, "<u2", (2, 3))
    writer.kickoff()
    return writer, sink


class TestClosing:
    def test_a_close_that_failed_is_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        writer, sink = begin(tmp_path / "store")
        sink.write(FRAME)

        def refuse(self: ShardedArray, *, sync: bool = False) -> int:
            raise StoreWriteError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(ShardedArray, "publish", refuse)
            for _ in range(3):
                with pytest.raises(StoreWriteError, match="no space"):
                    sink.close()
            assert not writer.is_open
        sink.close()
        assert sink.frames_published == len(open_frames(sink.uri)) == 1
        sink.close()

    def test_what_failed_once_keeps_no_other_acquisition_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        store = FrameStore(tmp_path)
        sink = store.attach("cam", dtype="<u2", shape=(2, 3))
        sink.write(FRAME)

        def refuse(self: ShardedArray) -> None:
            raise StoreWriteError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(ShardedArray, "close", refuse)
            with pytest.raises(StoreWriteError):
                store.detach(sink)
            other = store.attach("cam", dtype="<u2", shape=(2, 3))
        other.write(FRAME)
        store.close()
        assert len(open_frames(other.uri)) == 1

    @pytest.mark.parametrize("mimetype", FORMATS)
    def test_attributes_of_a_closed_sink_are_refused(
        self, tmp_path: Path, mimetype: str
    ):
        with FrameStore(tmp_path, mimetype=mimetype) as store:
            sink = store.attach("cam", dtype="<u2", shape=(2, 3))
            sink.write(FRAME)
            sink.set_attributes({"a": 1})
            sink.close()
            with pytest.raises(SinkClosedError, match="'cam'"):
                sink.set_attributes({"a": 2})
        assert open_frames(sink.uri, sink.mimetype).attrs["a"] == 1


class TestFrameStoreClose:
    @pytest.mark.parametrize("mimetype", FORMATS)
    def test_everything_is_closed_and_forgotten(self, tmp_path: Path, mimetype: str):
        store = FrameStore(tmp_path, mimetype=mimetype)
        sinks = [store.attach(name, dtype="<u2", shape=(2, 3)) for name in "ab"]
        sinks[0].write(FRAME)
        store.close()
        assert all(sink.closed for sink in sinks)
        assert store.uri is None
        assert str(tmp_path) not in get_available_writers().get(mimetype, {})
        store.close()
        sink = store.attach("a", dtype="<u2", shape=(2, 3))
        assert sink.uri != sinks[0].uri
        store.close()

    def test_another_store_of_the_same_base_goes_on(self, tmp_path: Path):
        one, two = FrameStore(tmp_path), FrameStore(tmp_path)
        first = one.attach("a", dtype="<u2", shape=(2, 3))
        second = two.attach("b", dtype="<u2", shape=(2, 3))
        first.write(FRAME)
        one.close()
        assert first.closed and not second.closed
        second.write(FRAME)
        two.close()
        assert len(open_frames(second.uri)) == 1
        assert str(tmp_path) not in get_available_writers().get(
            "application/x-zarr", {}
        )


class TestRepair:
    def dead(self, folder: Path, frames: int) -> None:
        """Leave what a killed writer leaves: frames that no reader sees."""
        _, sink = begin(folder)
        for _ in range(frames):
            sink.write(FRAME)
        sink.close()
        array = folder / "cam"
        layout = ShardedArray.open(array).layout
        (array / "zarr.json").write_bytes(layout.to_json(1, {}))
        (array / ".reserve").write_bytes(b"")

    def test_a_live_store_is_skipped_and_named(self, tmp_path: Path):
        self.dead(tmp_path / "a", 3)
        self.dead(tmp_path / "c", 2)
        writer, sink = begin(tmp_path / "b")
        sink.write(FRAME)
        sink.publish()
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / "b").rglob("*")}
        report = repair_store(tmp_path)
        assert report.ok
        assert len(report.repaired) == 2
        (skipped,) = report.skipped
        assert "live" in skipped and str(tmp_path / "b") in skipped
        assert set(report.arrays) == {"a/cam", "c/cam"}
        assert {p: p.stat().st_mtime_ns for p in (tmp_path / "b").rglob("*")} == before
        assert not (tmp_path / "a" / "cam" / ".reserve").exists()
        sink.write(FRAME)
        writer.abort()
        assert len(open_frames(sink.uri)) == 2
        assert len(open_frames(tmp_path / "a" / "cam")) == 3
        assert repair_store(tmp_path).skipped == []

    def test_the_live_store_itself_is_refused(self, tmp_path: Path):
        _, sink = begin(tmp_path / "b")
        sink.write(FRAME)
        for place in (tmp_path, tmp_path / "b", tmp_path / "b" / "cam"):
            with pytest.raises(StoreStateError, match="live"):
                repair_store(place)

    def test_a_live_file_beside_a_dead_store(self, tmp_path: Path):
        pytest.importorskip("h5py")
        self.dead(tmp_path / "a", 3)
        writer = HDF5Writer.get("faults")
        writer.set_uri(str(tmp_path / "b"))
        sink = writer.prepare("cam", None, "<u2", (2, 3))
        writer.kickoff()
        sink.write(FRAME)
        report = repair_store(tmp_path)
        assert len(report.skipped) == 1
        assert set(report.arrays) == {"a/cam"}
        writer.abort()
        assert verify_store(tmp_path).ok


class TestMetadata:
    def test_another_writer_that_kicks_off_between_takes_nothing_away(
        self, tmp_path: Path
    ):
        """Registered; another begins; prepared; the other ends; kicked off."""
        register_metadata("cam", {"gain": 3})
        _, foreign = begin(tmp_path / "other", "foreign")
        writer = ZarrWriter.get("mine")
        writer.set_uri(str(tmp_path / "mine"))
        sink = writer.prepare("cam", None, "<u2", (2, 3))
        foreign.write(FRAME)
        foreign.close()
        assert "cam" not in snapshot_metadata()
        writer.kickoff()
        sink.close()
        assert open_frames(sink.uri).attrs["metadata"] == {"gain": 3}
        group = read_metadata(tmp_path / "mine")
        assert group["attributes"]["metadata"] == {"cam": {"gain": 3}}

    def test_of_a_frame_store_is_never_seen_by_others(self, tmp_path: Path):
        with FrameStore(tmp_path / "one") as store:
            sink = store.attach("cam", dtype="<u2", shape=(2, 3), metadata={"gain": 4})
            late = store.attach("late", dtype="<u2", shape=(2, 3), metadata={"gain": 5})
            assert snapshot_metadata() == {}
            _, foreign = begin(tmp_path / "other", "foreign")
            assert "metadata" not in read_metadata(tmp_path / "other")["attributes"]
            foreign.close()
            assert open_frames(sink.uri).attrs["metadata"] == {"gain": 4}
            assert open_frames(late.uri).attrs["metadata"] == {"gain": 5}


def test_the_number_of_a_folder_is_looked_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    provider = AcquisitionPathProvider(tmp_path)
    day = Path(from_uri(provider("scan").store_uri)).parent
    for number in range(2, 400):
        (day / f"scan_{number}").mkdir()
    (day / "scan_x_7000").mkdir()
    (day / "scan_20261121000").mkdir()
    tried: list[str] = []
    mkdir = Path.mkdir

    def counted(self: Path, *args: Any, **kwargs: Any) -> None:
        tried.append(self.name)
        mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", counted)
    assert from_uri(provider("scan").store_uri).endswith(f"{os.sep}scan_400")
    assert [name for name in tried if name.startswith("scan")] == ["scan_400"]
    assert from_uri(provider("scan_x").store_uri).endswith("scan_x")


class TestFormats:
    def test_an_absent_package_of_an_entry_point_is_named(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        entry = EntryPoint("application/x-lacking", "no_such_package.x:Y", "group")
        monkeypatch.setattr(registry, "entry_points", lambda **_: [entry])
        with pytest.raises(MissingExtraError, match="no_such_package") as caught:
            make_writer("application/x-lacking")
        assert "pip install 'no_such_package'" in str(caught.value)
        assert isinstance(caught.value, ImportError)

    @pytest.mark.parametrize("mimetype", FORMATS)
    def test_stock_formats_need_no_import(self, mimetype: str):
        writer = make_writer(mimetype, "stock")
        assert writer.mimetype == mimetype
        assert get_available_writers()[mimetype]["stock"] is writer
        names = {entry.name for entry in entry_points(group=registry.ENTRY_POINT_GROUP)}
        assert "application/x-zarr" in names

    @pytest.mark.parametrize("url", ["s3://bucket/scan", "gs://b/x", "az://c/x"])
    def test_an_object_store_is_refused_with_the_way_there(self, url: str):
        with pytest.raises(PathError, match="StoreUploader"):
            ZarrWriter.get("remote").set_uri(url)
