"""Fields as datasets of an HDF5 file, copied a few megabytes at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database import Setting
from bluesky_beamtime.database.columns import make_column
from bluesky_beamtime.database.rowframes import RowFrames
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports.fields import Field
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.texts import json_text, plain_text


def add_field(
    group: Any, name: str, field: Field, files: ExportFiles, links: Path | None = None
) -> Any:
    """Write a field as a dataset and return it.

    Values keep their type and shape; what has no common type or shape is JSON text,
    one for each row, and has the attribute ``encoding``.

    Parameters
    ----------
    group
        h5py group.
    name
        Name of the dataset.
    field
        What to write.
    files
        Told of progress.
    links
        Folder of the file if frames are to be linked, not copied.
    """
    if links is not None and field.streamed and field.is_image:
        dataset = group.create_virtual_dataset(name, _layout(field, links))
    elif field.dtype.kind in "OU":
        dataset = _add_texts(group, name, np.asarray(field.values[:]))
    else:
        dataset = _add_numbers(group, name, field, files)
    describe(dataset, field.attributes)
    return dataset


def _add_numbers(group: Any, name: str, field: Field, files: ExportFiles) -> Any:
    shape = field.shape
    # A chunk for each frame: readers look at one at a time.
    chunks = (1, *shape[1:]) if field.is_image and all(shape) else None
    dataset = group.create_dataset(name, shape, field.dtype, chunks=chunks)
    if not all(shape):
        return dataset
    for first, block in field.blocks():
        if chunks is None:
            dataset[first : first + len(block)] = block
        else:
            _write_chunks(dataset, first, np.ascontiguousarray(block, field.dtype))
        files.tell(field.key, first + len(block), shape[0])
    return dataset


def _write_chunks(dataset: Any, first: int, block: NDArray[Any]) -> None:
    """Write rows that are a chunk each, without HDF5's cache of chunks in between."""
    corner = (0,) * (block.ndim - 1)
    for number, row in enumerate(block, first):
        dataset.id.write_direct_chunk((number, *corner), row)


def add_changes(
    group: Any, name: str, beside: str, settings: Sequence[Setting]
) -> None:
    """Write a setting that was changed within the run: a row for each value.

    Parameters
    ----------
    group
        h5py group.
    name
        Name of the dataset; its attribute ``seq_num`` is the other's name.
    beside
        Name of the dataset with the first ``seq_num`` of each.
    settings
        The values in their order.
    """
    column = make_column(name, [setting.value for setting in settings], {}, Path())
    values = column.values
    if values.dtype.kind in "OU":
        dataset = _add_texts(group, name, values)
    else:
        dataset = group.create_dataset(name, data=values)
    group[beside] = np.array([setting.seq_num for setting in settings], np.int64)
    units = [(setting.seq_num, setting.units) for setting in settings]
    same = len({unit for _, unit in units}) == 1
    told = {"units": units[0][1]} if same else {"units_of_rows": units}
    describe(dataset, {"seq_num": beside, **told})


def _add_texts(group: Any, name: str, values: NDArray[Any]) -> Any:
    h5py: Any = import_module("h5py")

    rows: list[Any] = values.tolist()
    plain = values.dtype.kind == "U" or all(isinstance(row, str) for row in rows)
    if plain:
        flat: list[Any] = values.reshape(-1).tolist()
        texts = np.array([_text(text) for text in flat], object).reshape(values.shape)
    else:
        texts = np.array([_text(json_text(row)) for row in rows], object)
    kind: Any = h5py.string_dtype()
    dataset = group.create_dataset(name, texts.shape, kind)
    if texts.size:
        dataset[...] = texts
    if not plain:
        dataset.attrs["encoding"] = "json"
    return dataset


def describe(node: Any, attributes: dict[str, Any]) -> None:
    """Set attributes of a group or dataset; what HDF5 has no type for is JSON."""
    for key, value in attributes.items():
        if value is not None:
            node.attrs[key] = plain(value)


def plain(value: Any) -> Any:
    """Return a value as HDF5 has it, as JSON text if it has nothing like it."""
    if isinstance(value, (bool, float)):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        array: NDArray[Any] = np.asarray(cast("Any", value))
        if array.dtype.kind in "biufc":
            return array
    return _text(json_text(value))


def plain_texts(texts: Iterable[str]) -> NDArray[Any]:
    """Return texts as a dataset has them, none of them included."""
    h5py: Any = import_module("h5py")
    return np.array([_text(text) for text in texts], h5py.string_dtype())


def _text(text: str) -> str:
    # HDF5 ends texts at a zero.
    return plain_text(text).replace("\0", "\\0")


def _layout(field: Field, folder: Path) -> Any:
    """Return a virtual dataset whose rows are those of the detector's own files.

    Raises
    ------
    ExportError
        The frames are in no HDF5 file.
    """
    h5py: Any = import_module("h5py")

    values = field.values
    sources: Any = values.parts() if isinstance(values, RowFrames) else None
    if sources is None:
        raise _not_linkable(field, "in the events")
    layout: Any = h5py.VirtualLayout(field.shape, field.dtype)
    stored, source_of_row, index_of_row = sources
    # Several frames of one event are a row of their own in the export alone: the same
    # values in the same order.
    each = values.per_row or 1
    breaks = 1 + np.flatnonzero(
        (np.diff(source_of_row) != 0) | (np.diff(index_of_row) != 1)
    )
    edges = [0, *breaks.tolist(), len(index_of_row)]
    for first, last in pairwise(edges):
        if first == last:
            continue
        path, dataset, shape = _hdf5_place(field, stored[int(source_of_row[first])])
        source: Any = h5py.VirtualSource(
            _spelt(_way_to(path, folder)), _spelt(dataset), shape, field.dtype
        )
        begin = int(index_of_row[first])
        layout[first:last] = source[begin * each : (begin + last - first) * each]
    return layout


def _way_to(path: str, folder: Path) -> str:
    """Return the relative path from a folder to a file.

    The kernel takes ``..`` of what a link leads to, not of the link.
    """
    return os.path.relpath(os.path.realpath(path), os.path.realpath(folder))


def _spelt(name: str) -> str:
    """Return a name as virtual datasets take it, where ``%b`` is a number."""
    return name.replace("%", "%%")


def _hdf5_place(field: Field, stored: Any) -> tuple[str, str, tuple[int, ...]]:
    path, dataset = getattr(stored, "path", None), getattr(stored, "dataset", None)
    if path is None or not isinstance(dataset, str):
        raise _not_linkable(field, "in no HDF5 file")
    return str(path), dataset, tuple(stored.shape)


def _not_linkable(field: Field, where: str) -> ExportError:
    return ExportError(
        f"the frames of {field.key!r} are {where}, and cannot be linked: say "
        "frames='embedded' to copy them"
    )
