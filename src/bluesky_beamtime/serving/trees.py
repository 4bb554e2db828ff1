"""The tree of nodes that a server of Tiled serves."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tiled.adapters.mapping import MapAdapter

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.errors import BeamtimeFileError
from bluesky_beamtime.serving import json_seq
from bluesky_beamtime.serving.catalog import RunCatalog

PathLike = str | os.PathLike[str]


def tree(
    path: PathLike | None = None, *, paths: Iterable[PathLike] | None = None
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
        One beamtime: it is the catalogue.
    paths
        Several: one catalogue each, under the name of the file without ``.db``.

    Raises
    ------
    BeamtimeFileError
        A path is no beamtime's, or two have the same name.
    """
    files = [path] if path is not None else list(paths or ())
    databases = [Database(file, mode="r") for file in files]
    if not databases:
        raise BeamtimeFileError("give the .db file of a beamtime, or several, to serve")
    return tree_of(databases)


def tree_of(databases: Iterable[Database]) -> Any:
    """Return what to serve of beamtimes that are open; see :func:`tree`."""
    json_seq.register()
    found: dict[str, RunCatalog] = {}
    for database in databases:
        name = catalog_name(database.path)
        if name in found:
            raise BeamtimeFileError(
                f"two beamtimes are called {name!r}: "
                f"{str(found[name].database.path)!r} and {str(database.path)!r}; "
                "serve them apart, or rename one"
            )
        found[name] = RunCatalog(database)
    catalogs = list(found.values())
    several: Any = MapAdapter
    return catalogs[0] if len(catalogs) == 1 else several(found)


def catalog_name(path: Path) -> str:
    """Return the name of a beamtime's catalogue beside others."""
    return path.name.removesuffix(".db")
