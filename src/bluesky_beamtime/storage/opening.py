"""Stored frames by their URI, whatever their format and wherever they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from bluesky_beamtime.errors import (
    PathError,
    StoreReadError,
    UnsupportedFormatError,
)
from bluesky_beamtime.storage.hdf5_dataset import HDF5Dataset
from bluesky_beamtime.storage.hdf5_layout import DATASET
from bluesky_beamtime.storage.hdf5_look import is_ours, opened
from bluesky_beamtime.storage.hdf5_reader import HDF5Frames
from bluesky_beamtime.storage.layout import read_metadata
from bluesky_beamtime.storage.paths import from_uri
from bluesky_beamtime.storage.reader import FrameArray
from bluesky_beamtime.storage.remote_frames import is_remote, open_remote


def _member(group: str, name: str) -> str:
    """Return the path of a node below a group; names come from documents."""
    parts = name.strip("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise PathError(f"{name!r} does not name an array inside {group!r}")
    return os.path.join(group, *parts)


def open_frames(
    uri: str | os.PathLike[str],
    mimetype: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Any:
    """Open stored frames for reading, also while they grow.

    Parameters
    ----------
    uri
        URI or path of the array; for a Zarr group, ``parameters`` name the array. In an
        object store (``s3://``) too, reached as the environment says.
    mimetype
        ``application/x-zarr``, or ``application/x-hdf5`` with the extra ``hdf5``. By
        default a file is HDF5 and a folder is Zarr.
    parameters
        Those of the StreamResource.

    Returns
    -------
    FrameArray, RemoteFrames or zarr.Array
        A :class:`FrameArray` for what this package wrote; a stock array otherwise.

    Raises
    ------
    StoreReadError
        It is not there.
    UnsupportedFormatError
        A format that cannot be read here.
    PathError
        ``parameters`` lead out of the group.
    """
    if is_remote(os.fspath(uri)):
        mimetype = mimetype or "application/x-zarr"
        return open_remote(os.fspath(uri), mimetype, parameters)
    path = from_uri(os.fspath(uri))
    if mimetype is None:
        is_file = os.path.isfile(path)
        mimetype = "application/x-hdf5" if is_file else "application/x-zarr"
    if mimetype == "application/x-hdf5":
        return open_hdf5(path, parameters)
    if mimetype != "application/x-zarr":
        raise UnsupportedFormatError(
            f"frames of the mimetype {mimetype!r} cannot be read here ({path!r})"
        )
    metadata = read_metadata(Path(path))
    name = (parameters or {}).get("array_name") or (parameters or {}).get("dataset")
    if metadata.get("node_type") == "group" and name:
        path = _member(path, name)
    try:
        return FrameArray(path)
    except StoreReadError:
        try:
            # zarr has types, but not for all of its arguments.
            return import_module("zarr").open_array(path, mode="r")
        except (ValueError, TypeError, OSError, KeyError, ArithmeticError) as error:
            raise StoreReadError(f"cannot read {path!r}: {error}") from error


def open_hdf5(
    path: str, parameters: Mapping[str, Any] | None = None
) -> HDF5Frames | HDF5Dataset:
    """Open a dataset of an HDF5 file for reading, also while it grows.

    Parameters
    ----------
    path
        The file.
    parameters
        Those of the StreamResource: ``dataset`` is the path within the file.

    Raises
    ------
    StoreReadError
        It is not there.
    MissingExtraError
        Somebody else wrote it, and the package ``h5py`` is absent.
    """
    dataset = (parameters or {}).get("dataset") or DATASET
    with opened(path) as fd:
        ours = is_ours(fd)
    if ours and dataset.strip("/") == DATASET.strip("/"):
        return HDF5Frames(path)
    return HDF5Dataset(path, dataset)
