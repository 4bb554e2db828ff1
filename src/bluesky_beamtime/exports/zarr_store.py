"""Datasets as Zarr hierarchies."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.labelled import Dataset, Variable

_CHUNK_BYTES = 1 << 20


def write_zarr(content: RunContent, files: ExportFiles) -> None:
    """Write a Zarr hierarchy for each stream: what ``run[stream].read()`` returns.

    A field that lacks some rows of its stream has a dimension of its own. Version 2,
    as version 3 has no stable specification of texts yet.
    """
    library: Any = import_module("zarr")
    streams = list(content.streams.values())
    paths = files.several([stream.name for stream in streams])
    for stream, path in zip(streams, paths, strict=True):
        dataset = Dataset(stream)
        coordinates = [v.name for v in dataset.variables if v.coordinate]
        told = dict(dataset.attributes)
        root = library.open_group(path, mode="w", zarr_format=2, attributes=told)
        for variable in dataset.variables:
            _write(root, variable, coordinates, files)
        library.consolidate_metadata(path, zarr_format=2)


def _write(
    root: Any, variable: Variable, coordinates: list[str], files: ExportFiles
) -> None:
    shape, dtype = variable.shape, variable.dtype
    attributes: dict[str, Any] = {"_ARRAY_DIMENSIONS": list(variable.dims)}
    attributes |= variable.attributes
    if not variable.coordinate:
        mine = [name for name in coordinates if name not in variable.dims]
        attributes |= {"coordinates": " ".join(mine)} if mine else {}
    frames = len(shape) > 2
    rows = 1 if frames else max(1, _CHUNK_BYTES // max(1, dtype.itemsize))
    array = root.create_array(
        variable.name,
        shape=shape,
        dtype=str if dtype.kind == "O" else dtype,
        chunks=tuple(max(1, size) for size in (min(rows, shape[0]), *shape[1:])),
        attributes=attributes,
        # A value here would be taken for one that is not there.
        fill_value=None,
    )
    if not all(shape):
        return
    for first, block in variable.blocks():
        array[first : first + len(block)] = block
        files.tell(variable.name, first + len(block), shape[0])


zarr = ExportFormat("zarr", "zarr", write_zarr)
