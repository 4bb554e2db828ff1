"""The converter's own numbers, chunk after chunk in a ``.dt-raw`` file.

Layout, version 2; all integers little-endian::

    uint32  length of the header
    JSON    header
    then for each chunk
        uint32  length of the chunk's header
        JSON    chunk's header
        bytes   (channels, valid_samples) numbers, one channel after the other

A chunk's header says ``seq``, ``event_kind``, ``first_sample_index``,
``valid_samples``, ``buffer_capacity``, ``t_mono_ns``, ``t_utc``, ``flags``, the
``crc32c`` of the numbers, and ``error`` where there was one.
A file whose last chunk is cut off is read up to the chunk before.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from bluesky_beamtime.errors import SinkSchemaError, SinkWriteError
from bluesky_beamtime.sinks.append_file import (
    AppendFile,
    check_choice,
    refuse_existing,
)
from bluesky_beamtime.sinks.base import ThreadedSink
from bluesky_beamtime.sinks.misuse import check_block
from bluesky_beamtime.sinks.raw_reader import RawFile, RawFileHeader, checksum
from bluesky_beamtime.sinks.records import DaqBlock

RAW_FORMAT_VERSION = 2
"""Version of the layout."""


class RawCountsSink(ThreadedSink):
    """Writes the raw codes of blocks to a ``.dt-raw`` file.

    Each chunk is one write to the file: when :meth:`write_raw` or
    :meth:`write_raw_nowait` returns, it survives ``kill -9``; after :meth:`flush` or
    :meth:`close` it survives a power cut. A chunk that was cut off half-way is left out
    by the reader, and taken away when the file is opened again with ``append=True``.

    :meth:`write_raw_nowait` writes in the thread that calls it, such as the one that
    drains a driver's buffers: nothing that happens in an event loop delays it.
    :meth:`write_raw` is for event loops, and does not hold them up.

    Parameters
    ----------
    path
        The file; its folder is made. One that has something in it is refused, unless
        ``append`` or ``overwrite`` is set.
    file_metadata
        Stands under ``metadata`` in the header; JSON must be able to hold it.
    append
        Go on after what is in the file.
    overwrite
        Begin anew where a file is.
    """

    kind = "raw"

    def __init__(
        self,
        path: str | Path,
        *,
        file_metadata: Mapping[str, Any] | None = None,
        append: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        check_choice(append, overwrite)
        self._path = Path(path)
        self._metadata = dict(file_metadata or {})
        try:
            json.dumps(self._metadata, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"file_metadata goes into a header of JSON, which cannot hold it: "
                f"{error}"
            ) from error
        self._append, self._overwrite = append, overwrite
        self._file: AppendFile | None = None
        self._header: RawFileHeader | None = None
        # What the last chunk had: the next is not looked at again if it has the same.
        self._layout: tuple[np.dtype[Any], tuple[str, ...]] | None = None
        self._chunks = 0
        # Threads that write and the sink's own take turns at the file.
        self._writing = threading.Lock()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def target(self) -> str:
        """The file, as text."""
        return str(self._path)

    async def write_raw(self, block: DaqBlock) -> None:
        """Write the raw codes of one block: all of them, or nothing and an error.

        Raises
        ------
        SinkStateError
            It is not open.
        SinkSchemaError
            Dtype or channels are not those of the file.
        SinkWriteError
            The block has no raw codes, or the disk refused.
        """
        check_block(self, "write_raw", block)
        await self._work("write_raw", self._write_block, block, records=[block])

    def write_raw_nowait(self, block: DaqBlock) -> None:
        """Write the raw codes of one block, in the thread that calls.

        Waits for nothing but the file and other writers of it. Raises what
        :meth:`write_raw` raises.
        """
        check_block(self, "write_raw_nowait", block)
        self.check_open("write_raw_nowait", [block])
        self._explain("write_raw_nowait", lambda: self._write_block(block), [block])

    # ------------------------------------------------------------------------ work

    def _open(self, again: bool) -> None:
        keep = again or self._append
        refuse_existing(
            self._path, "RawCountsSink", append=keep, overwrite=self._overwrite
        )
        self._header, self._layout, self._chunks = None, None, 0
        self._file = AppendFile(self._path, keep=keep, whole=self._whole)

    def _whole(self, file: BinaryIO) -> int:
        if not file.seek(0, os.SEEK_END):
            return 0
        file.seek(0)
        raw = RawFile(file, self._path)
        if raw.header is None:
            return 0
        self._header = raw.header
        self._chunks = sum(1 for _ in raw)
        return raw.good

    def _close(self) -> None:
        with self._writing:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _flush(self) -> None:
        with self._writing:
            assert self._file is not None
            self._file.sync()

    def _counts(self) -> dict[str, Any]:
        return {"chunks_written": self._chunks}

    def _write_block(self, block: DaqBlock) -> None:
        codes = block.raw_codes
        if codes is None:
            raise SinkWriteError(
                "block has no raw_codes: the device was not asked to keep them. "
                "CsvSink, ParquetSink and others take its data"
            )
        if codes.dtype.kind not in "biufc":
            raise SinkSchemaError(
                f"raw_codes of the type {codes.dtype} are no numbers; a .dt-raw file "
                "holds those of a converter"
            )
        with self._writing:
            # Another thread may have closed it meanwhile.
            self.check_open("write_raw", [block])
            assert self._file is not None
            before: list[bytes] = []
            header = self._header
            if header is None:
                content = file_header(block, codes, self._metadata)
                before = _framed(json.dumps(content).encode())
                header = RawFileHeader.of(content)
            layout = codes.dtype, block.channels
            if layout != self._layout:
                _check_fits(header, block, codes, self._path)
            self._file.append(*before, *_chunk(self._chunks, block, codes))
            self._header, self._layout = header, layout
            self._chunks += 1


def _framed(text: bytes) -> list[bytes]:
    return [struct.pack("<I", len(text)), text]


def _iso(value: Any) -> str | None:
    return None if value is None else value.isoformat()


def file_header(
    block: DaqBlock, codes: NDArray[Any], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the header of a file that begins with a block."""
    started = block.task_started_at or block.read_started_at or block.t_utc
    return {
        "format_version": RAW_FORMAT_VERSION,
        "task": block.task,
        "device": block.device,
        "channels": [
            {"name": channel, "unit": block.units.get(channel)}
            for channel in block.channels
        ],
        "sample_rate_hz": block.sample_rate_hz,
        "block_period_ns": block.block_period_ns,
        "dtype": codes.dtype.newbyteorder("=").name,
        "n_channels": len(block.channels),
        "samples_per_buffer": int(codes.shape[1]),
        "task_started_at": _iso(started),
        "metadata": dict(metadata),
        "byte_order": "little",
    }


