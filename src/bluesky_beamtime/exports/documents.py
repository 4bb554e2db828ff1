"""Runs as the documents they were recorded from: JSON lines and msgpack."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database import encode
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat


def write_jsonl(content: RunContent, files: ExportFiles) -> None:
    """Write the documents of a run, a line ``["name", {…}]`` for each.

    Numbers that JSON does not know, arrays of events and the like are tagged values,
    which ``beamtime import`` restores. Frames outside of events stay where they are:
    the documents tell where.
    """
    with files.single().open("w", encoding="utf-8") as file:
        for name, document in _documents(content, files):
            file.write(f"{encode([name, document])}\n")


def write_msgpack(content: RunContent, files: ExportFiles) -> None:
    """Write the documents of a run as suitcase-msgpack does, arrays included."""
    # Any: its types are incomplete.
    library: Any = import_module("msgpack")
    packer = library.Packer(
        default=_packable, use_bin_type=True, unicode_errors="backslashreplace"
    )
    with files.single().open("wb") as file:
        for name, document in _documents(content, files):
            file.write(packer.pack([name, document]))


def _documents(content: RunContent, files: ExportFiles) -> Iterator[Any]:
    run = content.run
    # Those of frames come on top.
    total = 2 + len(run.stream_names) + run.num_events
    for number, document in enumerate(run.documents(), 1):
        yield document
        files.tell("documents", number, max(number, total))


def _packable(value: Any) -> Any:
    """Return what msgpack-numpy makes of a value of NumPy."""
    if isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        described = array.dtype.descr if array.dtype.names else array.dtype.str
        return {
            b"nd": True,
            b"type": described,
            b"kind": b"V" if array.dtype.names else b"",
            b"shape": array.shape,
            b"data": array.tobytes(),
        }
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    if isinstance(value, complex):
        return {b"complex": True, b"data": repr(value)}
    raise ExportError(f"msgpack has no type for {value!r:.80}; jsonl has")


jsonl = ExportFormat("jsonl", "jsonl", write_jsonl)
msgpack = ExportFormat("msgpack", "msgpack", write_msgpack)
