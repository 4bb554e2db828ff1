"""Runs as Parquet: a table for each stream, frames included."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database import encode
from bluesky_beamtime.database.variable_names import free_name
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.fields import Field, StreamContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.readings import write_readings
from bluesky_beamtime.exports.texts import json_text, plain_text
from bluesky_beamtime.sinks import ParquetSink

_GROUP_BYTES = 8 << 20
_GROUP_ROWS = 1 << 16


def write_parquet(
    content: RunContent,
    files: ExportFiles,
    *,
    rows: Literal["events", "readings"] = "events",
) -> None:
    """Write a Parquet file for each stream.

    Units stand in the metadata of each column, the start document in that of the file.
    A field whose units changed within the run has a column ``<key>_unit`` instead.
    Arrays and frames are fixed-shape tensors, which readers that do not know them see
    as lists. A value that is not there is null; what has no type of its own is JSON.

    Parameters
    ----------
    content, files
        The run, and where to.
    rows
        ``"events"`` is a row for each event; ``"readings"`` one file for all streams,
        with a row for each object of each event, as a live sink writes it.
    """
    if rows == "readings":
        write_readings(content, files, ParquetSink)
        return
    streams = list(content.streams.values())
    paths = files.several([stream.name for stream in streams])
    pq: Any = import_module("pyarrow.parquet")
    told = {"start": encode(content.run.start)}
    if content.run.stop is not None:
        told["stop"] = encode(content.run.stop)
    for stream, path in zip(streams, paths, strict=True):
        columns = _columns(stream)
        schema = _schema(columns, told | {"stream": stream.name})
        # Numbers hardly repeat, and to look for it costs more than all the rest.
        texts = [column.name for column in columns if column.is_text]
        with pq.ParquetWriter(path, schema, use_dictionary=texts) as writer:
            _write_rows(writer, schema, stream, columns, files)


def _columns(stream: StreamContent) -> list[_Column | _Units]:
    columns = [
        _Column(field, stream.names[key]) for key, field in stream.fields.items()
    ]
    taken = [column.name for column in columns]
    changed = [field for field in stream.fields.values() if field.units_of_rows]
    units = [_Units(field, free_name(f"{field.key}_unit", taken)) for field in changed]
    return [*columns, *units]


def _schema(columns: list[_Column | _Units], told: Mapping[str, str]) -> Any:
    pa: Any = import_module("pyarrow")
    head = [
        pa.field("seq_num", pa.int64()),
        pa.field("time", pa.float64(), metadata={"units": "s"}),
    ]
    return pa.schema([*head, *(column.described() for column in columns)], told)


def _write_rows(
    writer: Any,
    schema: Any,
    stream: StreamContent,
    columns: list[_Column | _Units],
    files: ExportFiles,
) -> None:
    pa: Any = import_module("pyarrow")
    row_bytes = sum(column.row_bytes for column in columns)
    step = max(1, min(_GROUP_ROWS, _GROUP_BYTES // max(1, row_bytes)))
    total = len(stream.seq_nums)
    for first in range(0, total, step):
        numbers = stream.seq_nums[first : first + step]
        times = stream.times[first : first + step]
        arrays = [
            pa.array(numbers),
            pa.array(times, from_pandas=True),
            *(column.rows(numbers) for column in columns),
        ]
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        files.tell(stream.name, first + len(numbers), total)


class _Column:
    """A field as a column."""

    def __init__(self, field: Field, name: str) -> None:
        pa: Any = import_module("pyarrow")
        self._field, self.name = field, name
        self.row_bytes = field.dtype.itemsize * int(np.prod(field.shape[1:]))
        self._json = False
        self._tensor = False
        if field.dtype.kind in "biuf":
            self._type: Any = pa.from_numpy_dtype(field.dtype.newbyteorder("="))
            if len(field.shape) > 1:
                # Bits are packed in a way of their own.
                if field.dtype.kind == "b":
                    self._type = pa.uint8()
                self._type = pa.fixed_shape_tensor(self._type, field.shape[1:])
                self._tensor = True
        else:
            self._type = pa.string()
            values: list[Any] = np.asarray(field.values[:]).tolist()
            self._json = not all(v is None or isinstance(v, str) for v in values)

    def described(self) -> Any:
        pa: Any = import_module("pyarrow")
        field = self._field
        metadata = {} if field.units is None else {"units": plain_text(field.units)}
        if self._json:
            metadata["encoding"] = "json"
        return pa.field(self.name, self._type, metadata=metadata)

    @property
    def is_text(self) -> bool:
        """Whether it holds texts."""
        pa: Any = import_module("pyarrow")
        return self._type == pa.string()

    def rows(self, numbers: NDArray[np.int64]) -> Any:
        """Return the values at some sequence numbers, null where there are none."""
        pa: Any = import_module("pyarrow")
        field = self._field
        first, last = np.searchsorted(field.seq_nums, [numbers[0], numbers[-1] + 1])
        values = np.asarray(field.values[int(first) : int(last)])
        here = np.isin(numbers, field.seq_nums[first:last])
        if self._type == pa.string():
            texts: Any = iter(values.tolist())
            cells = [next(texts) if known else None for known in here.tolist()]
            cells = [None if cell is None else self._text(cell) for cell in cells]
            return pa.array(cells, pa.string())
        whole = np.zeros(
            (len(numbers), *field.shape[1:]), field.dtype.newbyteorder("=")
        )
        whole[here] = values
        if not self._tensor:
            return pa.array(whole, self._type, mask=~here)
        flat = pa.array(whole.reshape(-1), self._type.value_type)
        size = int(np.prod(field.shape[1:]))
        mask = None if here.all() else pa.array(~here)
        lists = pa.FixedSizeListArray.from_arrays(flat, size, mask=mask)
        return pa.ExtensionArray.from_storage(self._type, lists)

    def _text(self, value: Any) -> str:
        return json_text(value) if self._json else plain_text(value)


class _Units:
    """The units of each row of a field, as a column."""

    row_bytes = 0
    is_text = True

    def __init__(self, field: Field, name: str) -> None:
        self._field, self.name = field, name

    def described(self) -> Any:
        pa: Any = import_module("pyarrow")
        return pa.field(self.name, pa.string())

    def rows(self, numbers: NDArray[np.int64]) -> Any:
        """Return the units at some sequence numbers, null where there are none."""
        pa: Any = import_module("pyarrow")
        units = self._field.units_at(numbers)
        texts = [None if unit is None else plain_text(unit) for unit in units]
        return pa.array(texts, pa.string())


parquet = ExportFormat("parquet", "parquet", write_parquet)
