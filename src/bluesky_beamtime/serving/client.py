"""Clients of Tiled for a beamtime in the same process, without a server."""

from __future__ import annotations

import warnings
import weakref
from typing import Any, cast

from bluesky_beamtime.database.engine import Database


def client_of(database: Database) -> Any:
    """Return a ``CatalogOfBlueskyRuns`` of bluesky-tiled-plugins for a beamtime.

    Parameters
    ----------
    database
        The beamtime; stays open for as long as the client is used.

    Notes
    -----
    The application of a server runs in a thread of its own; nothing listens at any
    address. It ends with the last of the clients.
    """
    import tiled.client
    from tiled.client import context as contexts

    from bluesky_beamtime.serving.shelf import Shelf
    from bluesky_beamtime.serving.trees import tree_of
    from bluesky_beamtime.serving.untyped import build_app

    # Their parameters lack annotations.
    clients = cast("Any", tiled.client)
    with warnings.catch_warnings():
        # Which client library Starlette would rather have is not for our users.
        warnings.filterwarnings("ignore", message="Using `httpx`")
        app = build_app(tree_of(Shelf.of([database])))
        context = cast("Any", contexts).Context.from_app(app)
    # Nothing travels anywhere: to compress blocks takes twice as long as all the rest.
    context.http_client.headers["accept-encoding"] = "identity"
    # Runs and streams outlive the catalogue that they came from; all of them hold the
    # context, which the HTTP client does not.
    weakref.finalize(context, context.http_client.__exit__)
    return clients.from_context(context)
