"""Beamtimes for Tiled: a tree of nodes, a server, and what other servers need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluesky_beamtime.serving.trees import tree as tree

__all__ = ["tree"]


# Needs all of Tiled's server, which those who write to another server may not have.
def __getattr__(name: str) -> Any:
    if name != "tree":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bluesky_beamtime.serving.trees import tree

    return tree
