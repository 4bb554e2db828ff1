"""Arrays that a StreamResource tells of, by the stock readers of their formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import MissingExtraError, SinkSchemaError


def open_stored(resource: Mapping[str, Any]) -> Any:
    """Open what a StreamResource tells of: ``[start:stop]`` reads along its first axis.

    Parameters
    ----------
    resource
        Of the mimetype ``application/x-zarr`` or ``application/x-hdf5``, in files of
        this machine.

    Raises
    ------
    SinkSchemaError
        Another format, or another place.
    MissingExtraError
        `h5py` is not installed.
    """
    parts = urlsplit(str(resource["uri"]))
    mimetype = resource["mimetype"]
    parameters = resource.get("parameters", {})
    name = parameters.get("array_name") or parameters.get("dataset")
    if parts.scheme == "file":
        path = unquote(parts.path)
        if mimetype == "application/x-zarr":
            return _open_zarr(path, name)
        if mimetype == "application/x-hdf5":
            return _HDF5Dataset(path, name or "/entry/data/data")
    raise SinkSchemaError(
        f"{mimetype} at {resource['uri']} cannot be read for a sink here; give "
        "open_array=…, which opens it"
    )


def _open_zarr(path: str, name: str | None) -> Any:
    import zarr

    # Its types say nothing of what is stored.
    node = cast("Any", zarr).open(path, mode="r")
    return node if name is None or hasattr(node, "shape") else node[name]


class _HDF5Dataset:
    """A dataset that is opened for each reading, so that it is seen as it grows."""

    def __init__(self, path: str, name: str) -> None:
        self._path, self._name = path, name

    def __getitem__(self, key: slice) -> NDArray[Any]:
        try:
            import h5py
        except ImportError as error:
            raise MissingExtraError(
                "reading HDF5 files for a sink", "h5py", "hdf5"
            ) from error
        with _open_hdf5(h5py, self._path) as file:
            return np.asarray(file[self._name][key])


def _open_hdf5(h5py: Any, path: str) -> Any:
    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError:
        # A file that its writer has open can be read like this alone. It comes second:
        # so the library tries for ever to read what is damaged.
        return h5py.File(path, "r", swmr=True, locking=False)
