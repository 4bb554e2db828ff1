"""Beamtimes for Tiled: a tree of nodes, a server, and what other servers need."""

from bluesky_beamtime.serving.tree import tree

__all__ = ["tree"]
