"""Memory that is used again, and the compressor that writes into it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numcodecs import blosc as stock

from bluesky_beamtime.errors import StorageError
from bluesky_beamtime.storage import blosc
from bluesky_beamtime.storage.codecs import FrameCodec
from bluesky_beamtime.storage.scratch import ScratchPool, as_array


class TestPool:
    def test_memory_comes_back(self):
        pool = ScratchPool()
        one = pool.take(1000)
        pool.give(one)
        assert pool.take(900) is one
        assert pool.take(900) is not one

    @pytest.mark.parametrize("size", [1001, 400])
    def test_only_of_a_fitting_size(self, size: int):
        pool = ScratchPool()
        one = pool.take(1000)
        pool.give(one)
        other = pool.take(size)
        assert other is not one and other.nbytes >= size

    def test_it_holds_little(self):
        pool = ScratchPool()
        pieces = [pool.take(1 << 24) for _ in range(20)]
        for piece in pieces:
            pool.give(piece)
        held = [pool.take(1 << 24) for _ in range(20)]
        known = {id(piece) for piece in pieces}
        assert sum(id(piece) in known for piece in held) == 4

    @pytest.mark.parametrize("shape", [(), (3,), (4, 5)])
    @pytest.mark.parametrize("dtype", ["u1", ">u2", "c16", "?"])
    def test_as_an_array(self, dtype: str, shape: tuple[int, ...]):
        array = as_array(np.zeros(1000, "u1"), np.dtype(dtype), shape)
        assert array.shape == shape and array.dtype == dtype


@pytest.mark.parametrize("name", ["lz4", "zstd"])
@pytest.mark.parametrize("way", ["chosen", "ctypes", "numcodecs"])
def test_every_way_makes_what_stock_readers_read(name: str, way: str):
    call: Any = {
        "chosen": blosc.compress,
        "ctypes": blosc._through_ctypes(stock.__file__),
        "numcodecs": blosc._through_numcodecs,
    }[way]
    rng = np.random.default_rng(0)
    for dtype in ("u1", "<u2", ">f4", "c16"):
        for size in (1, 1000, 300_000):
            data = rng.poisson(3, size).astype(dtype)
            out = np.empty(data.nbytes + blosc.OVERHEAD, "u1")
            count = call(data, out, name, data.dtype.itemsize)
            found = np.frombuffer(stock.decompress(out[:count].tobytes()), dtype)
            np.testing.assert_array_equal(found, data)


def test_without_any_library_numcodecs_is_asked(monkeypatch: pytest.MonkeyPatch):
    def refuse(path: str) -> Any:
        raise OSError(f"{path} cannot be loaded")

    monkeypatch.setattr(blosc, "_through_ctypes", refuse)
    assert blosc._compressor.__wrapped__() is blosc._through_numcodecs


def test_too_much_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blosc, "MOST_BYTES", 10)
    with pytest.raises(StorageError, match="cut the frames into chunks"):
        blosc.compress(np.zeros(11, "u1"), np.zeros(100, "u1"), "lz4", 1)
    with pytest.raises(StorageError, match="code"):
        blosc._through_ctypes(stock.__file__)(
            np.zeros(9, "u1"), np.zeros(3, "u1"), "lz4", 1
        )


def test_from_many_threads_at_once():
    """Memory that one still writes is never given to another."""
    codec = FrameCodec(np.dtype("<u2"), "lz4")
    rng = np.random.default_rng(1)
    frames = [rng.poisson(5, (64, 64)).astype("<u2") for _ in range(8)]
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait(30)
        for turn in range(200):
            frame = frames[(number + turn) % len(frames)]
            encoded = codec.encode([frame])
            chunk = b"".join(map(bytes, encoded.buffers))
            encoded.release()
            out = np.empty((1, *frame.shape), frame.dtype)
            codec.decode(chunk, out, "here")
            np.testing.assert_array_equal(out[0], frame)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, number) for number in range(4)]:
            future.result(60)
