"""Reading ``.dt-raw`` files back."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from bluesky_beamtime.errors import ErrorContext, SinkSchemaError
from bluesky_beamtime.sinks.records import DaqBlock

logger = logging.getLogger("bluesky_beamtime.sinks")


@cache
def _crc32c() -> Callable[[Any], int]:
    return import_module("google_crc32c").value


def checksum(payload: Any) -> int:
    """Return the crc32c of bytes, or of an array of them."""
    return _crc32c()(payload)


class RawBlockError(RuntimeError):
    """Stands in the ``error`` of a block that was read back, with its flags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFileHeader:
    """The header of a ``.dt-raw`` file; ``header["dtype"]`` works as well."""

    format_version: int
    """Version of the layout, 2."""
    device: str
    """Name of the device."""
    task: str | None
    """What it was doing."""
    channels: tuple[Mapping[str, Any], ...]
    """``name`` and ``unit`` of each channel."""
    sample_rate_hz: float | None
    """Samples per second and channel."""
    block_period_ns: int | None
    """Nanoseconds from one sample to the next."""
    dtype: str
    """NumPy's name of the type of the numbers; they are little-endian."""
    n_channels: int
    """Number of channels."""
    samples_per_buffer: int
    """Samples per channel that the device's buffer holds."""
    task_started_at: datetime | None
    """When the task began."""
    metadata: Mapping[str, Any]
    """What the writer's user gave."""
    raw: Mapping[str, Any] = field(repr=False)
    """All of it, as it stands in the file."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> RawFileHeader:
        """Return the header that JSON says."""
        started = raw.get("task_started_at")
        channels = tuple(raw.get("channels", ()))
        return cls(
            format_version=int(raw.get("format_version", 0)),
            device=raw.get("device", ""),
            task=raw.get("task"),
            channels=channels,
            sample_rate_hz=raw.get("sample_rate_hz"),
            block_period_ns=raw.get("block_period_ns"),
            dtype=raw["dtype"],
            n_channels=int(raw.get("n_channels", len(channels))),
            samples_per_buffer=int(raw.get("samples_per_buffer", 0)),
            task_started_at=datetime.fromisoformat(started) if started else None,
            metadata=raw.get("metadata") or {},
            raw=raw,
        )

    def __getitem__(self, key: str) -> Any:
        return self.raw[key]

    @property
    def channel_names(self) -> list[str]:
        """Name of each channel."""
        return [
            channel.get("name") or f"ch{number}"
            for number, channel in enumerate(self.channels)
        ]


class RawFile:
    """The chunks of an open ``.dt-raw`` file.

    Iterating yields a block per whole chunk; where one is cut off it ends, and ``good``
    says how many bytes are whole.

    Parameters
    ----------
    file
        The file, at its beginning.
    path
        Its path, for messages.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.good = 0
        self.header: RawFileHeader | None = None
        content = self._read_json()
        if content is None:
            return
        try:
            self.header = RawFileHeader.of(content)
            np.dtype(self.header.dtype)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._no_raw_file() from error
        if self.header.format_version != 2:
            raise self._no_raw_file()
        self.good = file.tell()

    def _no_raw_file(self) -> SinkSchemaError:
        return SinkSchemaError(
            f"{self._path} is no .dt-raw file of version 2; look at where it came from",
            context=ErrorContext("iter_blocks", str(self._path)),
        )

    def _read_json(self) -> Mapping[str, Any] | None:
        """Return the next header, None if it is not all there."""
        length = self._file.read(4)
        if len(length) < 4:
            return None
        (count,) = struct.unpack("<I", length)
        text = self._file.read(count)
        if len(text) < count:
            # Four bytes of anything are a length: only a beginning of JSON is a header.
            if text[:1] not in (b"", b"{"):
                raise self._no_raw_file()
            return None
        try:
            content = json.loads(text)
        except ValueError as error:
            raise self._damaged() from error
        if not isinstance(content, dict):
            raise self._damaged()
        return cast("dict[str, Any]", content)

    def _damaged(self) -> SinkSchemaError:
        if self.header is None:
            return self._no_raw_file()
        return SinkSchemaError(
            f"{self._path} is damaged after byte {self.good}: what should be the "
            "header of a chunk is none. The chunks before it are good",
            context=ErrorContext("iter_blocks", str(self._path)),
        )

    def __iter__(self) -> Iterator[DaqBlock]:
        header = self.header
        if header is None:
            return
        dtype = np.dtype(header.dtype).newbyteorder("<")
        while (chunk := self._read_json()) is not None:
            try:
                valid = int(chunk["valid_samples"])
            except (KeyError, TypeError, ValueError) as error:
                raise self._damaged() from error
            payload = self._file.read(valid * header.n_channels * dtype.itemsize)
            if len(payload) < valid * header.n_channels * dtype.itemsize:
                break
            if chunk.get("crc32c") not in (None, checksum(payload)):
                raise SinkSchemaError(
                    f"chunk {chunk.get('seq')} of {self._path} does not have the "
                    "checksum that it was written with: the file was changed "
                    "afterwards. The chunks before it are good",
                    context=ErrorContext("iter_blocks", str(self._path)),
                )
            codes = np.frombuffer(payload, dtype).reshape(header.n_channels, valid)
            codes = codes.astype(header.dtype)
            yield _block(header, chunk, codes)
            self.good = self._file.tell()


