"""What other subscribers of the same RunEngine need for our documents."""

from __future__ import annotations

import sys
from typing import Any

from bluesky_beamtime.errors import BeamtimeError
from bluesky_beamtime.plugins import load_plugin

_CONSOLIDATORS = "bluesky_tiled_plugins.writing.consolidators"
_ZARR = "application/x-zarr"


def help_tiled_writer() -> None:
    """Let a TiledWriter of this process take all of our frames, if there may be one.

    Does nothing while bluesky-tiled-plugins is not loaded, nor once it knows what to
    do with Zarr.
    """
    plugins: Any = sys.modules.get(_CONSOLIDATORS)
    registry: Any = getattr(plugins, "CONSOLIDATOR_REGISTRY", None)
    # A look at a missing kind leaves the base class in their registry.
    if registry is None or registry.get(_ZARR) not in (
        None,
        getattr(plugins, "ConsolidatorBase", None),
    ):
        return
    try:
        load_plugin("bluesky_beamtime.serving", "consolidator", "serve")()
    except BeamtimeError:
        # Frames of runs with one in each event are taken all the same, and a plan
        # does not end for the sake of a server.
        return


__all__ = ["help_tiled_writer"]
