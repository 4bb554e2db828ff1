"""The bytes of HDF5 metadata: superblock, object headers and their messages.

Only what a file of frames needs is here, in the versions that HDF5 1.10 and newer read:
superblock 3, object headers 2, chunked layout 4. Every structure ends with a lookup3
checksum of its own, by which a reader that looks while it is being replaced knows to
look again.

References
----------
HDF5 File Format Specification Version 3.0
(https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html), whose section
numbers stand at each function.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, cast

import numpy as np

UNDEFINED = (1 << 64) - 1
"""The address of what is not there."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUPERBLOCK_BYTES = 48
SWMR_WRITING = 0b101
"""Consistency flags of a file that a writer has open for readers to look into."""

# A message's size has two bytes; texts are cut well below, with room for their names.
_LONGEST_TEXT = 60_000
_LONGEST_MESSAGE = (1 << 16) - 1


@cache
def _lookup3() -> Callable[[Any, int], int]:
    # Without types; imported late because not every user writes HDF5.
    return import_module("numcodecs.jenkins").jenkins_lookup3


def lookup3(data: bytes | bytearray | memoryview) -> int:
    """Return Bob Jenkins's lookup3 hash, which HDF5 uses for its metadata."""
    return _lookup3()(bytes(data), 0)


def checksummed(data: bytes | bytearray) -> bytes:
    """Return ``data`` with its checksum behind it."""
    return bytes(data) + struct.pack("<I", lookup3(data))


def is_intact(data: bytes | memoryview) -> bool:
    """Say whether what :func:`checksummed` returned is still the same."""
    view = memoryview(data)
    return len(view) > 4 and struct.pack("<I", lookup3(view[:-4])) == bytes(view[-4:])


# ------------------------------------------------------------------ superblock (II.A)


@dataclass(frozen=True, slots=True)
class Superblock:
    """The head of a file, version 2 or 3."""

    root: int
    """Address of the root group."""
    end: int
    """Where allocated space ends; at most the size of the file."""
    flags: int = 0
    """Consistency flags: 1 open for writing, 4 open for SWMR writing."""
    extension: int = UNDEFINED
    """Address of the superblock's extension."""
    version: int = 3
    """Version of the superblock."""

    def to_bytes(self) -> bytes:
        """Return its 48 bytes."""
        head = struct.pack(
            "<8sBBBBQQQQ",
            SIGNATURE,
            self.version,
            8,
            8,
            self.flags,
            0,
            self.extension,
            self.end,
            self.root,
        )
        return checksummed(head)

    @classmethod
    def from_bytes(cls, data: bytes) -> Superblock | None:
        """Read a superblock; None for anything but an intact version 2 or 3."""
        if len(data) < SUPERBLOCK_BYTES or not is_intact(data[:SUPERBLOCK_BYTES]):
            return None
        (signature, version, offsets, lengths, flags, base, extension, end, root) = (
            struct.unpack_from("<8sBBBBQQQQ", data)
        )
        if signature != SIGNATURE or version not in (2, 3):
            return None
        if (offsets, lengths, base) != (8, 8, 0):
            return None
        return cls(root, end, flags, extension, version)


# -------------------------------------------------------------- object headers (IV.A)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an object header."""

    kind: int
    """Type of the message."""
    body: bytes
    """Its data."""
    flags: int = 0
    """1 for what never changes."""

    def to_bytes(self) -> bytes:
        """Return the message with its header."""
        return struct.pack("<BHB", self.kind, len(self.body), self.flags) + self.body


def _padded(messages: Sequence[Message], size: int | None) -> bytes:
    """Return messages filled up to ``size`` bytes with null messages."""
    data = b"".join(message.to_bytes() for message in messages)
    rest = 0 if size is None else size - len(data)
    if rest < 0:
        raise ValueError(f"{len(data)} bytes of messages do not fit into {size}")
    while rest >= 4:
        body = min(rest - 4, _LONGEST_MESSAGE)
        # A gap of less than a message's header stands for itself at the very end.
        data += Message(0, bytes(body)).to_bytes()
        rest -= 4 + body
    return data + bytes(rest)


