"""The index of an HDF5 dataset as a reader sees it."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.storage.hdf5_format import UNDEFINED, is_intact
from bluesky_beamtime.storage.hdf5_places import (
    HEADER_BYTES,
    INDEX_ELEMENTS,
    INLINE_SUPER_BLOCKS,
    POINTERS,
    PREFIX_BYTES,
    ElementFormat,
    IndexDamagedError,
    Place,
    Read,
    block_count,
    inline_pointer,
    place_of,
    super_pointer,
)


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
        end = 14 + INDEX_ELEMENTS * self.format.bytes
        self.index_elements = index[14:end]
        self.pointers: tuple[int, ...] = struct.unpack_from(f"<{POINTERS}Q", index, end)
        self._supers: dict[int, bytes] = {}

    def super_block(self, number: int) -> bytes:
        """Return a super block."""
        if number not in self._supers:
            size = PREFIX_BYTES + 8 * block_count(number) + 4
            address = self.pointers[super_pointer(number)]
            self._supers[number] = self._block(b"EASB", address, size)
        return self._supers[number]

    def pointer(self, place: Place) -> int:
        """Return the address of a data block."""
        if place.super_block < INLINE_SUPER_BLOCKS:
            return self.pointers[inline_pointer(place)]
        block = self.super_block(place.super_block)
        return struct.unpack_from("<Q", block, PREFIX_BYTES + 8 * place.number)[0]

    def data_block(self, place: Place) -> bytes:
        """Return a data block."""
        size = PREFIX_BYTES + place.size * self.format.bytes + 4
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
            size = INDEX_ELEMENTS if place is None else place.size
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
                data, first, size = self.index_elements, 0, INDEX_ELEMENTS
            else:
                data = self.data_block(place)[PREFIX_BYTES:-4]
                first, size = int(wanted[done]) - place.slot, place.size
            stop = int(np.searchsorted(wanted, first + size))
            table = np.frombuffer(data, np.uint8).reshape(size, width)
            parts.append(table[wanted[done:stop] - first])
            done = stop
        found = np.concatenate(parts) if parts else np.zeros((0, width), np.uint8)
        return self.format.unpack(found[inverse])
