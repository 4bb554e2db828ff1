"""Any backend as a Zarr store, for zarr-python and what builds on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zarr.abc.store import Store

    from bluesky_beamtime.storage.backends.protocol import StorageBackend


def as_zarr_store(backend: StorageBackend, *, read_only: bool = True) -> Store:
    """Return a Zarr store over a backend.

    Reading a frame of a sharded array asks the backend for the shard's index and for
    the bytes of that frame, with ``get_range``, and for no more. The store works from
    zarr-python's event loop without blocking it; closing the store leaves the backend
    open. It can be pickled if the backend can.

    Parameters
    ----------
    backend
        Where the values are.
    read_only
        Refuse to write.

    Examples
    --------
    >>> import zarr
    >>> store = as_zarr_store(open_backend("s3://bucket/beamtime"))  # doctest: +SKIP
    >>> zarr.open_group(store, path="frames/scan_1", mode="r")  # doctest: +SKIP
    """
    from bluesky_beamtime.storage.backends.zarr_adapter import BackendStore

    return BackendStore(backend, read_only=read_only)
