"""Runs through xarray: netCDF and Zarr, a Dataset for each stream."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_beamtime.database import encode
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat


def write_netcdf(content: RunContent, files: ExportFiles) -> None:
    """Write a netCDF-4 file for each stream: what ``run[stream].read()`` returns.

    Frames are copied block by block. What has no type in netCDF is JSON text.
    """
    import_module("h5netcdf")
    for path, dataset in _datasets(content, files):
        dataset.to_netcdf(path, engine="h5netcdf")


def write_zarr(content: RunContent, files: ExportFiles) -> None:
    """Write a Zarr hierarchy for each stream: what ``run[stream].read()`` returns."""
    for path, dataset in _datasets(content, files):
        # Version 3 has no stable specification of texts yet.
        dataset.to_zarr(path, mode="w", zarr_format=2, consolidated=True)


def _datasets(content: RunContent, files: ExportFiles) -> Iterator[tuple[Path, Any]]:
    streams = list(content.run.streams.values())
    paths = files.several([stream.name for stream in streams])
    for number, (stream, path) in enumerate(zip(streams, paths, strict=True)):
        files.tell(stream.name, number, len(streams))
        # By name: what cannot be read is an error, not a gap.
        yield path, _plain(stream.read(list(stream.data_keys)))
        files.tell(stream.name, number + 1, len(streams))


def _plain(dataset: Any) -> Any:
    """Return a Dataset of what files can hold."""
    names = {name: _level(str(name)) for name in {*dataset.variables, *dataset.dims}}
    plain = dataset.rename({old: new for old, new in names.items() if old != new})
    for old, new in names.items():
        if new not in plain.variables:
            continue
        variable = plain[new]
        if old != new:
            variable.attrs["bluesky_name"] = old
        if variable.dtype.kind in "OUc":
            texts = [_text(value) for value in np.asarray(variable.values).reshape(-1)]
            changed = np.array(texts, object).reshape(variable.shape)
            plain[new] = (variable.dims, changed, dict(variable.attrs))
    return plain


def _level(name: str) -> str:
    return name.replace("/", "_")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else encode(value)


netcdf = ExportFormat("netcdf", "nc", write_netcdf)
zarr = ExportFormat("zarr", "zarr", write_zarr)
