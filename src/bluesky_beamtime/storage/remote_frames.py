"""Frames back from an object store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, cast
from urllib.parse import unquote

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bluesky_beamtime.errors import (
    BackendError,
    PathError,
    StorageError,
    StoreReadError,
    UnsupportedFormatError,
)
from bluesky_beamtime.storage.backends import as_zarr_store, open_backend
from bluesky_beamtime.storage.backends.object_urls import KINDS
from bluesky_beamtime.storage.backends.registry import scheme_of


def is_remote(uri: str) -> bool:
    """Say whether a URI leads to an object store."""
    return scheme_of(uri) in KINDS


class RemoteFrames:
    """An array of frames in an object store, read where it is indexed.

    Reading a frame asks the store for that frame's bytes and no more. Thread-safe.

    Attributes
    ----------
    path : str
        URL of the array.
    shape, dtype, ndim, attrs
        As those of a :class:`~bluesky_beamtime.storage.FrameArray`.
    """

    def __init__(self, path: str, array: Any) -> None:
        self.path = path
        self._array = array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.attrs: dict[str, Any] = dict(array.attrs)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read frames, as NumPy would.

        Raises
        ------
        StoreReadError
            The object store refused, or is away.
        """
        try:
            if isinstance(key, (list, np.ndarray)):
                wanted = np.asarray(cast("Any", key))
                return np.asarray(self._array.oindex[wanted])
            return np.asarray(self._array[key])
        except StorageError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreReadError(f"cannot read {self.path!r}: {error}") from error

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        array = self[:]
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"<RemoteFrames {self.path!r} {self.shape} {self.dtype}>"


def open_remote(
    uri: str, mimetype: str, parameters: Mapping[str, Any] | None = None
) -> RemoteFrames:
    """Open frames in an object store; how it is reached says the environment.

    Raises
    ------
    StoreReadError
        They are not there (or not yet), or the store is away.
    UnsupportedFormatError
        A format that is not read from an object store.
    PathError
        ``parameters`` lead out of the group.
    """
    if mimetype != "application/x-zarr":
        raise UnsupportedFormatError(
            f"frames of the mimetype {mimetype!r} cannot be read from an object store "
            f"({uri!r}); copy the file first"
        )
    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    name = (parameters or {}).get("array_name") or (parameters or {}).get("dataset")
    zarr: Any = import_module("zarr")
    try:
        store = _store(f"{scheme}://{bucket}", _environment())
        found = zarr.open(store, path=unquote(path), mode="r")
        if not hasattr(found, "shape") and isinstance(name, str):
            if ".." in name.split("/"):
                raise PathError(f"{name!r} leads out of {uri!r}")
            found = found[name.strip("/")]
        if not hasattr(found, "shape"):
            raise StoreReadError(f"{uri!r} is no array")
    except (FileNotFoundError, KeyError) as error:
        raise StoreReadError(
            f"there are no frames at {uri!r}; if they were just taken, they may not "
            "have been copied there yet",
            filename=uri,
        ) from error
    except BackendError as error:
        raise StoreReadError(f"cannot read {uri!r}: {error}", filename=uri) from error
    return RemoteFrames(uri, found)


def _environment() -> tuple[tuple[str, str], ...]:
    """Return what decides how a store is reached, so that a change of it is noticed."""
    prefixes = ("AWS_", "GOOGLE_", "AZURE_", "BLUESKY_BEAMTIME_BACKEND_")
    return tuple(sorted(i for i in os.environ.items() if i[0].startswith(prefixes)))


@lru_cache(maxsize=8)
def _store(url: str, environment: tuple[tuple[str, str], ...]) -> Any:
    del environment
    return as_zarr_store(open_backend(url))