def _check_fits(
    header: RawFileHeader, block: DaqBlock, codes: NDArray[Any], path: Path
) -> None:
    dtype = codes.dtype.newbyteorder("=").name
    names = tuple(header.channel_names)
    if dtype != header.dtype or block.channels != names:
        raise SinkSchemaError(
            f"{path} holds {header.dtype} of the channels {', '.join(names)}; a block "
            f"of {dtype} of {', '.join(block.channels)} needs a file of its own"
        )


def _chunk(seq: int, block: DaqBlock, codes: NDArray[Any]) -> list[bytes | memoryview]:
    valid = block.samples_per_channel
    dtype = codes.dtype.newbyteorder("<")
    # The bytes as they lie there: the file takes them without a copy.
    payload = np.ascontiguousarray(codes[:, :valid], dtype).reshape(-1).view(np.uint8)
    flags: list[str] = []
    if block.error is not None:
        flags.append("overrun_marker" if _is_overrun(block.error) else "error")
    if valid < codes.shape[1]:
        flags.append("partial")
    header: dict[str, Any] = {
        "seq": seq,
        "event_kind": "buffer_done_with_flags" if flags else "buffer_done",
        "first_sample_index": block.first_sample_index,
        "valid_samples": valid,
        "buffer_capacity": int(codes.shape[1]),
        "t_mono_ns": block.t_mono_ns,
        # In UTC, as all times of blocks are: written as `isoformat` would.
        "t_utc": block.t_utc,
        "flags": flags,
        "crc32c": checksum(payload),
    }
    if block.error is not None:
        header["error"] = f"{type(block.error).__name__}: {block.error}"
    return [*_framed(_json(header)), payload.data]


def _json(header: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(header)
    except TypeError:
        # A number of more than 64 bits, or text that UTF-8 has no bytes for.
        return json.dumps(header, default=datetime.isoformat).encode()


def _is_overrun(error: BaseException) -> bool:
    return "overrun" in f"{type(error).__name__} {error}".casefold()
