"""Datasets as netCDF-4 files."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.hdf5_file import create_hdf5
from bluesky_beamtime.exports.labelled import Dataset, Variable

# h5netcdf keeps them for itself.
_RESERVED = frozenset(
    (
        "CLASS",
        "DIMENSION_LABELS",
        "DIMENSION_LIST",
        "NAME",
        "REFERENCE_LIST",
        "_NCProperties",
        "_Netcdf4Coordinates",
        "_Netcdf4Dimid",
        "_nc3_strict",
    )
)


def write_netcdf(content: RunContent, files: ExportFiles) -> None:
    """Write a netCDF-4 file for each stream: what ``run[stream].read()`` returns.

    A field that lacks some rows of its stream has a dimension of its own. Frames are
    copied block by block. What has no type in netCDF is JSON text; texts end at no
    zero, which is written as a backslash and a 0.
    """
    content.warn_of_units()
    streams = list(content.streams.values())
    paths = files.several([stream.name for stream in streams])
    for stream, path in zip(streams, paths, strict=True):
        dataset = Dataset(stream)
        with create_hdf5(path, files, _open) as root:
            for name, value in dataset.attributes.items():
                _describe(root, name, value)
            root.dimensions = dataset.sizes
            coordinates = [v.name for v in dataset.variables if v.coordinate]
            for variable in dataset.variables:
                _write(root, variable, coordinates, files)


def _open(file: Any) -> Any:
    h5netcdf: Any = import_module("h5netcdf")
    return h5netcdf.File(file, "w")


def _write(
    root: Any, variable: Variable, coordinates: list[str], files: ExportFiles
) -> None:
    h5py: Any = import_module("h5py")

    dtype: Any = variable.dtype
    if variable.dtype.kind == "O":
        dtype = h5py.string_dtype()
    elif variable.dtype.kind == "b":
        dtype = np.dtype("i1")
    shape = variable.shape
    chunks = (1, *shape[1:]) if len(shape) > 2 and all(shape) else None
    array = root.create_variable(variable.name, variable.dims, dtype, chunks=chunks)
    for name, value in variable.attributes.items():
        _describe(array, name, value)
    if variable.dtype.kind == "b":
        # As xarray does; netCDF has no such type.
        array.attrs["dtype"] = "bool"
    if not variable.coordinate:
        mine = [name for name in coordinates if name not in variable.dims]
        if mine:
            array.attrs["coordinates"] = " ".join(mine)
    if not all(shape):
        return
    total = len(variable.values)
    for first, block in variable.blocks():
        array[first : first + len(block)] = _stored(block)
        files.tell(variable.name, first + len(block), total)


def _stored(block: NDArray[Any]) -> NDArray[Any]:
    if block.dtype.kind == "b":
        return block.astype("i1")
    if block.dtype.kind != "O":
        return block
    flat: list[str] = block.reshape(-1).tolist()
    texts: NDArray[Any] = np.empty(len(flat), object)
    texts[:] = [text.replace("\0", "\\0") for text in flat]
    return texts.reshape(block.shape)


def _describe(node: Any, name: str, value: Any) -> None:
    free = f"{name}_" if name in _RESERVED else name.replace("\0", "_")
    if isinstance(value, str):
        value = value.replace("\0", "\\0")
    node.attrs[free or "_"] = value


netcdf = ExportFormat("netcdf", "nc", write_netcdf)
