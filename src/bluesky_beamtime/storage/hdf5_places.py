"""Where the index of an HDF5 dataset has the address of a chunk, by arithmetic alone.

References
----------
HDF5 File Format Specification Version 3.0, section VII.D, "The Extensible Array Index".
The sizes of super blocks and data blocks follow from its creation parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The creation parameters that HDF5 itself uses: bits of the largest index, elements in
# the index block, least pointers of a super block, least elements of a data block. Only
# the last differs, elements of a page as bits: data blocks are never paged here.
MAX_BITS = 32
INDEX_ELEMENTS = 4
LEAST_POINTERS = 4
LEAST_ELEMENTS = 16
PAGE_BITS = 18
PARAMETERS = bytes(
    (MAX_BITS, INDEX_ELEMENTS, LEAST_POINTERS, LEAST_ELEMENTS, PAGE_BITS)
)
"""As they stand in the layout message."""

MAX_FRAMES = (1 << MAX_BITS) - 1
HEADER_BYTES = 72

# Super blocks 0 to 3 have no block of their own: the index block points to their six
# data blocks. The rest, 4 to 28, have.
_SUPER_BLOCKS = 1 + MAX_BITS - (LEAST_ELEMENTS.bit_length() - 1)
INLINE_SUPER_BLOCKS = 2 * (LEAST_POINTERS.bit_length() - 1)
_INLINE_DATA_BLOCKS = 2 * (LEAST_POINTERS - 1)
POINTERS = _INLINE_DATA_BLOCKS + _SUPER_BLOCKS - INLINE_SUPER_BLOCKS
OFFSET_BYTES = (MAX_BITS + 7) // 8
PREFIX_BYTES = 14 + OFFSET_BYTES

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
    rest = index - INDEX_ELEMENTS
    if rest < 0:
        return None
    number = (rest // LEAST_ELEMENTS + 1).bit_length() - 1
    first = first_element(number)
    size = block_elements(number)
    block, slot = divmod(rest - first, size)
    return Place(number, block, first + block * size, size, slot)


def block_elements(super_block: int) -> int:
    """Return the elements of each data block of a super block."""
    return LEAST_ELEMENTS << ((super_block + 1) // 2)


def block_count(super_block: int) -> int:
    """Return the data blocks of a super block."""
    return 1 << (super_block // 2)


def first_element(super_block: int) -> int:
    """Return the first element of a super block, those of the index block aside."""
    return LEAST_ELEMENTS * ((1 << super_block) - 1)


def super_pointer(super_block: int) -> int:
    """Return which of the index block's pointers leads to a super block."""
    return _INLINE_DATA_BLOCKS + super_block - INLINE_SUPER_BLOCKS


def inline_pointer(place: Place) -> int:
    """Return which of the index block's pointers leads to a data block."""
    before = sum(block_count(number) for number in range(place.super_block))
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
    return HEADER_BYTES + 14 + INDEX_ELEMENTS * form.bytes + 8 * POINTERS + 4
