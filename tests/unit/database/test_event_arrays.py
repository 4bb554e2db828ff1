"""Arrays of events in the Zarr store."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from bluesky_beamtime.database import event_arrays
from bluesky_beamtime.database.encoding import ArrayReference
from bluesky_beamtime.database.event_arrays import EventArrays
from bluesky_beamtime.errors import StoreWriteError
from bluesky_beamtime.storage import FolderLock, ShardedArray
from bluesky_beamtime.testing import assert_documents_equal

HOSTILE = [
    "..",
    ".",
    "",
    "/",
    "../../etc",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "nul\0",
    "x" * 300,
    "ü" * 300,
    "\ud800",
    "zarr.json",
    "__hidden",
    ".hidden",
    "con",
    "a:b|c?*",
    "%2e%2e",
    " ",
    "a\nb",
]


@pytest.fixture
def arrays(tmp_path: Path):
    arrays = EventArrays(tmp_path / "x.zarr", "run", power=False)
    yield arrays
    arrays.close()


def paths(stored) -> dict[str, str]:
    return {key: value.path for key, value in stored.data.items()}


def test_arrays_are_replaced_by_where_they_are(arrays, tmp_path) -> None:
    frame = np.arange(12, dtype=">u2").reshape(3, 4)
    stored = arrays.write("primary", {"x": 1.5, "img": frame, "y": [1]}, {})
    reference = ArrayReference("runs/run/primary/img", 0, ">u2")
    assert stored.data == {"x": 1.5, "img": reference, "y": [1]}
    assert stored.images == [
        ("img", "runs/run/primary/img", 0, 4, 3, "[3,4]", ">u2", "none")
    ]
    # A fresh reader with nothing but zarr-python sees it already.
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    np.testing.assert_array_equal(group["runs/run/primary/img"][0], frame)
    stored = arrays.write("primary", {"img": frame + 1}, {})
    assert stored.data["img"].index == 1


@pytest.mark.parametrize(
    "value",
    [
        np.array(5.0),
        np.zeros((0, 3)),
        np.array(["a"]),
        np.array([1, None], dtype=object),
        np.array([(1,)], dtype=[("a", "i4")]),
        np.array(["2026"], dtype="datetime64[Y]"),
        np.zeros(2, np.longdouble),
        [1.0, 2.0],
        "text",
        None,
    ],
)
def test_what_zarr_has_no_form_for_stays(arrays, tmp_path, value) -> None:
    stored = arrays.write("primary", {"a": value}, {})
    assert stored.data["a"] is value
    assert stored.images == []
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3, dtype=np.int8),
        np.array([True, False]),
        np.array([[1 + 2j]], np.complex64),
        np.array([np.nan, np.inf, -0.0], np.float16),
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.zeros((2, 2, 2, 2, 2), ">i4"),
    ],
)
def test_numbers_of_any_rank_and_kind_are_written(arrays, tmp_path, value) -> None:
    stored = arrays.write("primary", {"a": value}, {})
    reference = stored.data["a"]
    array = zarr.open_array(tmp_path / "x.zarr" / reference.path, mode="r")
    found = array[reference.index].astype(reference.dtype)
    assert_documents_equal([("x", {"a": found})], [("x", {"a": value})])


def test_what_does_not_fit_starts_another_array(arrays, tmp_path) -> None:
    values = [
        np.zeros(3),
        np.zeros(4),
        np.zeros(3, np.float32),
        np.ones(3),
        np.ones(4),
        np.ones(3, ">f8"),
    ]
    found = [arrays.write("primary", {"a": value}, {}).data["a"] for value in values]
    names = [reference.path.rsplit("/", 1)[1] for reference in found]
    assert names == ["a", "a.1", "a.2", "a", "a.1", "a"]
    assert [reference.index for reference in found] == [0, 0, 0, 1, 1, 2]


def test_a_field_that_is_called_like_another_array_gets_its_own(arrays) -> None:
    one = paths(arrays.write("s", {"a": np.zeros(3), "a.1": np.zeros(3)}, {}))
    other = paths(arrays.write("s", {"a": np.zeros(4)}, {}))
    assert len({*one.values(), *other.values()}) == 3


def test_names_that_differ_in_case_alone_do_not_share_a_folder(arrays) -> None:
    found = paths(arrays.write("s", {"Cam": np.zeros(3), "cam": np.zeros(3)}, {}))
    assert len({path.casefold() for path in found.values()}) == 2
    more = paths(arrays.write("S", {"cam": np.zeros(3)}, {}))
    assert len({path.casefold() for path in (*found.values(), *more.values())}) == 3


def test_streams_and_fields_of_the_same_name_are_apart(arrays) -> None:
    one = paths(arrays.write("a", {"b": np.zeros(3)}, {}))
    other = paths(arrays.write("b", {"b": np.zeros(3)}, {}))
    assert one != other


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_lead_nowhere_else(tmp_path, name) -> None:
    root = tmp_path / "folder" / "x.zarr"
    root.parent.mkdir()
    value = np.arange(3)
    for uid, stream, field in (
        (name, "s", "f"),
        ("u", name, "f"),
        ("u2", "s", name),
        (name, name, name),
    ):
        arrays = EventArrays(root, uid, power=False)
        stored = arrays.write(stream, {field: value}, {field: {"units": name}})
        arrays.close()
        reference = stored.data[field]
        path = (root / reference.path).resolve()
        assert path.is_relative_to(root / "runs")
        assert len(path.relative_to(root).parts) == 4
        assert zarr.open_array(path, mode="r")[0].tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(root.parent) == ["x.zarr"]


def test_many_shapes_keep_few_files_open(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(event_arrays, "_MOST_OPEN", 3)
    arrays = EventArrays(tmp_path / "x.zarr", "run", power=False)
    before = len(os.listdir("/proc/self/fd"))
    for turn in range(2):
        for size in range(1, 12):
            reference = arrays.write("s", {"a": np.full(size, turn)}, {}).data["a"]
            assert reference.index == turn
            assert len(os.listdir("/proc/self/fd")) <= before + 3
    arrays.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_arrays_of_a_process_that_died_are_not_touched(tmp_path) -> None:
    store = tmp_path / "x.zarr"
    first = EventArrays(store, "run", power=False)
    one = first.write("s", {"a": np.zeros(3)}, {}).data["a"]
    first.close()
    second = EventArrays(store, "run", power=False)
    other = second.write("s", {"a": np.ones(3)}, {}).data["a"]
    second.close()
    assert one.path != other.path
    assert zarr.open_array(store / one.path, mode="r")[...].tolist() == [[0, 0, 0]]


def test_two_recorders_never_write_to_one_array(tmp_path, monkeypatch) -> None:
    """Also when both make it at the same moment."""
    store = tmp_path / "x.zarr"
    first = EventArrays(store, "run", power=False)
    second = EventArrays(store, "run", power=False)
    create, found = ShardedArray.create, {}

    def created(*arguments, **options):
        array = create(*arguments, **options)
        if "second" not in found:
            found["second"] = None
            found["second"] = second.write("s", {"a": np.ones(3)}, {}).data["a"]
        return array

    monkeypatch.setattr(ShardedArray, "create", created)
    found["first"] = first.write("s", {"a": np.zeros(3)}, {}).data["a"]
    for turn in (1, 2):
        for arrays, value in ((first, 0.0), (second, 1.0)):
            reference = arrays.write("s", {"a": np.full(3, value)}, {}).data["a"]
            assert reference.index == turn
    first.close()
    second.close()
    for name, value in (("first", 0.0), ("second", 1.0)):
        stored = zarr.open_array(store / found[name].path, mode="r")
        assert np.array_equal(stored[...], np.full((3, 3), value))
        assert FolderLock.NAME not in os.listdir(store / found[name].path)


def test_an_array_that_was_only_made_keeps_nobody_out(tmp_path) -> None:
    store = tmp_path / "x.zarr"
    first = EventArrays(store, "run", power=False)
    array = store / first.write("s", {"a": np.zeros(3)}, {}).data["a"].path
    first.close()
    for path in array.iterdir():
        if path.name != "zarr.json":
            path.unlink()
    metadata = json.loads((array / "zarr.json").read_text())
    metadata["shape"][0] = 0
    (array / "zarr.json").write_text(json.dumps(metadata))
    # What a process leaves that is killed here.
    (array / FolderLock.NAME).touch()
    second = EventArrays(store, "run", power=False)
    reference = second.write("s", {"a": np.ones(3)}, {}).data["a"]
    second.close()
    assert (store / reference.path, reference.index) == (array, 0)
    assert FolderLock.NAME not in os.listdir(array)


def test_an_array_that_cannot_be_made_leaves_no_folder(arrays, tmp_path) -> None:
    arrays.write("s", {"a": np.zeros(3)}, {})
    with pytest.MonkeyPatch.context() as patch:
        error = StoreWriteError("the disk is full", errno=28, filename="x")

        def refuse(*_: object, **__: object) -> None:
            raise error

        patch.setattr(ShardedArray, "create", refuse)
        with pytest.raises(StoreWriteError):
            arrays.write("s", {"b": np.zeros(3)}, {})
    assert not list((tmp_path / "x.zarr").rglob("b"))
    assert arrays.write("s", {"b": np.zeros(3)}, {}).data["b"].index == 0


def test_an_array_whose_first_frame_failed_stays_its_own(tmp_path, monkeypatch) -> None:
    store = tmp_path / "x.zarr"
    first = EventArrays(store, "run", power=False)
    second = EventArrays(store, "run", power=False)
    append, error = ShardedArray.append, StoreWriteError("full", errno=28, filename="")
    failures = [error]

    def fail(array, frame):
        if failures:
            raise failures.pop()
        return append(array, frame)

    monkeypatch.setattr(ShardedArray, "append", fail)
    with pytest.raises(StoreWriteError):
        first.write("s", {"a": np.zeros(3)}, {})
    other = second.write("s", {"a": np.ones(3)}, {}).data["a"]
    own = first.write("s", {"a": np.zeros(3)}, {}).data["a"]
    assert own.path != other.path
    assert (own.index, other.index) == (0, 0)
    first.close()
    second.close()


def test_units_go_with_the_array(arrays, tmp_path) -> None:
    keys = {"a": {"units": "V"}, "b": {"units": 3}, "c": None}
    data = {key: np.zeros(2) for key in "abc"}
    found = arrays.write("s", data, keys).data
    attributes = {
        key: dict(zarr.open_array(tmp_path / "x.zarr" / ref.path, mode="r").attrs)
        for key, ref in found.items()
    }
    assert attributes["a"] == {"data_key": "a", "units": "V"}
    assert attributes["b"] == {"data_key": "b"}


def test_power_and_sync_bring_it_to_the_disk(tmp_path, monkeypatch) -> None:
    synced: list[str] = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    for power in (True, False):
        arrays = EventArrays(tmp_path / f"{power}.zarr", "run", power=power)
        arrays.write("s", {"a": np.zeros(3)}, {})
        written = [path for path in synced if f"{power}.zarr" in path]
        assert bool(written) is power
        arrays.sync()
        assert [path for path in synced if f"{power}.zarr" in path]
        arrays.close()
        arrays.sync()


def test_a_disk_that_refuses_is_named(tmp_path) -> None:
    store = tmp_path / "x.zarr"
    store.write_text("in the way")
    arrays = EventArrays(store, "run", power=False)
    with pytest.raises(StoreWriteError):
        arrays.write("s", {"a": np.zeros(3)}, {})
    store.unlink()
    assert arrays.write("s", {"a": np.zeros(3)}, {}).data["a"].index == 0
    arrays.close()
