"""Where the frames of an HDF5 dataset lie: its extensible array of chunk addresses.

An extensible array is a tree of fixed shape that grows at its end: a header, an index
block, super blocks, and data blocks with the addresses themselves. HDF5 finds element
``n`` by arithmetic alone.

No block that a reader can reach is ever changed in place. Every block has two slots in
the file; a new version goes to the one that is not in use, and the index block, which
lies with the header in the file's first page, then points to it. A process that is
killed at any moment leaves the old tree or the new one.

References
----------
HDF5 File Format Specification Version 3.0, section VII.D, "The Extensible Array Index".
The sizes of super blocks and data blocks follow from its creation parameters.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.storage.hdf5_format import UNDEFINED, checksummed, is_intact

# The creation parameters that HDF5 itself uses: bits of the largest index, elements in
# the index block, least pointers of a super block, least elements of a data block. Only
# the last differs, elements of a page as bits: data blocks are never paged here.
_MAX_BITS = 32
_INDEX_ELEMENTS = 4
_LEAST_POINTERS = 4
_LEAST_ELEMENTS = 16
_PAGE_BITS = 18
PARAMETERS = bytes(
    (_MAX_BITS, _INDEX_ELEMENTS, _LEAST_POINTERS, _LEAST_ELEMENTS, _PAGE_BITS)
)
"""As they stand in the layout message."""

MAX_FRAMES = (1 << _MAX_BITS) - 1
HEADER_BYTES = 72

# Super blocks 0 to 3 have no block of their own: the index block points to their six
# data blocks. The rest, 4 to 28, have.
_SUPER_BLOCKS = 1 + _MAX_BITS - (_LEAST_ELEMENTS.bit_length() - 1)
_INLINE_SUPER_BLOCKS = 2 * (_LEAST_POINTERS.bit_length() - 1)
_INLINE_DATA_BLOCKS = 2 * (_LEAST_POINTERS - 1)
_POINTERS = _INLINE_DATA_BLOCKS + _SUPER_BLOCKS - _INLINE_SUPER_BLOCKS
_OFFSET_BYTES = (_MAX_BITS + 7) // 8
_PREFIX_BYTES = 14 + _OFFSET_BYTES

DATA_BLOCK = "data"
SUPER_BLOCK = "super"

Read = Callable[[int, int], bytes]
"""Returns so many bytes from an address, fewer at the end of the file."""


class IndexDamagedError(Exception):
    """A block of the index is not what was written."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an element stands in the tree."""

    super_block: int
    """Number of its super block."""
    number: int
    """Number of its data block among those of the super block."""
    start: int
    """First element of the data block, not counting those in the index block."""
    size: int
    """Elements of the data block."""
    slot: int
    """Its place in the data block."""