def object_header(messages: Sequence[Message], size: int | None = None) -> bytes:
    """Return an object header, version 2 (IV.A.1.b), without times.

    Parameters
    ----------
    messages
        Its messages.
    size
        Bytes for messages, filled up with null messages.
    """
    data = _padded(messages, size)
    # Flags 2: the size has four bytes.
    return checksummed(b"OHDR" + struct.pack("<BBI", 2, 2, len(data)) + data)


def header_block(messages: Sequence[Message], size: int) -> bytes:
    """Return a continuation block of an object header, ``size`` bytes in all."""
    return checksummed(b"OCHK" + _padded(messages, size - 8))


def continuation(address: int, size: int) -> Message:
    """Return the message that points to a continuation block (IV.A.2.q)."""
    return Message(0x10, struct.pack("<QQ", address, size))


# -------------------------------------------------------------------- messages (IV.A.2)


def datatype(dtype: np.dtype[Any]) -> bytes:
    """Return the datatype of numbers as h5py writes it (IV.A.2.d).

    Complex numbers are pairs ``r`` and ``i``, booleans an enumeration of FALSE and
    TRUE: HDF5 1.10 has no types of its own for them.
    """
    size = dtype.itemsize
    big = dtype.str.startswith(">")
    if dtype.kind in "iu":
        signed = 8 if dtype.kind == "i" else 0
        head = struct.pack("<BBBBI", 0x10, signed | big, 0, 0, size)
        return head + struct.pack("<HH", 0, 8 * size)
    if dtype.kind == "f":
        # Sign, place and size of the exponent, size of the mantissa, bias (IEEE 754).
        sign, at, exponent, mantissa, bias = {
            2: (15, 10, 5, 10, 15),
            4: (31, 23, 8, 23, 127),
            8: (63, 52, 11, 52, 1023),
        }[size]
        # 0x20: the mantissa's highest bit is implied.
        head = struct.pack("<BBBBI", 0x11, 0x20 | big, sign, 0, size)
        place = struct.pack("<HHBBBBI", 0, 8 * size, at, exponent, 0, mantissa, bias)
        return head + place
    if dtype.kind == "c":
        part = datatype(np.dtype(f"{dtype.str[0]}f{size // 2}"))
        return (
            struct.pack("<BBBBI", 0x36, 2, 0, 0, size)
            + b"r\0\0"
            + part
            + b"i\0"
            + bytes([size // 2])
            + part
        )
    if dtype.kind == "b":
        head = struct.pack("<BBBBI", 0x38, 2, 0, 0, 1)
        return head + datatype(np.dtype("i1")) + b"FALSE\0TRUE\0\0\1"
    raise TypeError(f"no HDF5 datatype for {dtype}")


def _text_type(size: int) -> bytes:
    # Fixed length, filled up with NUL, UTF-8.
    return struct.pack("<BBBBI", 0x13, 0x11, 0, 0, size)


def dataspace(
    shape: Sequence[int], maximum: Sequence[int | None] | None = None
) -> bytes:
    """Return a dataspace (IV.A.2.b); None in ``maximum`` is no limit."""
    kind = 1 if shape else 0
    head = struct.pack("<BBBB", 2, len(shape), maximum is not None, kind)
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    if maximum is not None:
        limits = [UNDEFINED if size is None else size for size in maximum]
        sizes += struct.pack(f"<{len(limits)}Q", *limits)
    return head + sizes


def fill_value() -> bytes:
    """Return the default fill value of chunks allocated one by one (IV.A.2.f)."""
    return bytes((3, 0x0B))


@dataclass(frozen=True, slots=True)
class Filter:
    """One step that a chunk went through before it was written."""

    number: int
    """Its registered number."""
    name: str
    """Its name, for numbers from 256 on."""
    values: tuple[int, ...]
    """What it needs to know."""


def filter_pipeline(filters: Sequence[Filter]) -> bytes:
    """Return a filter pipeline, version 2 (IV.A.2.l)."""
    data = struct.pack("<BB", 2, len(filters))
    for step in filters:
        name = step.name.encode() + b"\0" if step.number >= 256 else b""
        length = struct.pack("<H", len(name)) if name else b""
        data += struct.pack("<H", step.number) + length
        # Flags 0: a chunk never skips this filter.
        data += struct.pack("<HH", 0, len(step.values)) + name
        data += struct.pack(f"<{len(step.values)}I", *step.values)
    return data


def chunked_layout(
    chunk: Sequence[int], itemsize: int, index: bytes, address: int
) -> bytes:
    """Return a chunked layout, version 4, with an extensible array (IV.A.2.i)."""
    sizes = (*chunk, itemsize)
    width = max(1, (max(sizes).bit_length() + 7) // 8)
    head = struct.pack("<BBBBB", 4, 2, 0, len(sizes), width)
    data = b"".join(size.to_bytes(width, "little") for size in sizes)
    return head + data + bytes((4,)) + index + struct.pack("<Q", address)


def group(links: Mapping[str, int], attributes: Sequence[Message]) -> list[Message]:
    """Return the messages of a small group (IV.A.2.c, g and k)."""
    nowhere = struct.pack("<QQ", UNDEFINED, UNDEFINED)
    found = [
        Message(0x02, b"\0\0" + nowhere),
        Message(0x0A, b"\0\0", 1),
        attribute_info(),
    ]
    for name, address in links.items():
        text = name.encode()
        # Flags 0: a hard link, whose ASCII name has one byte of length.
        body = struct.pack("<BBB", 1, 0, len(text)) + text
        found.append(Message(0x06, body + struct.pack("<Q", address)))
    return [*found, *attributes]


def attribute_info() -> Message:
    """Return the message which says that attributes stand in the header (IV.A.2.v)."""
    return Message(0x15, b"\0\0" + struct.pack("<QQ", UNDEFINED, UNDEFINED))


# ------------------------------------------------------------------------ attributes


def attribute(name: str, value: Any) -> list[Message]:
    """Return the messages of one attribute (IV.A.2.m).

    Texts, numbers, and lists of either are stored as such; anything else as JSON. A
    text that is too long for one attribute goes on in ``<name>~2`` and so on.
    """
    if isinstance(value, str):
        return _text(name, value.encode("utf-8", "replace"))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = _number(value)
        if number is not None:
            return [_attribute(name, datatype(number.dtype), (), number.tobytes())]
    if isinstance(value, (list, tuple)) and value:
        items = cast("Sequence[Any]", value)
        kinds: set[Any] = {type(item) for item in items}
        if kinds in ({int}, {float}):
            numbers = _number(list(items))
            if numbers is not None and numbers.nbytes < _LONGEST_TEXT:
                place = (len(numbers),)
                data = numbers.tobytes()
                return [_attribute(name, datatype(numbers.dtype), place, data)]
        if kinds == {str}:
            texts = [item.encode("utf-8", "replace") for item in items]
            size = max(1, *map(len, texts))
            if size * len(texts) < _LONGEST_TEXT:
                data = b"".join(text.ljust(size, b"\0") for text in texts)
                return [_attribute(name, _text_type(size), (len(texts),), data)]
    return _text(name, json.dumps(value).encode())


def _number(value: Any) -> Any:
    numbers = np.asarray(value)
    return numbers if numbers.dtype.kind in "iuf" else None


def _text(name: str, text: bytes) -> list[Message]:
    found: list[Message] = []
    for start in range(0, max(1, len(text)), _LONGEST_TEXT):
        part = text[start : start + _LONGEST_TEXT] or b"\0"
        label = f"{name}~{len(found) + 1}" if found else name
        found.append(_attribute(label, _text_type(len(part)), (), part))
    return found


def _attribute(name: str, kind: bytes, shape: tuple[int, ...], data: bytes) -> Message:
    label = name.encode("utf-8", "replace") + b"\0"
    space = dataspace(shape)
    # Version 3, the name in UTF-8.
    head = struct.pack("<BBHHHB", 3, 0, len(label), len(kind), len(space), 1)
    return Message(0x0C, head + label + kind + space + data)