def _block(header: RawFileHeader, chunk: Mapping[str, Any], codes: Any) -> DaqBlock:
    names = header.channel_names
    units = [channel.get("unit") for channel in header.channels]
    moment = chunk.get("t_utc")
    flags = [flag for flag in chunk.get("flags", ()) if flag != "partial"]
    text = chunk.get("error") or ", ".join(flags)
    return DaqBlock(
        device=header.device,
        task=header.task,
        channels=tuple(names),
        data=codes,
        raw_codes=codes,
        block_index=int(chunk["seq"]),
        first_sample_index=int(chunk.get("first_sample_index", 0)),
        sample_rate_hz=header.sample_rate_hz,
        block_period_ns=header.block_period_ns,
        t_mono_ns=chunk.get("t_mono_ns"),
        t_utc=datetime.fromisoformat(moment)
        if moment
        else header.task_started_at or datetime.fromtimestamp(0, UTC),
        task_started_at=header.task_started_at,
        units=dict(zip(names, units, strict=True)),
        error=RawBlockError(text) if flags else None,
        metadata={"chunk": dict(chunk)},
    )


def read_file_header(path: str | Path) -> RawFileHeader:
    """Return the header of a ``.dt-raw`` file.

    Raises
    ------
    SinkSchemaError
        It is no such file, or nothing was written to it yet.
    OSError
        It cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        header = RawFile(file, path).header
    if header is None:
        raise SinkSchemaError(
            f"{path} has no whole header: nothing was written to it",
            context=ErrorContext("read_file_header", str(path)),
        )
    return header


def iter_blocks(path: str | Path) -> Iterator[DaqBlock]:
    """Yield the chunks of a ``.dt-raw`` file as blocks.

    Works while the file grows, and after its writer was killed: a last chunk that is
    cut off is left out, with a warning in the log. ``data`` and ``raw_codes`` are both
    the converter's numbers; a chunk with flags has them in its ``error``, and what the
    file says of it stands in ``metadata["chunk"]``.

    Raises
    ------
    SinkSchemaError
        It is no such file, or damaged elsewhere than at its end.
    OSError
        It cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        raw = RawFile(file, path)
        yield from raw
        file.seek(0, 2)
        if file.tell() > raw.good:
            logger.warning(
                "sinks.raw.torn_tail",
                extra={"path": str(path), "bytes_left_out": file.tell() - raw.good},
            )
