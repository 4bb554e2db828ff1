"""What lets a stock TiledWriter register the frames of our Zarr stores."""

from __future__ import annotations

from typing import Any

from bluesky_tiled_plugins.writing.consolidators import (
    CONSOLIDATOR_REGISTRY,
    ConsolidatorBase,
)

MIMETYPE = "application/x-zarr"


class ZarrConsolidator(ConsolidatorBase):
    """Registers Zarr arrays with a server of Tiled, as they lie on the disk.

    One frame per event becomes an array of (events, y, x). Several frames per event
    become one of (events × frames, y, x), since the server reads an array in the shape
    that it has. A group with the parameter ``dataset`` is taken for its array.

    Notes
    -----
    Registered when this module is imported, and by a
    :class:`~bluesky_beamtime.Beamtime` that records while the plugins are loaded.
    """

    supported_mimetypes = {MIMETYPE}  # noqa: RUF012  # declared so by the base class
    default_asset_role = "data_uri"

    def __init__(self, stream_resource: Any, descriptor: Any) -> None:
        super().__init__(stream_resource, descriptor)
        (asset,) = self.assets
        asset.is_directory = True
        # One store, one asset: without a number it is no part of a sequence.
        asset.num = None
        dataset = self._sres_parameters.get("dataset")
        if dataset:
            asset.data_uri = f"{self.uri.rstrip('/')}/{dataset.strip('/')}"
        stored_rank = len(self.chunk_shape)
        if stored_rank and len(self.datum_shape) == stored_rank:
            self._join_frames(descriptor["data_keys"][self.data_key])

    def _join_frames(self, data_key: Any) -> None:
        """Take the first axis of each event for a part of the array's first axis."""
        self.join_method = "concat"
        dims: tuple[str, ...] = tuple(data_key.get("dims") or ())
        if len(dims) == len(self.datum_shape):
            # Not "time": there are more of them than events.
            self.dims = (f"{self.data_key}_frame", *dims[1:])
        elif dims:
            self.dims = (f"{self.data_key}_frame", *dims)


def register() -> None:
    """Have TiledWriter use this for Zarr; may be called again."""
    CONSOLIDATOR_REGISTRY[MIMETYPE] = ZarrConsolidator


register()
