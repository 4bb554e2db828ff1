"""Frames as TIFF stacks and as OME-TIFF: a file for each camera."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database import encode
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.fields import Field
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat

_CLASSIC_BYTES = 2**32 - 2**25
_OME_TYPES = frozenset(
    (
        "int8",
        "int16",
        "int32",
        "uint8",
        "uint16",
        "uint32",
        "float32",
        "float64",
    )
)


def write_tiff(content: RunContent, files: ExportFiles) -> None:
    """Write the frames of each camera as a stack of pages, uncompressed.

    The description of the first page is JSON, with the data key, units, run and shape.
    """
    content.warn_of_units()
    for path, field in _cameras(content, files):
        _write(path, field, files, metadata=_told(content, field))


def write_ome_tiff(content: RunContent, files: ExportFiles) -> None:
    """Write the frames of each camera as OME-TIFF, the events along its axis T.

    Units and run are JSON in the description of the image.
    """
    content.warn_of_units()
    for path, field in _cameras(content, files):
        if field.dtype.name not in (*_OME_TYPES, "bool"):
            raise ExportError(
                f"OME-TIFF has no pixels of type {field.dtype}, as {field.key!r} has; "
                "tiff and hdf5 have"
            )
        metadata = {
            "axes": "TZYX"[-len(field.shape) :] if len(field.shape) > 3 else "TYX",
            "Name": field.key,
            "Description": encode(_told(content, field)),
        }
        _write(path, field, files, ome=True, metadata=metadata)


def _cameras(content: RunContent, files: ExportFiles) -> Iterator[tuple[Path, Field]]:
    fields = [field for field in content.images if all(field.shape)]
    if not fields:
        raise ExportError(
            f"{content.run.label} has no frames for a TIFF; csv or nexus take its "
            "numbers"
        )
    for field in fields:
        if field.dtype.kind not in "biuf" or len(field.shape) > 4:
            raise ExportError(
                f"{field.key!r}, {field.dtype} of shape {field.shape}, is no stack of "
                "frames for a TIFF; hdf5 takes it"
            )
    count = Counter(field.key for field in fields)
    # Darks of the same camera are in another stream.
    names = [f.key if count[f.key] == 1 else f"{f.stream}-{f.key}" for f in fields]
    yield from zip(files.several(names), fields, strict=True)


def _told(content: RunContent, field: Field) -> dict[str, Any]:
    return {
        "data_key": field.key,
        "stream": field.stream,
        "units": field.units,
        **({"units_of_rows": field.units_of_rows} if field.units_of_rows else {}),
        "run": content.run.uid,
        "scan_id": content.run.scan_id,
    }


def _write(path: Path, field: Field, files: ExportFiles, **options: Any) -> None:
    tifffile: Any = import_module("tifffile")
    dtype = np.dtype("u1") if field.dtype.kind == "b" else field.dtype
    size = dtype.itemsize * int(np.prod(field.shape, dtype=np.int64))
    big = size > _CLASSIC_BYTES
    ome = options.pop("ome", False)
    with tifffile.TiffWriter(path, bigtiff=big, ome=ome, shaped=not ome) as writer:
        writer.write(
            _pages(field, dtype, files),
            shape=field.shape,
            dtype=dtype,
            photometric="minisblack",
            **options,
        )


def _pages(
    field: Field, dtype: np.dtype[Any], files: ExportFiles
) -> Iterator[NDArray[Any]]:
    total = field.shape[0]
    for first, block in field.blocks():
        yield from block.astype(dtype, copy=False).reshape(-1, *field.shape[-2:])
        files.tell(field.key, first + len(block), total)


tiff = ExportFormat("tiff", "tiff", write_tiff)
ome_tiff = ExportFormat("ome-tiff", "ome.tiff", write_ome_tiff)
