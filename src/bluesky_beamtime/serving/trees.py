"""The tree of nodes that a server of Tiled serves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bluesky_beamtime.serving import hdf5_export, json_export, json_seq
from bluesky_beamtime.serving.beamtimes import Beamtimes
from bluesky_beamtime.serving.catalog import RunCatalog
from bluesky_beamtime.serving.shelf import PathLike, Shelf


def tree(
    path: PathLike | None = None,
    *,
    paths: Iterable[PathLike] | None = None,
    readable: Iterable[PathLike] = (),
) -> Any:
    """Return what to serve; for ``tree:`` in a configuration file of Tiled.

    ::

        trees:
          - path: /
            tree: bluesky_beamtime.serving:tree
            args: {path: /data/2026-11-LaB6.db}

    Parameters
    ----------
    path
        One beamtime: it is the catalogue. Or an index: the beamtimes that it knows.
    paths
        Several: one catalogue each, under the name of the file without ``.db``.
    readable
        Folders outside of the beamtimes' whose files are served too, when documents
        name them.

    Raises
    ------
    BeamtimeFileError
        A path is no beamtime's, or two have the same name.
    """
    files = [path] if path is not None else list(paths or ())
    return tree_of(Shelf(files, readable=readable))


def tree_of(shelf: Shelf) -> Any:
    """Return what to serve of beamtimes; see :func:`tree`."""
    json_seq.register()
    hdf5_export.register()
    json_export.register()
    return Beamtimes(shelf) if shelf.only is None else RunCatalog(shelf.only)
