"""Runs and streams as HDF5 files, for ``run.export("run.h5")`` of a client."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from itertools import pairwise, product
from typing import IO, TYPE_CHECKING, Any

import anyio.to_thread
import numpy as np
from numpy.typing import NDArray
from tiled.ndslice import NDSlice

from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.serving.fields import EventTable, FieldArray
from bluesky_beamtime.serving.names import apart
from bluesky_beamtime.serving.untyped import h5py, serialization_registry

if TYPE_CHECKING:
    from bluesky_beamtime.serving.run import Container

MEDIA_TYPE = "application/x-hdf5"
_PIECE = 1 << 20


def register() -> None:
    """Make runs and streams exportable from servers in this process."""
    for spec in ("BlueskyRun", "BlueskyEventStream"):
        serialization_registry.register(spec, MEDIA_TYPE, export)


async def export(
    media_type: str, node: Container, metadata: Any, filter_for_access: Any
) -> Iterator[bytes]:
    """Return a file: a group for each container and table, a dataset for each array.

    Metadata are attributes; those that are lists or mappings are JSON, and None is
    the empty text.

    Notes
    -----
    The file is written to a temporary one, a block of frames at a time.
    """
    await filter_for_access(node)
    file = await anyio.to_thread.run_sync(_write, node, metadata)
    return _pieces(file)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _write(node: Container, metadata: Mapping[str, Any]) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # closed when it has been sent
    try:
        with h5py.File(file, mode="w") as root:
            _describe(root, metadata)
            _fill(root, node)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _fill(group: Any, node: Container) -> None:
    for name, make in node.children().items():
        child = make()
        if isinstance(child, FieldArray):
            _describe(_add_array(group, name, child), child.metadata())
            continue
        below = group.create_group(name)
        _describe(below, child.metadata())
        if isinstance(child, EventTable):
            table = child.read()
            for column, dataset in apart(map(str, table.columns)).items():
                below[dataset] = _storable(table[column].to_numpy())
        else:
            _fill(below, child)


def _add_array(group: Any, name: str, array: FieldArray) -> Any:
    structure = array.structure()
    dtype = structure.data_type.to_numpy_dtype()
    if dtype.kind == "U":
        group[name] = _storable(array.read())
        return group[name]
    dataset = group.create_dataset(name, shape=structure.shape, dtype=dtype)
    for region in _regions(structure.chunks):
        dataset[region] = array.read(NDSlice(*region))
    return dataset


def _regions(chunks: Any) -> Iterator[tuple[slice, ...]]:
    along = [np.cumsum([0, *sizes]).tolist() for sizes in chunks]
    yield from product(*([slice(a, b) for a, b in pairwise(ends)] for ends in along))


def _storable(values: NDArray[Any]) -> Any:
    if values.dtype.kind not in "OU":
        return values
    texts = [v if isinstance(v, str) else _attribute(v) for v in values.tolist()]
    if all(isinstance(text, (bool, int, float)) for text in texts):
        return np.asarray(texts)
    return np.asarray([str(text) for text in texts], dtype=h5py.string_dtype())


def _describe(node: Any, metadata: Mapping[str, Any]) -> None:
    for key, value in metadata.items():
        node.attrs[key] = _attribute(value)


def _attribute(value: Any) -> Any:
    """Return a value of the metadata as HDF5 has it."""
    if value is None:
        return ""
    if isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)
    return encode(value)
