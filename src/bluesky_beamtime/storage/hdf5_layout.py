"""The layout of an HDF5 file of frames, and all of it that is written at once.

::

    0      superblock; changes when the file is opened and closed
    48     state: how far the index reaches, and where the attributes are
    144    chunk index: header and index block              }  the first page,
    640    object header of /entry/data/data, with its shape }  replaced in two steps
    4096   identity: what the file was made for; never changes
           object headers of /entry/data, /entry and /
           two slots for the attributes of the dataset
           the log: frames and blocks of the index, one behind the other

To let readers see more frames, blocks of the index are written to where nobody looks
yet, then the bytes from 48 on, then the object header. Each of the latter two lies
within one page of the file, so a process that is killed leaves the old or the new.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bluesky_beamtime.storage import hdf5_format as hdf5
from bluesky_beamtime.storage import hdf5_places
from bluesky_beamtime.storage.codecs import CompressionError, checksum
from bluesky_beamtime.storage.hdf5_codecs import ChunkCodec
from bluesky_beamtime.storage.hdf5_format import Message, Superblock
from bluesky_beamtime.storage.hdf5_index import ChunkIndex
from bluesky_beamtime.storage.hdf5_log import aligned

DATASET = "/entry/data/data"

STATE_ADDRESS = hdf5.SUPERBLOCK_BYTES
INDEX_ADDRESS = 144
HEADER_ADDRESS = 640
IDENTITY_ADDRESS = 4096

_IDENTITY = struct.Struct("<8s8sQQ96sI")
# The last byte is the version of all that is not HDF5's own.
_IDENTITY_MAGIC = b"BTFRAME1"
_STATE = struct.Struct("<4sIQQQIIII")
_STATE_MAGIC = b"BTST"
_CRC = struct.Struct("<I")
_LEAST_SLOT = 2048


@dataclass(frozen=True, slots=True)
class State:
    """What changes at every publish, beside the index and the shape."""

    count: int = 0
    """Frames that the index holds."""
    position: int = 0
    """Where the log goes on behind what the index holds."""
    attributes: int = 0
    """Address of the two slots for attributes."""
    slot: int = 0
    """The one that is in use, 0 or 1."""
    block_bytes: int = 0
    """Bytes of a slot that hold HDF5 attributes."""
    text_bytes: int = 0
    """Bytes behind them that hold the same as JSON."""
    text_length: int = 0
    """How many of those are used."""
    text_checksum: int = 0
    """crc32c of the JSON."""
    closed: bool = False
    """Whether the writer closed the file."""

    @property
    def slot_address(self) -> int:
        """Address of the slot that is in use."""
        return self.attributes + self.slot * (self.block_bytes + self.text_bytes)

    def to_bytes(self) -> bytes:
        """Return the state, filled up to where the index starts."""
        data = _STATE.pack(
            _STATE_MAGIC,
            self.closed | self.slot << 1,
            self.count,
            self.position,
            self.attributes,
            self.block_bytes,
            self.text_bytes,
            self.text_length,
            self.text_checksum,
        )
        data += _CRC.pack(checksum(data))
        return data.ljust(INDEX_ADDRESS - STATE_ADDRESS, b"\0")

    @classmethod
    def from_bytes(cls, data: bytes) -> State | None:
        """Read a state; None if it is damaged or is just being replaced."""
        head = data[: _STATE.size]
        tail = data[_STATE.size : _STATE.size + _CRC.size]
        if len(tail) < _CRC.size or _CRC.pack(checksum(head)) != tail:
            return None
        magic, flags, count, position, *rest = _STATE.unpack(head)
        if magic != _STATE_MAGIC:
            return None
        attributes, block_bytes, text_bytes, length, crc = rest
        return cls(
            count,
            position,
            attributes,
            flags >> 1 & 1,
            block_bytes,
            text_bytes,
            length,
            crc,
            bool(flags & 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLayout:
    """What a file was made for."""

    shape: tuple[int, ...]
    """Shape of one frame; ``()`` for a number per frame."""
    codec: ChunkCodec
    """How a frame becomes a chunk; holds the dtype."""
    dimension_names: tuple[str, ...] | None = None
    """Names of all dimensions, the first being that of the frames."""
    nonce: bytes = b""
    """Eight bytes that the records of this file alone go with."""
    log_start: int = 0
    """Where the log begins."""
    root: int = 0
    """Address of the root group."""
    first: State = State()
    """The first state, for a file whose state a power cut took."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of a frame, in the byte order that is stored."""
        return self.codec.dtype

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk: one frame."""
        return (1, *self.shape)

    @property
    def frame_bytes(self) -> int:
        """Size of one uncompressed frame."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    @property
    def size_bytes(self) -> int:
        """Width of chunk sizes in the index."""
        return self.codec.size_bytes(self.frame_bytes)

    @property
    def head_end(self) -> int:
        """Where the chunk index's part of the first page ends."""
        form = hdf5_places.ElementFormat(self.size_bytes)
        return INDEX_ADDRESS + hdf5_places.head_bytes(form)

    # ------------------------------------------------------------------ identity

    def identity(self) -> bytes:
        """Return the block that says what the file was made for."""
        text = json.dumps(
            {
                "dtype": self.dtype.str,
                "shape": self.shape,
                "compression": self.codec.compression,
                "checksum": self.codec.checksum,
                "dimension_names": self.dimension_names,
            }
        ).encode()
        first = self.first.to_bytes()
        places = self.log_start, self.root
        head = _IDENTITY.pack(_IDENTITY_MAGIC, self.nonce, *places, first, len(text))
        return head + text + _CRC.pack(checksum(head + text))

    @classmethod
    def read(cls, fd: int) -> FileLayout | None:
        """Read the identity of an open file; None if it is none of ours."""
        head = os.pread(fd, _IDENTITY.size, IDENTITY_ADDRESS)
        if len(head) < _IDENTITY.size or not head.startswith(_IDENTITY_MAGIC):
            return None
        _, nonce, log_start, root, state, size = _IDENTITY.unpack(head)
        first = State.from_bytes(state)
        if size > 1 << 20 or first is None:
            return None
        rest = os.pread(fd, size + _CRC.size, IDENTITY_ADDRESS + _IDENTITY.size)
        text, tail = rest[:size], rest[size:]
        if _CRC.pack(checksum(head + text)) != tail:
            return None
        try:
            made = json.loads(text)
            names = made["dimension_names"]
            return cls(
                shape=tuple(made["shape"]),
                codec=ChunkCodec(
                    np.dtype(made["dtype"]), made["compression"], made["checksum"]
                ),
                dimension_names=None if names is None else tuple(names),
                nonce=nonce,
                log_start=log_start,
                root=root,
                first=first,
            )
        except (ValueError, KeyError, TypeError, CompressionError):
            return None

    # ------------------------------------------------------------ object headers

    def dataset_header(self, count: int, state: State) -> bytes:
        """Return the object header of the dataset for ``count`` frames."""
        number = hdf5.datatype(self.dtype)
        chunk = self.chunk_shape
        layout = hdf5.chunked_layout(
            chunk, self.dtype.itemsize, hdf5_places.PARAMETERS, INDEX_ADDRESS
        )
        space = hdf5.dataspace((count, *self.shape), (None, *self.shape))
        messages = [
            Message(0x01, space),
            Message(0x03, number, 1),
            Message(0x05, hdf5.fill_value(), 1),
            Message(0x08, layout),
        ]
        filters = self.codec.filters(self.frame_bytes)
        if filters:
            messages.append(Message(0x0B, hdf5.filter_pipeline(filters), 1))
        messages.append(hdf5.attribute_info())
        messages.append(hdf5.continuation(state.slot_address, state.block_bytes))
        return hdf5.object_header(messages)

    def attribute_slot(
        self, attributes: Mapping[str, Any], block_bytes: int, text_bytes: int
    ) -> bytes | None:
        """Return what a slot holds; None if it does not fit."""
        messages = self._attribute_messages(attributes)
        text = json.dumps(dict(attributes)).encode()
        if _block_size(messages) > block_bytes or len(text) > text_bytes:
            return None
        # Filled up, so that nothing of what stood there before is left.
        return hdf5.header_block(messages, block_bytes) + text.ljust(text_bytes, b"\0")

    def slot_sizes(self, attributes: Mapping[str, Any]) -> tuple[int, int]:
        """Return sizes of a slot in which these attributes may grow."""
        messages = self._attribute_messages(attributes)
        text = json.dumps(dict(attributes))
        return _roomy(_block_size(messages)), _roomy(len(text))

    def _attribute_messages(self, attributes: Mapping[str, Any]) -> list[Message]:
        named: dict[str, Any] = {}
        if self.dimension_names is not None:
            named["dimension_names"] = self.dimension_names
        found: list[Message] = []
        for name, value in {**named, **attributes}.items():
            found += hdf5.attribute(name, value)
        return found

    # ------------------------------------------------------------------ creation

    def skeleton(
        self, attributes: Mapping[str, Any], metadata: Mapping[str, Any] | None
    ) -> tuple[FileLayout, State, bytes]:
        """Return all that a new file holds before its first frame.

        Parameters
        ----------
        attributes
            Attributes of the dataset.
        metadata
            Metadata of the acquisition, for the group ``/entry``.

        Returns
        -------
        tuple
            This layout with the places filled in, the first state, and the bytes.
        """
        body = bytearray()

        def place(data: bytes) -> int:
            body.extend(bytes(-len(body) % 8))
            body.extend(data)
            return IDENTITY_ADDRESS + len(body) - len(data)

        place(bytes(len(self.identity())))
        address = HEADER_ADDRESS
        nexus: Callable[..., list[Message]] = _nexus_attributes
        for name, texts in (
            ("data", nexus(NX_class="NXdata", signal="data")),
            ("data", nexus(NX_class="NXentry", default="data", metadata=metadata)),
            ("entry", nexus(NX_class="NXroot", default="entry")),
        ):
            messages = hdf5.group({name: address}, texts)
            address = place(hdf5.object_header(messages))
        block_bytes, text_bytes = self.slot_sizes(attributes)
        slot = self.attribute_slot(attributes, block_bytes, text_bytes)
        assert slot is not None
        text = slot[block_bytes:].rstrip(b"\0")
        slots = place(2 * slot)
        end = aligned(IDENTITY_ADDRESS + len(body))
        state = State(
            position=end,
            attributes=slots,
            block_bytes=block_bytes,
            text_bytes=text_bytes,
            text_length=len(text),
            text_checksum=checksum(text),
        )
        layout = replace(self, log_start=end, root=address, first=state)
        identity = layout.identity()
        body[: len(identity)] = identity
        header = layout.dataset_header(0, state)
        page = bytearray(IDENTITY_ADDRESS)
        head = state.to_bytes()
        head += ChunkIndex(INDEX_ADDRESS, self.size_bytes).stage().head
        superblock = Superblock(address, end, hdf5.SWMR_WRITING)
        page[:STATE_ADDRESS] = superblock.to_bytes()
        page[STATE_ADDRESS : STATE_ADDRESS + len(head)] = head
        page[HEADER_ADDRESS : HEADER_ADDRESS + len(header)] = header
        assert len(page) == IDENTITY_ADDRESS and layout.head_end <= HEADER_ADDRESS
        return layout, state, bytes(page + body).ljust(end, b"\0")


def _nexus_attributes(**texts: Any) -> list[Message]:
    found: list[Message] = []
    for name, value in texts.items():
        if value:
            found += hdf5.attribute(name, value)
    return found


def _block_size(messages: list[Message]) -> int:
    return 8 + sum(4 + len(message.body) for message in messages)


def _roomy(size: int) -> int:
    """Return twice the size or more, a power of two."""
    return max(_LEAST_SLOT, 1 << (2 * size - 1).bit_length())
