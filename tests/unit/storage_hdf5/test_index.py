"""The extensible array, against those that the HDF5 library writes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from bluesky_beamtime.storage import hdf5_index
from bluesky_beamtime.storage.hdf5_format import UNDEFINED
from bluesky_beamtime.storage.hdf5_index import ChunkIndex, NewBlock, Staged
from bluesky_beamtime.storage.hdf5_index_view import IndexView
from bluesky_beamtime.storage.hdf5_places import (
    MAX_FRAMES,
    ElementFormat,
    IndexDamagedError,
    head_bytes,
    place_of,
)

HEAD = 64


class Disk:
    """A file in memory with an index at its beginning."""

    def __init__(self, size_bytes: int = 0) -> None:
        self.size_bytes = size_bytes
        self.index = ChunkIndex(HEAD, size_bytes)
        self.data = bytearray(HEAD + head_bytes(ElementFormat(size_bytes)))
        self.blocks: dict[NewBlock, int] = {}

    def append(self, address: int, size: int = 0) -> None:
        for new in self.index.needed():
            self.blocks[new] = len(self.data)
            self.index.adopt(new, len(self.data))
            self.data += bytes(new.size)
        self.index.append(address, size)

    def write(self, staged: Staged, head: bool = True) -> None:
        for address, data in staged.blocks:
            self.data[address : address + len(data)] = data
        if head:
            self.data[HEAD : HEAD + len(staged.head)] = staged.head

    def publish(self) -> None:
        self.write(self.index.stage())
        self.index.commit()

    def view(self) -> IndexView:
        stop = HEAD + head_bytes(ElementFormat(self.size_bytes))
        head = bytes(self.data[HEAD:stop])
        return IndexView(head, self.size_bytes, self.read)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.data[address : address + size])

    def load(self) -> None:
        """Go on as another process would."""
        view = self.view()
        assert view.whole() == view.count
        self.index = ChunkIndex.load(HEAD, view, view.count, self.base_of)

    def base_of(self, pointer: int, size: int) -> int:
        assert {pointer, pointer - size} & set(self.blocks.values())
        return pointer if pointer in self.blocks.values() else pointer - size


def written(data: bytes, at: int) -> dict[bytes, list[int]]:
    """Find the blocks that the library wrote, by signature and offset."""
    found: dict[bytes, list[int]] = {}
    for signature in (b"EADB", b"EASB"):
        place = data.find(signature)
        while place >= 0:
            if struct.unpack_from("<Q", data, place + 6)[0] == at:
                key = data[place : place + 4] + data[place + 14 : place + 18]
                found.setdefault(key, []).append(place)
            place = data.find(signature, place + 1)
    return found


@pytest.mark.parametrize("count", [0, 1, 4, 5, 20, 21, 500, 3000])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_every_block_is_byte_for_byte_that_of_the_library(
    count: int,
    compression: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Header with its statistics, index block, data blocks and super blocks."""
    # What the library takes for itself; ours has no pages.
    monkeypatch.setattr(hdf5_index, "PAGE_BITS", 10)
    path = tmp_path / "library.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        options = {"compression": compression, "shuffle": bool(compression)}
        data = file.create_dataset(
            "x", (0, 4, 6), "<u2", maxshape=(None, 4, 6), chunks=(1, 4, 6), **options
        )
        # The library makes the index with the first chunk.
        data.resize(max(1, count), axis=0)
        for number in range(count):
            data[number] = number
        infos = [data.id.get_chunk_info_by_coord((n, 0, 0)) for n in range(count)]
    raw = path.read_bytes()
    if not count:
        assert raw.find(b"EAHD") < 0
        return
    at = raw.index(b"EAHD")
    size_bytes = 2 if compression else 0
    form = ElementFormat(size_bytes)
    view = IndexView(
        raw[at : at + head_bytes(form)], size_bytes, lambda a, n: raw[a : a + n]
    )
    assert view.count == count
    addresses, sizes = view.lookup(np.arange(count))
    assert addresses.tolist() == [info.byte_offset for info in infos]
    if compression:
        assert sizes.tolist() == [info.size for info in infos]

    index = ChunkIndex(at, size_bytes)
    for address, size in zip(addresses.tolist(), sizes.tolist(), strict=True):
        for number, new in enumerate(index.needed()):
            index.adopt(new, 1 << 30 | new.start << 4 | number)
        index.append(address, size)
    staged = index.stage()
    assert staged.head[:72] == raw[at : at + 72]
    elements = 72 + 14 + 4 * form.bytes
    assert staged.head[72:elements] == raw[at + 72 : at + elements]
    theirs = written(raw, at)
    assert len(staged.blocks) == sum(map(len, theirs.values()))
    for _, block in staged.blocks:
        places = theirs[block[:4] + block[14:18]]
        # The pointers of a super block differ, for the blocks lie elsewhere.
        size = 18 if block[:4] == b"EASB" else len(block)
        assert any(raw[place : place + size] == block[:size] for place in places)


