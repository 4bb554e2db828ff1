"""Datasets as Zarr hierarchies."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.labelled import Dataset, Variable

# A file each, and many small files are slow everywhere.
_CHUNK_BYTES = 4 << 20
_CHUNK = re.compile(r"\d+(\.\d+)*").fullmatch


def write_zarr(content: RunContent, files: ExportFiles) -> None:
    """Write a Zarr hierarchy for each stream: what ``run[stream].read()`` returns.

    A field that lacks some rows of its stream has a dimension of its own. Version 2,
    as version 3 has no stable specification of texts yet.
    """
    library: Any = import_module("zarr")
    content.warn_of_units()
    streams = list(content.streams.values())
    paths = files.several([stream.name for stream in streams])
    for stream, path in zip(streams, paths, strict=True):
        dataset = Dataset(stream)
        coordinates = [v.name for v in dataset.variables if v.coordinate]
        with _store(path) as store:
            root = library.open_group(
                store, mode="w", zarr_format=2, attributes=dict(dataset.attributes)
            )
            for variable in dataset.variables:
                _write(root, variable, coordinates, files)
            library.consolidate_metadata(store, zarr_format=2)


@contextmanager
def _store(path: Path) -> Generator[Any]:
    """Yield a store that is quiet afterwards.

    zarr-python goes on in its threads after a write that failed and after Ctrl-C, and
    would make the folder anew that is being removed.
    """
    storage: Any = import_module("zarr.storage")
    base: Any = storage.LocalStore
    changed = threading.Condition()
    writing, ended = 0, False

    class Store(base):
        async def set(self, *args: Any, **options: Any) -> None:
            nonlocal writing
            with changed:
                if ended:
                    return
                writing += 1
            try:
                parent: Any = super()
                await parent.set(*args, **options)
            finally:
                with changed:
                    writing -= 1
                    changed.notify_all()

    try:
        yield Store(path)
    finally:
        with changed:
            ended = True
            changed.wait_for(lambda: writing == 0)


def _write(
    root: Any, variable: Variable, coordinates: list[str], files: ExportFiles
) -> None:
    shape, dtype = variable.shape, variable.dtype
    attributes: dict[str, Any] = {"_ARRAY_DIMENSIONS": list(variable.dims)}
    attributes |= variable.attributes
    if not variable.coordinate:
        mine = [name for name in coordinates if name not in variable.dims]
        attributes |= {"coordinates": " ".join(mine)} if mine else {}
    row_bytes = dtype.itemsize * math.prod(shape[1:])
    rows = max(1, _CHUNK_BYTES // max(1, row_bytes))
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


def is_exported(folder: Path) -> bool:
    """Say whether a folder is such a hierarchy, and has nothing else in it."""
    try:
        found = json.loads((folder / ".zmetadata").read_bytes())["metadata"]
        arrays = {name.removesuffix("/.zarray") for name in found} - set(found)
        if not {"uid", "stream"} <= set(found[".zattrs"]):
            return False
        for file in folder.rglob("*"):
            array = file.relative_to(folder).as_posix()
            if file.is_dir() and not file.is_symlink():
                known = array in arrays
            else:
                # Desktops leave hidden files where somebody has only looked.
                above, _, name = array.rpartition("/")
                known = name[0] == "." or (above in arrays and bool(_CHUNK(name)))
            if not known:
                return False
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    return True


zarr = ExportFormat("zarr", "zarr", write_zarr, replaces=is_exported)
