"""A writer and its paths, shared by the devices of one acquisition."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bluesky_beamtime.errors import (
    PathError,
    SinkClosedError,
    StoreStateError,
    StoreWriteError,
    UnsupportedFormatError,
)
from bluesky_beamtime.storage import (
    FrameSink,
    FrameStore,
    PathInfo,
    SessionPathProvider,
    from_uri,
    get_available_writers,
    open_frames,
    repair_store,
    stream_resource_doc,
    to_uri,
)

FRAME = np.arange(24, dtype="<u2").reshape(4, 6)


def attach(store: FrameStore, name: str, **options: Any) -> FrameSink:
    return store.attach(name, **{"dtype": "<u2", "shape": (4, 6), **options})


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return FrameStore(tmp_path / "frames")


def test_two_cameras_share_one_store(store: FrameStore):
    """R-17: the first attach opens it, the last detach closes it."""
    assert store.uri is None
    one = attach(store, "cam1")
    uri = store.uri
    two = attach(store, "cam2")
    assert uri is not None and store.uri == uri
    assert {one.uri, two.uri} == {f"{uri}/cam1", f"{uri}/cam2"}
    one.write(FRAME)
    two.write(FRAME)
    store.detach(one)
    assert store.uri == uri and store.writer.is_open
    store.detach(two)
    store.detach(two)
    assert store.uri is None and not store.writer.is_open
    group = zarr.open_group(from_uri(uri), mode="r")
    assert sorted(group.array_keys()) == ["cam1", "cam2"]


def test_a_late_camera_joins_while_the_first_one_writes(store: FrameStore):
    """R-15: in a step scan one detector writes before the other has prepared."""
    one = attach(store, "cam1")
    one.write(FRAME)
    two = attach(store, "cam2")
    two.write(FRAME)
    one.write(FRAME)
    for sink, count in ((one, 2), (two, 1)):
        store.detach(sink)
        assert len(open_frames(sink.uri)) == count


def test_each_acquisition_has_its_own_store(store: FrameStore):
    """R-34: numbered, one after another."""
    names = []
    for _ in range(3):
        sink = attach(store, "cam")
        sink.write(FRAME)
        names.append(os.path.basename(from_uri(store.uri or "")))
        store.detach(sink)
    assert names == [f"acquisition_{number:05d}" for number in range(3)]


def test_names_people_can_read(tmp_path: Path):
    """The acquisition is named once, when its first device attaches."""
    asked = []

    def name() -> str:
        asked.append(1)
        return "en_scan_00214"

    store = FrameStore(tmp_path, name=name)
    for expected in ("en_scan_00214", "en_scan_00214_2"):
        sinks = [attach(store, "cam1"), attach(store, "cam2")]
        assert os.path.basename(from_uri(store.uri or "")) == expected
        for sink in sinks:
            store.detach(sink)
    assert len(asked) == 2


def test_the_whole_is_one_zarr_hierarchy(tmp_path: Path):
    """Every folder from the base down is a group, before the first frame."""
    store = FrameStore(tmp_path / "x.zarr", name=lambda: "scan_00001")
    sink = attach(store, "cam")
    root = zarr.open_group(tmp_path / "x.zarr", mode="r")
    (day,) = root.group_keys()
    array = root[f"{day}/scan_00001/cam"]
    assert array.shape == (0, 4, 6)
    sink.write(FRAME)
    sink.publish()
    np.testing.assert_array_equal(root[f"{day}/scan_00001/cam"][:], [FRAME])
    store.detach(sink)


def test_a_name_that_was_used_gets_a_number(store: FrameStore):
    """A device that comes back within one acquisition writes a new array."""
    keeper = attach(store, "keeper")
    keeper.write(FRAME)
    names = []
    for _ in range(3):
        sink = attach(store, "cam")
        sink.write(FRAME)
        names.append(sink.name)
        assert sink.data_key == "cam"
        store.detach(sink)
    assert names == ["cam", "cam_2", "cam_3"]
    assert attach(store, "cam_2").name == "cam_2_2"


def test_two_devices_of_one_name_at_once_are_refused(store: FrameStore):
    """R-17: the second would not be told apart in the documents."""
    sink = attach(store, "cam")
    with pytest.raises(StoreStateError, match="data key"):
        attach(store, "cam")
    sink.write(FRAME)
    store.detach(sink)
    assert len(open_frames(sink.uri)) == 1


def test_a_camera_that_never_wrote_does_not_hold_the_store_up(store: FrameStore):
    """R-33: in whatever order they are detached."""
    cam, idle = attach(store, "cam"), attach(store, "idle")
    cam.write(FRAME)
    store.detach(cam)
    assert not store.writer.is_open
    store.detach(idle)
    assert store.uri is None
    assert len(open_frames(idle.uri)) == 0
    cam = attach(store, "cam")
    with pytest.raises(SinkClosedError):
        idle.write(FRAME)
    store.detach(cam)


def test_hostile_names_are_escaped(store: FrameStore, tmp_path: Path):
    """Gate R10: the array is inside the store, the data key is the name itself."""
    sink = attach(store, "../../cam 1/ä\0")
    assert os.path.dirname(from_uri(sink.uri)) == from_uri(store.uri or "")
    assert sink.data_key == "../../cam 1/ä\0"
    sink.write(FRAME)
    store.detach(sink)
    assert os.listdir(tmp_path) == ["frames"]


def test_a_hostile_acquisition_is_refused(tmp_path: Path):
    """Gate R10: nothing is created and the store can be used again."""
    names = iter(["../../x", "a/b", "fine"])
    store = FrameStore(tmp_path / "frames", name=lambda: next(names))
    for _ in range(2):
        with pytest.raises(PathError):
            attach(store, "cam")
        assert not list(tmp_path.iterdir())
        assert store.uri is None
    store.detach(attach(store, "cam"))


@pytest.mark.parametrize("wrong", [{"dtype": "U3"}, {"shape": (-1,)}, {"nope": 1}])
def test_an_attach_that_fails_leaves_no_store_behind(
    store: FrameStore, tmp_path: Path, wrong: dict[str, Any]
):
    """R-28: neither a folder without metadata nor a source."""
    with pytest.raises((TypeError, ValueError)):
        attach(store, "cam", **wrong)
    assert store.uri is None
    (day,) = (path for path in (tmp_path / "frames").iterdir() if path.is_dir())
    assert [path.name for path in day.iterdir()] == ["zarr.json"]
    sink = attach(store, "cam")
    with pytest.raises((TypeError, ValueError)):
        attach(store, "other", **wrong)
    sink.write(FRAME)
    store.detach(sink)
    assert len(open_frames(sink.uri)) == 1


def test_options_go_to_the_writer_and_to_the_source(tmp_path: Path):
    """The store's own are the default, those of an attach win."""
    store = FrameStore(tmp_path, compression="lz4", frames_per_shard=2)
    one = attach(store, "one")
    two = attach(store, "two", compression="none", checksum=False, units="counts")
    codecs = []
    for sink in (one, two):
        sink.write_many([FRAME] * 3)
        store.detach(sink)
        array = zarr.open_array(from_uri(sink.uri), mode="r")
        assert array.shards == (2, 4, 6)
        codecs.append(
            [
                c["name"]
                for c in array.metadata.to_dict()["codecs"][0]["configuration"][
                    "codecs"
                ]
            ]
        )
    assert codecs == [["bytes", "blosc", "crc32c"], ["bytes"]]
    assert open_frames(two.uri).units == "counts"