def test_places_cover_every_element_once():
    seen: dict[int, int] = {}
    for number in range(4, 40_000):
        place = place_of(number)
        assert place is not None
        assert 0 <= place.slot < place.size
        assert place.start + place.slot == number - 4
        seen[place.start] = place.size
    starts = sorted(seen)
    for start, after in pairwise(starts):
        assert start + seen[start] == after
    assert [place_of(number) for number in range(4)] == [None] * 4
    assert place_of(MAX_FRAMES - 1) is not None


@pytest.mark.parametrize("size_bytes", [0, 3])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_what_is_published_is_found(size_bytes: int, step: int):
    """However many frames lie between two publishes, and after each of them."""
    disk = Disk(size_bytes)
    disk.publish()
    total = 600 if step == 1 else 9000
    for number in range(total):
        disk.append(1000 + 8 * number, number % 251)
        if number % step == step - 1:
            disk.publish()
            view = disk.view()
            assert view.count == number + 1
            numbers = np.unique([0, number // 2, max(0, number - 20), number])
            addresses, sizes = view.lookup(numbers)
            assert addresses.tolist() == (1000 + 8 * numbers).tolist()
            if size_bytes:
                assert sizes.tolist() == (numbers % 251).tolist()
    disk.publish()
    everything = np.arange(total)[::-1]
    addresses, _ = disk.view().lookup(everything)
    assert addresses.tolist() == (1000 + 8 * everything).tolist()


@pytest.mark.parametrize("count", [0, 3, 4, 5, 19, 20, 21, 243, 244, 245, 2100, 2101])
def test_an_index_goes_on_in_another_process(count: int):
    disk = Disk(2)
    disk.publish()
    for number in range(count):
        disk.append(number, 1)
    disk.publish()
    disk.load()
    for number in range(count, count + 700):
        disk.append(number, 1)
        if number % 50 == 0:
            disk.publish()
    disk.publish()
    addresses, _ = disk.view().lookup(np.arange(count + 700))
    assert addresses.tolist() == list(range(count + 700))


def stop_after_nothing(disk: Disk, staged: Staged) -> None:
    pass


def stop_after_blocks(disk: Disk, staged: Staged) -> None:
    disk.write(staged, head=False)


def stop_in_a_block(disk: Disk, staged: Staged) -> None:
    for address, data in staged.blocks:
        disk.data[address : address + len(data) // 2] = data[: len(data) // 2]


@pytest.mark.parametrize(
    "die", [stop_after_nothing, stop_after_blocks, stop_in_a_block]
)
def test_death_in_the_middle_of_a_publish_leaves_the_old_index(
    die: Callable[[Disk, Staged], None],
):
    """No block that readers reach is written in place."""
    for count in (*range(1, 60), 243, 244, 500, 501, 1020, 2040):
        disk = Disk()
        disk.publish()
        for number in range(count):
            disk.append(number)
            if number % 5 == 0:
                disk.publish()
        disk.publish()
        for number in range(count, count + 3):
            disk.append(number)
        die(disk, disk.index.stage())
        view = disk.view()
        assert view.count == count
        assert view.lookup(np.arange(count))[0].tolist() == list(range(count))


def test_a_publish_that_failed_is_made_up_for():
    disk = Disk()
    disk.publish()
    for number in range(400):
        disk.append(number)
        staged = disk.index.stage()
        if number % 3:
            # Not committed: the disk refused.
            disk.write(staged, head=False)
        else:
            disk.write(staged)
            # Frames arrive while the disk works.
            disk.append(1000 + number)
            disk.index.commit()
    disk.publish()
    found = disk.view().lookup(np.arange(disk.index.count))[0].tolist()
    expected = []
    for number in range(400):
        expected.append(number)
        if number % 3 == 0:
            expected.append(1000 + number)
    assert found == expected


def test_elements_may_be_left_empty():
    disk = Disk(2)
    disk.append(5, 5)
    disk.index.skip()
    disk.append(7, 7)
    disk.publish()
    addresses, sizes = disk.view().lookup(np.arange(3))
    assert disk.view().whole() == 1
    assert addresses.tolist() == [5, UNDEFINED, 7]
    assert sizes.tolist() == [5, 0, 7]


def test_damage_anywhere_is_seen():
    disk = Disk(2)
    for number in range(300):
        disk.append(number, 1)
    disk.publish()
    whole = bytes(disk.data)
    rng = np.random.default_rng(0)
    seen = 0
    for place in rng.integers(HEAD, len(whole), 300).tolist():
        disk.data = bytearray(whole)
        disk.data[place] ^= 1 << int(rng.integers(8))
        try:
            addresses, sizes = disk.view().lookup(np.arange(300))
        except IndexDamagedError:
            seen += 1
        else:
            # The slots that are not in use may be hurt.
            assert addresses.tolist() == list(range(300))
            assert sizes.tolist() == [1] * 300
    assert seen > 100
