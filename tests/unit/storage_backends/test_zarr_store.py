"""Frames written here, read by zarr-python through any backend."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import zarr
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.testing.store import StoreTests

from bluesky_beamtime.errors import BackendError, PathError
from bluesky_beamtime.storage import ZarrWriter
from bluesky_beamtime.storage.backends import (
    LocalBackend,
    MemoryBackend,
    RecordingBackend,
    StorageBackend,
    as_zarr_store,
    copy_prefix,
    open_backend,
)
from bluesky_beamtime.storage.backends.s3_server import S3TestServer
from bluesky_beamtime.storage.backends.zarr_adapter import BackendStore
from bluesky_beamtime.storage.shards import index_bytes

SHAPE = (16, 24)
PER_SHARD = 8


def images(count: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(count)
    return rng.integers(0, 4000, (count, *SHAPE)).astype("<u2")


@pytest.fixture
def written(tmp_path: Path) -> Iterator[tuple[Path, dict[str, np.ndarray[Any, Any]]]]:
    """A store of two cameras and their times, with 21 and 3 frames."""
    data = {"cam": images(21), "packed": images(3), "cam_time": np.arange(21) / 7}
    writer = ZarrWriter.get("zarr_store", frames_per_shard=PER_SHARD)
    writer.set_uri(str(tmp_path / "x.zarr" / "scan 1"))
    sinks = {}
    for name, frames in data.items():
        options = {"compression": "lz4"} if name == "packed" else {}
        sinks[name] = writer.prepare(
            name, name, frames.dtype, frames.shape[1:], units="counts", **options
        )
    writer.kickoff()
    for name, frames in data.items():
        sinks[name].write_many(frames)
        sinks[name].close()
    yield tmp_path / "x.zarr" / "scan 1", data
    ZarrWriter.release("zarr_store")


def check(backend: StorageBackend, path: str, data: dict[str, Any]) -> None:
    group = zarr.open_group(as_zarr_store(backend), path=path, mode="r")
    assert sorted(group.array_keys()) == sorted(data)
    for name, frames in data.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert array.dtype == frames.dtype
        assert array.attrs["units"] == "counts"
        np.testing.assert_array_equal(array[:], frames)
        np.testing.assert_array_equal(array[-1], frames[-1])
        np.testing.assert_array_equal(array[::2], frames[::2])


def test_local(written: tuple[Path, dict[str, Any]]) -> None:
    path, data = written
    check(LocalBackend(path), "", data)
    check(LocalBackend(path.parent), path.name, data)


def test_copied_to_memory(written: tuple[Path, dict[str, Any]]) -> None:
    path, data = written
    memory = MemoryBackend()
    report = copy_prefix(LocalBackend(path), memory, to="runs/1")
    files = [file for file in path.rglob("*") if file.is_file()]
    assert report.values == len(files)
    assert report.size == sum(file.stat().st_size for file in files)
    check(memory, "runs/1", data)


def test_copied_to_s3(written: tuple[Path, dict[str, Any]], s3: StorageBackend) -> None:
    path, data = written
    copy_prefix(LocalBackend(path.parent), s3)
    check(s3, path.name, data)


def test_copied_back_it_is_the_same_store(
    written: tuple[Path, dict[str, Any]],
    s3: StorageBackend,
    tmp_path: Path,
    tree: Callable[..., dict[str, bytes]],
) -> None:
    path, _ = written
    copy_prefix(LocalBackend(path), s3, to="a")
    copy_prefix(s3, LocalBackend(tmp_path / "back"), "a", "")
    assert tree(tmp_path / "back") == tree(path)


def test_one_frame_costs_an_index_and_a_frame(
    written: tuple[Path, dict[str, Any]],
) -> None:
    path, data = written
    backend = RecordingBackend(LocalBackend(path))
    group = zarr.open_group(as_zarr_store(backend), mode="r")
    array: Any = group["cam"]
    backend.calls.clear()
    np.testing.assert_array_equal(array[10], data["cam"][10])
    start = index_bytes(PER_SHARD)
    frame = int(np.prod(SHAPE)) * 2 + 4
    assert backend.calls == [
        ("get_range", "cam/c.1.0.0", 0, start),
        ("get_range", "cam/c.1.0.0", start + 2 * frame, frame),
    ]
    backend.calls.clear()
    np.testing.assert_array_equal(array[6:10], data["cam"][6:10])
    assert not backend.called("get_bytes")
    asked = sum(call[3] for call in backend.called("get_range"))
    assert asked == 2 * start + 4 * frame


def test_writing_through_zarr(s3: StorageBackend, tmp_path: Path) -> None:
    for backend in (s3, MemoryBackend(), LocalBackend(tmp_path)):
        store = as_zarr_store(backend, read_only=False)
        group = zarr.create_group(store)
        array = group.create_array("a/b", shape=(10, 6), chunks=(4, 6), dtype="i4")
        array[:] = np.arange(60).reshape(10, 6)
        array[3:5, 2] = -1
        again: Any = zarr.open_array(as_zarr_store(backend), path="a/b", mode="r")
        expected = np.arange(60).reshape(10, 6)
        expected[3:5, 2] = -1
        np.testing.assert_array_equal(again[:], expected)


def test_read_only_is_the_default() -> None:
    store = as_zarr_store(MemoryBackend())
    assert store.read_only
    with pytest.raises(ValueError, match="read-only"):
        zarr.create_group(store)


def test_a_failing_backend_is_no_missing_array(
    written: tuple[Path, dict[str, Any]],
) -> None:
    # zarr-python hands out the fill value for chunks that are not there, so what is
    # no absence must not look like one.
    def fail(call: tuple[Any, ...]) -> None:
        if call[1:2] == ("cam/c.1.0.0",):
            raise BackendError("the network is away")

    backend = RecordingBackend(LocalBackend(written[0]), fail)
    array: Any = zarr.open_array(as_zarr_store(backend), path="cam", mode="r")
    assert array[0].any()
    with pytest.raises(BackendError, match="network"):
        array[10]
    with pytest.raises(BackendError, match="network"):
        array[:]


def test_xarray_and_dask_read_it(written: tuple[Path, dict[str, Any]]) -> None:
    import dask.array

    path, data = written
    store = as_zarr_store(LocalBackend(path))
    lazy: Any = dask.array.from_zarr(zarr.open_array(store, path="cam", mode="r"))
    total = lazy.sum().compute(scheduler="threads")
    assert total == data["cam"].sum()


def test_it_goes_to_another_process(written: tuple[Path, dict[str, Any]]) -> None:
    path, data = written
    array: Any = zarr.open_array(
        as_zarr_store(LocalBackend(path)), path="cam", mode="r"
    )
    other = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(other[20], data["cam"][20])


def test_closing_the_store_leaves_the_backend(
    written: tuple[Path, dict[str, Any]],
) -> None:
    backend = LocalBackend(written[0])
    store = as_zarr_store(backend)
    with store:
        assert zarr.open_group(store, mode="r")["cam"].shape == (21, *SHAPE)
    assert backend.exists("zarr.json")


class Backed(StoreTests[BackendStore, cpu.Buffer]):
    """zarr-python's own tests for stores."""

    store_cls = BackendStore
    buffer_cls = cpu.Buffer
    scheme: ClassVar[str]

    async def set(self, store: BackendStore, key: str, value: Buffer) -> None:
        store.backend.put_bytes(key, value.to_bytes())

    async def get(self, store: BackendStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(store.backend.get_bytes(key))

    def test_store_repr(self, store: BackendStore) -> None:
        assert str(store) == store.backend.url
        assert store.backend.url in repr(store)

    def test_store_supports_writes(self, store: BackendStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: BackendStore) -> None:
        assert store.supports_listing


class TestLocalAsZarr(Backed):
    @pytest.fixture
    def store_kwargs(self, tmp_path: Path) -> dict[str, Any]:
        return {"backend": LocalBackend(tmp_path)}


class TestMemoryAsZarr(Backed):
    @pytest.fixture
    def store_kwargs(self) -> dict[str, Any]:
        return {"backend": MemoryBackend()}

    async def test_serializable_store(self, store: BackendStore) -> None:
        with pytest.raises(TypeError, match="stay here"):
            pickle.dumps(store)


class TestS3AsZarr(Backed):
    @pytest.fixture
    def store_kwargs(self, bucket: str, s3_server: S3TestServer) -> dict[str, Any]:
        return {"backend": open_backend(bucket, **s3_server.options)}


async def test_keys_are_checked_here_too() -> None:
    store = as_zarr_store(MemoryBackend(), read_only=False)
    with pytest.raises(PathError):
        await store.get("../a", default_buffer_prototype())