def test_metadata_of_the_device(store: FrameStore):
    """R-67: in the attributes of its array and of the store, late or not."""
    one = attach(store, "one", metadata={"gain": 1})
    two = attach(store, "two", metadata={"gain": 2})
    group = zarr.open_group(from_uri(store.uri or ""), mode="r")
    assert group.attrs["metadata"] == {"one": {"gain": 1}, "two": {"gain": 2}}
    assert open_frames(one.uri).attrs["metadata"] == {"gain": 1}
    assert open_frames(two.uri).attrs["metadata"] == {"gain": 2}
    for sink in (one, two):
        store.detach(sink)


def test_a_path_provider_is_asked_once_per_acquisition(tmp_path: Path):
    """R-53: any callable that says where."""
    asked: list[tuple[str | None, str | None]] = []

    def provider(key: str | None = None, group: str | None = None) -> PathInfo:
        asked.append((key, group))
        return PathInfo(to_uri(tmp_path / f"store {len(asked)}"), "x")

    store = FrameStore(provider, name=lambda: "scan")
    for number in (1, 2):
        sinks = [attach(store, "cam1"), attach(store, "cam2")]
        assert from_uri(store.uri or "") == str(tmp_path / f"store {number}")
        for sink in sinks:
            sink.write(FRAME)
            store.detach(sink)
    assert asked == [("scan", None)] * 2


