"""Files of documents: JSON lines and msgpack, one document after the other."""

from __future__ import annotations

import gzip
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.kinds import is_list, is_mapping
from bluesky_beamtime.errors import DocumentError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".msgpack", ".jsonl.gz", ".msgpack.gz")
"""What files of documents are called in a folder of them."""

_GZIP = b"\x1f\x8b"
# Arrays of two items, as a suitcase begins each document with.
_PAIR = (0x92, 0xDC, 0xDD)


@dataclass(frozen=True, slots=True)
class FileDocument:
    """One document of a file, or what stands in its place."""

    where: str
    """Such as ``"scan.jsonl, line 17"``."""
    position: int
    """Bytes of the file up to its end."""
    name: Any = None
    """Kind of document, as the file says."""
    doc: Any = None
    """The document; if it cannot be read, the text that stands there."""
    problem: str | None = None
    """Why it cannot be read."""


def find_files(path: Path) -> list[Path]:
    """Return the files of documents that a path stands for, a folder's by name.

    Raises
    ------
    FileNotFoundError
        There is nothing.
    DocumentError
        The folder has no such files.
    """
    if not path.is_dir():
        # Let opening it say what is wrong with it.
        return [path]
    files = sorted(file for file in path.rglob("*") if file.name.endswith(SUFFIXES))
    if not files:
        raise DocumentError(
            f"{str(path)!r} has no files of documents; they end with "
            f"{', '.join(SUFFIXES)}"
        )
    return files


def read_file(path: Path) -> Iterator[FileDocument]:
    """Yield the documents of a file in their order.

    The file may hold JSON lines: ``[name, doc]`` as suitcase-jsonl writes them,
    ``{"name": …, "doc": …}``, or the journal of a beamtime; or msgpack as
    suitcase-msgpack writes it, arrays included. It may be compressed with gzip. Nothing
    in it is executed: pickled objects are refused.

    Raises
    ------
    OSError
        The file cannot be read.
    DocumentError
        It is neither.
    """
    with path.open("rb") as raw:
        first = raw.read(2)
        raw.seek(0)
        file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if first == _GZIP else raw)
        start = file.read(1)
        file.seek(0)
        if not start:
            return
        if start[0] in _PAIR:
            yield from _msgpack(path, file, raw)
        elif start in b"[{ \t\r\n":
            yield from _json_lines(path, file, raw)
        else:
            raise DocumentError(
                f"{str(path)!r} is no file of documents: neither JSON lines nor msgpack"
            )


# -------------------------------------------------------------------------- JSON lines


def _json_lines(path: Path, file: IO[bytes], raw: IO[bytes]) -> Iterator[FileDocument]:
    for number, line in enumerate(file, 1):
        where = f"{path.name}, line {number}"
        position = raw.tell() if raw is not file else file.tell()
        if not line.strip():
            continue
        try:
            name, doc = named_document(decode(line))
        except (DocumentError, RecursionError) as error:
            text = line.decode("utf-8", "replace").rstrip("\n")
            problem = "it is no JSON"
            if not isinstance(error.__cause__, ValueError):
                problem = str(error)
            yield FileDocument(where, position, None, text, problem)
            continue
        yield FileDocument(where, position, name, doc)


def named_document(value: Any) -> tuple[Any, Any]:
    """Return name and document of a pair or of a mapping with those keys.

    Raises
    ------
    DocumentError
        It is something else.
    """
    if is_list(value) and len(value) == 2:
        name, doc = value
    elif is_mapping(value) and {"name", "doc"} <= set(value):
        name, doc = value["name"], value["doc"]
    else:
        raise DocumentError("it is no [name, document]")
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    if not isinstance(name, str) or not is_mapping(doc):
        raise DocumentError("it is no [name, document]")
    return name, doc


# ----------------------------------------------------------------------------- msgpack


def _msgpack(path: Path, file: IO[bytes], raw: IO[bytes]) -> Iterator[FileDocument]:
    unpacker = make_unpacker(file)
    number, end = 0, 0
    while True:
        number += 1
        where = f"{path.name}, document {number}"
        try:
            value = next(unpacker)
        except StopIteration:
            if end != file.tell():
                problem = "it ends in the middle: the file was cut off"
                yield FileDocument(where, end, None, None, problem)
            return
        except Exception as error:
            # Damaged bytes raise whatever they like, and where the next document would
            # begin nobody knows.
            problem = f"it is damaged, and what follows is not read: {error}"
            yield FileDocument(where, end, None, None, problem)
            return
        end = unpacker.tell()
        position = raw.tell() if raw is not file else end
        try:
            name, doc = named_document(value)
        except DocumentError as error:
            yield FileDocument(where, position, None, value, str(error))
            continue
        yield FileDocument(where, position, name, doc)


def make_unpacker(file: Any = None) -> Any:
    """Return a reader of msgpack that knows NumPy's arrays and executes nothing."""
    return _msgpack_module().Unpacker(
        file,
        object_hook=_restore,
        raw=False,
        strict_map_key=False,
        max_buffer_size=2**31 - 1,
        unicode_errors="surrogateescape",
    )


def unpack(content: bytes) -> Any:
    """Return the value of one msgpack message.

    Raises
    ------
    DocumentError
        It is damaged, or holds more than one value.
    """
    unpacker = make_unpacker()
    try:
        unpacker.feed(content)
        value = unpacker.unpack()
    except Exception as error:
        # Damaged bytes raise whatever they like.
        raise DocumentError(f"a message is no msgpack: {error!r}") from error
    if unpacker.tell() != len(content):
        raise DocumentError("a message has something behind its document")
    return value


def _msgpack_module() -> Any:
    return importlib.import_module("msgpack")


def _restore(value: Mapping[Any, Any]) -> Any:
    """Return what msgpack-numpy made a mapping of."""
    marks = {_text(key): item for key, item in value.items()}
    if "complex" in marks and set(marks) == {"complex", "data"}:
        return complex(_text(marks["data"]))
    if set(marks) - {"kind", "shape"} != {"nd", "type", "data"}:
        return value
    if marks.get("kind") in (b"O", "O"):
        raise ValueError("an array of pickled objects is refused")
    dtype = np.dtype(_dtype(marks["type"]))
    array = np.frombuffer(_bytes(marks["data"]), dtype)
    if not marks["nd"]:
        return array[0]
    return array.reshape(marks["shape"]).copy()


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _bytes(value: Any) -> bytes:
    return (
        value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    )


def _dtype(described: Any) -> Any:
    if not is_list(described):
        return _text(described)
    return [
        tuple(tuple(part) if is_list(part) else _text(part) for part in field)
        for field in described
    ]
