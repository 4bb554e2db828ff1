"""The bytes of HDF5 metadata, against those of the HDF5 library."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bluesky_beamtime.storage import hdf5_format as hdf5
from bluesky_beamtime.storage.hdf5_codecs import ChunkCodec
from bluesky_beamtime.storage.hdf5_layout import FileLayout

DTYPES = (
    "<u1 <u2 >u2 <u4 <u8 >u8 <i1 <i2 >i4 <i8 <f2 >f2 <f4 >f4 <f8 >f8 <c8 >c8 <c16 ?"
)


def test_lookup3_is_the_published_function():
    """The value that Bob Jenkins gives for this text."""
    assert hdf5.lookup3(b"Four score and seven years ago") == 0x17770551


@pytest.mark.parametrize("name", DTYPES.split())
def test_datatypes_mean_what_h5py_means(name: str):
    """The library decodes them to the type that it makes itself."""
    dtype = np.dtype(name)
    # What H5Tdecode takes has two bytes before the message.
    decoded = h5py.h5t.decode(b"\3\0" + hdf5.datatype(dtype))
    assert decoded.equal(h5py.h5t.py_create(dtype, logical=True))
    assert decoded.dtype == dtype


def test_a_datatype_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="no HDF5 datatype"):
        hdf5.datatype(np.dtype("S4"))


def test_a_superblock_is_read_back_and_damage_is_seen(tmp_path: Path):
    block = hdf5.Superblock(root=96, end=12345, flags=hdf5.SWMR_WRITING)
    data = block.to_bytes()
    assert len(data) == hdf5.SUPERBLOCK_BYTES
    assert hdf5.Superblock.from_bytes(data) == block
    for place in range(len(data)):
        hurt = bytearray(data)
        hurt[place] ^= 4
        assert hdf5.Superblock.from_bytes(bytes(hurt)) is None
    with h5py.File(tmp_path / "new.h5", "w", libver=("v110", "v110")):
        pass
    data = (tmp_path / "new.h5").read_bytes()
    found = hdf5.Superblock.from_bytes(data)
    assert found is not None
    assert (found.version, found.flags, found.end) == (3, 0, len(data))
    with h5py.File(tmp_path / "old.h5", "w", libver=("earliest", "v108")):
        pass
    assert hdf5.Superblock.from_bytes((tmp_path / "old.h5").read_bytes()) is None


def make(path: Path, attributes: dict[str, Any], metadata: Any = None) -> None:
    """Write an empty file of frames, as if its writer had closed it."""
    layout = FileLayout(shape=(2, 3), codec=ChunkCodec(np.dtype("<u2")))
    _, _, data = layout.skeleton(attributes, metadata)
    block = hdf5.Superblock.from_bytes(data)
    assert block is not None
    closed = hdf5.Superblock(block.root, len(data)).to_bytes()
    path.write_bytes(closed + data[len(closed) :])


ATTRIBUTES: dict[str, tuple[Any, Any]] = {
    "text": ("Zähler µ", "Zähler µ".encode()),
    "empty": ("", b""),
    "integer": (-3, np.int64(-3)),
    "large": (2**64 - 1, np.uint64(2**64 - 1)),
    "real": (0.25, np.float64(0.25)),
    "integers": ([1, 2, 3], np.array([1, 2, 3])),
    "reals": ([1.5, 2.5], np.array([1.5, 2.5])),
    "texts": (["a", "bcd", ""], np.array([b"a", b"bcd", b""])),
    "mixed": ([1, "a", None], b'[1, "a", null]'),
    "nested": ({"a": {"b": [1, 2.5]}}, b'{"a": {"b": [1, 2.5]}}'),
    "yes": (True, b"true"),
    "nothing": (None, b"null"),
    "no items": ([], b"[]"),
}


def test_attributes_are_read_by_the_library(tmp_path: Path):
    """Each kind as itself, or as JSON; more than fit before HDF5 would go dense."""
    many = {f"number {n}": n for n in range(30)}
    given = {name: value for name, (value, _) in ATTRIBUTES.items()}
    make(tmp_path / "a.h5", {**given, **many})
    with h5py.File(tmp_path / "a.h5", "r") as file:
        found = dict(file["entry/data/data"].attrs)
    assert {name: found.pop(name) for name in many} == many
    assert set(found) == set(ATTRIBUTES)
    for name, (_, expected) in ATTRIBUTES.items():
        np.testing.assert_array_equal(found[name], expected)
        if isinstance(expected, (np.ndarray, np.generic)):
            assert found[name].dtype == expected.dtype


def test_long_texts_go_on_in_further_attributes(tmp_path: Path):
    """HDF5 takes 64 KiB in one attribute of this kind."""
    text = "".join(chr(97 + n % 26) for n in range(150_001))
    make(tmp_path / "a.h5", {"text": text}, {"device": {"text": text}})
    with h5py.File(tmp_path / "a.h5", "r") as file:
        found = dict(file["entry/data/data"].attrs)
        above = dict(file["entry"].attrs)
    parts = [found[name].decode() for name in ("text", "text~2", "text~3")]
    assert "".join(parts) == text
    parts = [above[name].decode() for name in ("metadata", "metadata~2", "metadata~3")]
    assert text in "".join(parts)


def test_a_new_file_is_what_nexus_readers_look_for(tmp_path: Path):
    make(tmp_path / "a.h5", {"units": "counts"})
    with h5py.File(tmp_path / "a.h5", "r") as file:
        entry = file[file.attrs["default"].decode()]
        group = entry[entry.attrs["default"].decode()]
        data = group[group.attrs["signal"].decode()]
        classes = [place.attrs["NX_class"] for place in (file, entry, group)]
        assert classes == [b"NXroot", b"NXentry", b"NXdata"]
        assert data.attrs["units"] == b"counts"
        assert (data.shape, data.maxshape) == ((0, 2, 3), (None, 2, 3))
        assert data.chunks == (1, 2, 3)
        assert data.name == "/entry/data/data"


def test_null_messages_fill_every_gap():
    """Also gaps too small for a message, and too large for one."""
    for rest in (0, 1, 3, 4, 5, 70_000, 140_003):
        header = hdf5.header_block([hdf5.Message(0x15, b"x" * 18)], 8 + 22 + rest)
        assert len(header) == 30 + rest
        assert hdf5.is_intact(header)
        place, kinds = 4, []
        while len(header) - 4 - place >= 4:
            kind, size, _ = struct.unpack_from("<BHB", header, place)
            kinds.append(kind)
            place += 4 + size
        assert place <= len(header) - 4
        assert kinds[0] == 0x15
        assert not any(kinds[1:])