def test_a_session_path_provider_reserves_and_the_store_fills(tmp_path: Path):
    """R-54: the reserved folder is empty, so it is no store that holds frames."""
    store = FrameStore(SessionPathProvider(tmp_path), name=lambda: "snap")
    sink = attach(store, "cam")
    sink.write(FRAME)
    store.detach(sink)
    assert "/snap_00000/cam" in sink.uri
    assert len(open_frames(sink.uri)) == 1


def test_stores_of_two_providers_never_share_a_writer(tmp_path: Path):
    """A store that is gone leaves nothing to the next one in its memory."""
    writers = set()
    for number in range(5):
        provider = SessionPathProvider(tmp_path / str(number))
        store = FrameStore(provider, compression=("none", "lz4")[number % 2])
        store.detach(attach(store, "cam"))
        writers.add(store.writer.name)
        del store, provider
        gc.collect()
    assert len(writers) == 5


def test_stores_of_one_base_share_a_writer(tmp_path: Path):
    """However the base is written."""
    os.mkdir(tmp_path / "link target")
    os.symlink(tmp_path / "link target", tmp_path / "link")
    one = FrameStore(tmp_path / "link")
    two = FrameStore(tmp_path / "x" / ".." / "link target")
    assert one.writer is two.writer
    assert len(get_available_writers()["application/x-zarr"]) == 1
    cam = attach(one, "cam")
    other = attach(two, "other")
    assert cam.uri.rpartition("/")[0] == other.uri.rpartition("/")[0]
    cam.close()
    other.close()


def test_threads_that_attach_at_once_share_one_store(store: FrameStore):
    """Eight devices of one acquisition, prepared at the same moment."""
    start = threading.Barrier(8)
    sinks: list[FrameSink] = []

    def work(number: int) -> None:
        start.wait(30)
        sink = attach(store, f"cam{number}")
        sink.write(FRAME + number)
        sinks.append(sink)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({sink.uri.rpartition("/")[0] for sink in sinks}) == 1
    for sink in sinks:
        store.detach(sink)
    for sink in sinks:
        np.testing.assert_array_equal(
            open_frames(sink.uri)[:], [FRAME + int(sink.name[3:])]
        )


def test_unknown_formats_are_refused_when_used(tmp_path: Path):
    store = FrameStore(tmp_path, mimetype="application/x-nothing")
    with pytest.raises(UnsupportedFormatError):
        attach(store, "cam")


def test_a_base_that_cannot_be_a_folder(tmp_path: Path):
    (tmp_path / "frames").write_text("a file")
    store = FrameStore(tmp_path / "frames")
    with pytest.raises(StoreWriteError) as caught:
        attach(store, "cam")
    assert caught.value.errno is not None
    assert store.uri is None


def test_repair_refuses_a_store_that_is_being_written(store: FrameStore):
    sink = attach(store, "cam")
    sink.write(FRAME)
    with pytest.raises(StoreStateError, match="live"):
        repair_store(store.uri or "")
    store.detach(sink)
    assert repair_store(sink.uri.rpartition("/")[0]).ok


def test_resource_document_of_a_sink(store: FrameStore):
    sink = attach(store, "cam")
    document = stream_resource_doc(sink, "uid", {"join_method": "stack"})
    assert document == {
        "data_key": "cam",
        "mimetype": "application/x-zarr",
        "parameters": {
            "array_name": "cam",
            "chunk_shape": [1, 4, 6],
            "join_method": "stack",
        },
        "uid": "uid",
        "uri": sink.uri,
    }
    store.detach(sink)


def test_repr(store: FrameStore):
    assert "idle" in repr(store)
    sink = attach(store, "cam")
    assert (store.uri or "?") in repr(store)
    store.detach(sink)
