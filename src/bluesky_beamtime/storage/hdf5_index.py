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

from bluesky_beamtime.storage.hdf5_format import UNDEFINED, checksummed
from bluesky_beamtime.storage.hdf5_index_view import IndexView
from bluesky_beamtime.storage.hdf5_places import (
    DATA_BLOCK,
    HEADER_BYTES,
    INDEX_ELEMENTS,
    INLINE_SUPER_BLOCKS,
    LEAST_ELEMENTS,
    LEAST_POINTERS,
    MAX_BITS,
    OFFSET_BYTES,
    PAGE_BITS,
    POINTERS,
    PREFIX_BYTES,
    SUPER_BLOCK,
    ElementFormat,
    Place,
    block_count,
    block_elements,
    first_element,
    head_bytes,
    inline_pointer,
    place_of,
    super_pointer,
)


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
        self.room = INDEX_ELEMENTS
        """How many elements still fit where the next one goes."""
        self._elements = bytearray(self.format.nothing * INDEX_ELEMENTS)
        self._pointers = [UNDEFINED] * POINTERS
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
        start = first_element(place.super_block)
        known = self._super is not None and self._super.new.start == start
        if place.super_block >= INLINE_SUPER_BLOCKS and not known:
            size = PREFIX_BYTES + 8 * block_count(place.super_block) + 4
            blocks.append(NewBlock(SUPER_BLOCK, start, 2 * size))
        if self._data is None or self._data.new.start != place.start:
            size = PREFIX_BYTES + place.size * self.format.bytes + 4
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
            data += b"\xff" * (8 * block_count(place.super_block))
            block = _Block(new, address, data, None, super_pointer(place.super_block))
            self._super = block
        else:
            parent, pointer = self._parent(place)
            # HDF5 counts the index block's own data blocks through, here too.
            number = place.number if parent else pointer
            start = first_element(place.super_block) + number * place.size
            data = self._prefix(b"EADB", start) + self.format.nothing * place.size
            block = _Block(new, address, data, parent, pointer)
            self._data = block
            self.room = place.size
        self._changed.append(block)

    def _parent(self, place: Place) -> tuple[_Block | None, int]:
        if place.super_block < INLINE_SUPER_BLOCKS:
            return None, inline_pointer(place)
        return self._super, place.number

    def _prefix(self, signature: bytes, start: int) -> bytearray:
        head = signature + struct.pack("<BBQ", 0, self.format.client, self.address)
        return bytearray(head + start.to_bytes(OFFSET_BYTES, "little"))

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
                    at = PREFIX_BYTES + 8 * block.pointer
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
        elements = INDEX_ELEMENTS
        for number in range(last.super_block + 1 if last else 0):
            count, size = block_count(number), block_elements(number)
            if number >= INLINE_SUPER_BLOCKS:
                supers += 1
                super_bytes += PREFIX_BYTES + 8 * count + 4
            if last is not None and number == last.super_block:
                count = last.number + 1
            blocks += count
            block_bytes += count * (PREFIX_BYTES + size * self.format.bytes + 4)
            elements += count * size
        client = self.format.client
        header = b"EAHD" + struct.pack("<BBB", 0, client, self.format.bytes)
        header += bytes(
            (MAX_BITS, INDEX_ELEMENTS, LEAST_ELEMENTS, LEAST_POINTERS, PAGE_BITS)
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
        index += struct.pack(f"<{POINTERS}Q", *self._pointers)
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
        if place.super_block >= INLINE_SUPER_BLOCKS:
            number = place.super_block
            data = view.super_block(number)
            pointer = super_pointer(number)
            base = base_of(view.pointers[pointer], len(data))
            index._super = _Block(
                NewBlock(SUPER_BLOCK, first_element(number), 2 * len(data)),
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