def place_of(index: int) -> Place | None:
    """Return where element ``index`` stands; None for the index block itself."""
    rest = index - _INDEX_ELEMENTS
    if rest < 0:
        return None
    number = (rest // _LEAST_ELEMENTS + 1).bit_length() - 1
    first = _first_element(number)
    size = _block_elements(number)
    block, slot = divmod(rest - first, size)
    return Place(number, block, first + block * size, size, slot)


def _block_elements(super_block: int) -> int:
    return _LEAST_ELEMENTS << ((super_block + 1) // 2)


def _block_count(super_block: int) -> int:
    return 1 << (super_block // 2)


def _first_element(super_block: int) -> int:
    return _LEAST_ELEMENTS * ((1 << super_block) - 1)


def _super_pointer(super_block: int) -> int:
    """Return which of the index block's pointers leads to a super block."""
    return _INLINE_DATA_BLOCKS + super_block - _INLINE_SUPER_BLOCKS


def _inline_pointer(place: Place) -> int:
    """Return which of the index block's pointers leads to a data block."""
    before = sum(_block_count(number) for number in range(place.super_block))
    return before + place.number


@dataclass(frozen=True, slots=True)
class ElementFormat:
    """How an element is stored: an address, and for filtered chunks size and mask."""

    size_bytes: int
    """Width of the size; 0 for chunks without filters."""

    @property
    def client(self) -> int:
        """What HDF5 calls the client of the array."""
        return 1 if self.size_bytes else 0

    @property
    def bytes(self) -> int:
        """Bytes of an element."""
        return 12 + self.size_bytes if self.size_bytes else 8

    @property
    def nothing(self) -> bytes:
        """The element of a chunk that is not there."""
        return b"\xff" * 8 + bytes(self.bytes - 8)

    def pack(self, address: int, size: int) -> bytes:
        """Return the element of a chunk."""
        if not self.size_bytes:
            return address.to_bytes(8, "little")
        # The filter mask is 0: no filter was skipped.
        width = self.size_bytes
        return address.to_bytes(8, "little") + size.to_bytes(width + 4, "little")

    def unpack(
        self, table: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return addresses and sizes of packed elements, one in each row."""
        sizes = np.zeros((len(table), 8), np.uint8)
        sizes[:, : self.size_bytes] = table[:, 8 : 8 + self.size_bytes]
        addresses = np.ascontiguousarray(table[:, :8]).view("<u8").reshape(-1)
        return addresses, sizes.view("<u8").reshape(-1)


def head_bytes(form: ElementFormat) -> int:
    """Return the bytes of header and index block."""
    return HEADER_BYTES + 14 + _INDEX_ELEMENTS * form.bytes + 8 * _POINTERS + 4


@dataclass(frozen=True, slots=True)
class NewBlock:
    """A block that needs room in the file before a frame can be indexed."""

    kind: str
    """``"data"`` or ``"super"``."""
    start: int
    """Its first element."""
    size: int
    """Bytes of both slots."""


@dataclass(eq=False)
class _Block:
    """A block that still changes, and its two slots."""

    new: NewBlock
    address: int
    """Of the first slot; the second follows it."""
    data: bytearray
    parent: _Block | None
    """The super block that points here; None for the index block."""
    pointer: int
    """Which of the parent's pointers does."""
    current: int = 1
    """The slot that readers can reach; the other is written next."""
    changes: int = 1
    staged: int = 0
    """Its changes when it was staged; 0 if it is not."""

    @property
    def spare(self) -> int:
        """Address of the slot that is not in use."""
        return self.address + self.new.size // 2 * (1 - self.current)


@dataclass(frozen=True, slots=True)
class Staged:
    """One version of the index, ready to be written in this order."""

    count: int
    """Elements that it holds."""
    blocks: list[tuple[int, bytes]]
    """Addresses and contents of changed blocks."""
    head: bytes
    """Header and index block, which lie one behind the other."""


class ChunkIndex:
    """The extensible array of one dataset, to be appended to.

    Not thread-safe; :class:`~bluesky_beamtime.storage.hdf5_file.HDF5File` guards it.

    Parameters
    ----------
    address
        Of the header, which the index block follows.
    size_bytes
        Width of a chunk's size in each element; 0 for chunks without filters, whose
        size is known.
    """

    def __init__(self, address: int, size_bytes: int = 0) -> None:
        self.address = address
        self.format = ElementFormat(size_bytes)
        self.count = 0
        self.room = _INDEX_ELEMENTS
        """How many elements still fit where the next one goes."""
        self._elements = bytearray(self.format.nothing * _INDEX_ELEMENTS)
        self._pointers = [UNDEFINED] * _POINTERS
        self._data: _Block | None = None
        self._super: _Block | None = None
        self._changed: list[_Block] = []

    # ------------------------------------------------------------------ growing

    def needed(self) -> list[NewBlock]:
        """Return the blocks that the next element needs and that have no room yet."""
        if self.room:
            return []
        place = self._next_place()
        blocks: list[NewBlock] = []
        start = _first_element(place.super_block)
        known = self._super is not None and self._super.new.start == start
        if place.super_block >= _INLINE_SUPER_BLOCKS and not known:
            size = _PREFIX_BYTES + 8 * _block_count(place.super_block) + 4
            blocks.append(NewBlock(SUPER_BLOCK, start, 2 * size))
        if self._data is None or self._data.new.start != place.start:
            size = _PREFIX_BYTES + place.size * self.format.bytes + 4
            blocks.append(NewBlock(DATA_BLOCK, place.start, 2 * size))
        return blocks

    def _next_place(self) -> Place:
        place = place_of(self.count)
        assert place is not None
        return place

    def adopt(self, new: NewBlock, address: int) -> None:
        """Give a block of :meth:`needed` its room in the file."""
        place = self._next_place()
        if new.kind == SUPER_BLOCK:
            data = self._prefix(b"EASB", new.start)
            data += b"\xff" * (8 * _block_count(place.super_block))
            block = _Block(new, address, data, None, _super_pointer(place.super_block))
            self._super = block
        else:
            parent, pointer = self._parent(place)
            # HDF5 counts the index block's own data blocks through, here too.
            number = place.number if parent else pointer
            start = _first_element(place.super_block) + number * place.size
            data = self._prefix(b"EADB", start) + self.format.nothing * place.size
            block = _Block(new, address, data, parent, pointer)
            self._data = block
            self.room = place.size
        self._changed.append(block)

    def _parent(self, place: Place) -> tuple[_Block | None, int]:
        if place.super_block < _INLINE_SUPER_BLOCKS:
            return None, _inline_pointer(place)
        return self._super, place.number

    def _prefix(self, signature: bytes, start: int) -> bytearray:
        head = signature + struct.pack("<BBQ", 0, self.format.client, self.address)
        return bytearray(head + start.to_bytes(_OFFSET_BYTES, "little"))

    def append(self, address: int, size: int) -> None:
        """Add a chunk; the blocks that it needs have been adopted."""
        self._append(self.format.pack(address, size))

    def skip(self) -> None:
        """Add an element for a chunk that is not there."""
        self._append(self.format.nothing)

    def _append(self, element: bytes) -> None:
        block = self._data
        data = self._elements if block is None else block.data
        at = len(data) - self.room * len(element)
        data[at : at + len(element)] = element
        self.room -= 1
        self.count += 1
        if block is not None:
            self._touch(block)

    def _touch(self, block: _Block) -> None:
        block.changes += 1
        if block not in self._changed:
            self._changed.append(block)

    # ------------------------------------------------------------------ writing

    def stage(self) -> Staged:
        """Return what has to be written so that readers find every element.

        Call :meth:`commit` when it is written. Without that, the next call returns the
        same again, with what was added meanwhile.
        """
        for kind in (DATA_BLOCK, SUPER_BLOCK):
            # Data blocks first: they change the super blocks that point to them.
            for block in [b for b in self._changed if b.new.kind == kind]:
                if block.parent is None:
                    self._pointers[block.pointer] = block.spare
                else:
                    at = _PREFIX_BYTES + 8 * block.pointer
                    struct.pack_into("<Q", block.parent.data, at, block.spare)
                    self._touch(block.parent)
        self._changed.sort(key=lambda block: block.new.kind == SUPER_BLOCK)
        for block in self._changed:
            block.staged = block.changes
        return Staged(
            self.count,
            [(block.spare, checksummed(block.data)) for block in self._changed],
            self._head(),
        )

    def commit(self) -> None:
        """Take note that what :meth:`stage` returned is written."""
        for block in self._changed:
            if block.staged:
                block.current = 1 - block.current
        self._changed = [b for b in self._changed if b.changes != b.staged]
        for block in self._changed:
            block.staged = 0

    def _head(self) -> bytes:
        last = place_of(self.count - 1)
        supers, super_bytes, blocks, block_bytes = 0, 0, 0, 0
        elements = _INDEX_ELEMENTS
        for number in range(last.super_block + 1 if last else 0):
            count, size = _block_count(number), _block_elements(number)
            if number >= _INLINE_SUPER_BLOCKS:
                supers += 1
                super_bytes += _PREFIX_BYTES + 8 * count + 4
            if last is not None and number == last.super_block:
                count = last.number + 1
            blocks += count
            block_bytes += count * (_PREFIX_BYTES + size * self.format.bytes + 4)
            elements += count * size
        client = self.format.client
        header = b"EAHD" + struct.pack("<BBB", 0, client, self.format.bytes)
        header += bytes(
            (_MAX_BITS, _INDEX_ELEMENTS, _LEAST_ELEMENTS, _LEAST_POINTERS, _PAGE_BITS)
        )
        header += struct.pack(
            "<7Q",
            supers,
            super_bytes,
            blocks,
            block_bytes,
            self.count,
            elements,
            self.address + HEADER_BYTES,
        )
        index = b"EAIB" + struct.pack("<BBQ", 0, client, self.address)
        index += bytes(self._elements)
        index += struct.pack(f"<{_POINTERS}Q", *self._pointers)
        return checksummed(header) + checksummed(index)

    @property
    def head_bytes(self) -> int:
        """Bytes of header and index block."""
        return head_bytes(self.format)

    # ------------------------------------------------------------------ reading

    @classmethod
    def load(
        cls,
        address: int,
        view: IndexView,
        count: int,
        base_of: Callable[[int, int], int],
    ) -> ChunkIndex:
        """Return an index that goes on after the first elements that ``view`` shows.

        Parameters
        ----------
        address
            See :class:`ChunkIndex`.
        view
            The index in the file.
        count
            How many of its elements are taken over; the blocks behind are forgotten.
        base_of
            Returns where the slots of a block start, for the address of the slot that
            is in use and the size of one.

        Raises
        ------
        IndexDamagedError
            A block is not what was written.
        """
        index = cls(address, view.format.size_bytes)
        index.count = count
        index._elements = bytearray(view.index_elements)
        index._pointers = list(view.pointers)
        place = place_of(count - 1)
        if place is None:
            index.room -= count
            return index
        if place.super_block >= _INLINE_SUPER_BLOCKS:
            number = place.super_block
            data = view.super_block(number)
            pointer = _super_pointer(number)
            base = base_of(view.pointers[pointer], len(data))
            index._super = _Block(
                NewBlock(SUPER_BLOCK, _first_element(number), 2 * len(data)),
                base,
                bytearray(data[:-4]),
                None,
                pointer,
                current=int(view.pointers[pointer] != base),
            )
        data = view.data_block(place)
        base = base_of(view.pointer(place), len(data))
        index._data = _Block(
            NewBlock(DATA_BLOCK, place.start, 2 * len(data)),
            base,
            bytearray(data[:-4]),
            *index._parent(place),
            current=int(view.pointer(place) != base),
        )
        index.room = place.size - place.slot - 1
        return index


class IndexView:
    """The extensible array as the file shows it at one moment.

    Parameters
    ----------
    head
        Header and index block, as they stand in the file.
    size_bytes
        See :class:`ChunkIndex`.
    read
        Returns so many bytes from an address.

    Raises
    ------
    IndexDamagedError
        The head is not what was written, or was being replaced.
    """

    def __init__(self, head: bytes, size_bytes: int, read: Read) -> None:
        self.format = ElementFormat(size_bytes)
        self._read = read
        header, index = head[:HEADER_BYTES], head[HEADER_BYTES:]
        if not (is_intact(header) and is_intact(index)):
            raise IndexDamagedError("the head of the chunk index is damaged")
        self.count: int = struct.unpack_from("<Q", header, 44)[0]
        end = 14 + _INDEX_ELEMENTS * self.format.bytes
        self.index_elements = index[14:end]
        self.pointers: tuple[int, ...] = struct.unpack_from(
            f"<{_POINTERS}Q", index, end
        )
        self._supers: dict[int, bytes] = {}

    def super_block(self, number: int) -> bytes:
        """Return a super block."""
        if number not in self._supers:
            size = _PREFIX_BYTES + 8 * _block_count(number) + 4
            address = self.pointers[_super_pointer(number)]
            self._supers[number] = self._block(b"EASB", address, size)
        return self._supers[number]

    def pointer(self, place: Place) -> int:
        """Return the address of a data block."""
        if place.super_block < _INLINE_SUPER_BLOCKS:
            return self.pointers[_inline_pointer(place)]
        block = self.super_block(place.super_block)
        return struct.unpack_from("<Q", block, _PREFIX_BYTES + 8 * place.number)[0]

    def data_block(self, place: Place) -> bytes:
        """Return a data block."""
        size = _PREFIX_BYTES + place.size * self.format.bytes + 4
        return self._block(b"EADB", self.pointer(place), size)

    def _block(self, signature: bytes, address: int, size: int) -> bytes:
        data = b"" if address == UNDEFINED else self._read(address, size)
        if len(data) != size or data[:4] != signature or not is_intact(data):
            raise IndexDamagedError(f"the chunk index is damaged at byte {address}")
        return data

    def whole(self) -> int:
        """Return how many elements there are before the first that is not there."""
        index = 0
        while index < self.count:
            place = place_of(index)
            size = _INDEX_ELEMENTS if place is None else place.size
            numbers = np.arange(index, min(index + size, self.count))
            try:
                addresses, _ = self.lookup(numbers)
            except IndexDamagedError:
                return index
            absent = np.flatnonzero(addresses == UNDEFINED)
            if absent.size:
                return index + int(absent[0])
            index += len(numbers)
        return index

    def lookup(
        self, numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return addresses and sizes of chunks; sizes are 0 where they are not stored.

        Each block that holds one of them is read once.

        Raises
        ------
        IndexDamagedError
            A block is not what was written, or was being replaced.
        """
        wanted, inverse = np.unique(numbers, return_inverse=True)
        width = self.format.bytes
        parts: list[NDArray[np.uint8]] = []
        done = 0
        while done < len(wanted):
            place = place_of(int(wanted[done]))
            if place is None:
                data, first, size = self.index_elements, 0, _INDEX_ELEMENTS
            else:
                data = self.data_block(place)[_PREFIX_BYTES:-4]
                first, size = int(wanted[done]) - place.slot, place.size
            stop = int(np.searchsorted(wanted, first + size))
            table = np.frombuffer(data, np.uint8).reshape(size, width)
            parts.append(table[wanted[done:stop] - first])
            done = stop
        found = np.concatenate(parts) if parts else np.zeros((0, width), np.uint8)
        return self.format.unpack(found[inverse])
