"""A server of Tiled for one beamtime or several, safe by default."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.errors import ServingError
from bluesky_beamtime.serving.guard import App, Guard
from bluesky_beamtime.serving.shelf import PathLike, Shelf
from bluesky_beamtime.serving.trees import tree_of

if TYPE_CHECKING:
    import uvicorn

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEY_VARIABLE = "BEAMTIME_API_KEY"
"""Environment variable for the key, so that it need not stand on a command line."""


def make_app(
    databases: Iterable[Database] | Shelf, *, key: str | None, public: bool = False
) -> App:
    """Return the application of a server, guarded.

    Parameters
    ----------
    databases
        Beamtimes, opened for reading, or a shelf of them.
    key
        What a client must know; letters and digits.
    public
        Let everybody read who can reach the server.

    Raises
    ------
    ServingError
        The key has other characters, which URLs would mangle.
    """
    from tiled.config import Authentication

    from bluesky_beamtime.serving.compressing import make_compression
    from bluesky_beamtime.serving.pages import add_pages
    from bluesky_beamtime.serving.untyped import build_app

    key = key or make_key()
    if not (key.isascii() and key.isalnum()):
        raise ServingError("a key consists of letters and digits, to stand in a URL")
    shelf = databases if isinstance(databases, Shelf) else Shelf.of(databases)
    authentication = Authentication(
        single_user_api_key=key, allow_anonymous_access=public
    )
    app = build_app(
        tree_of(shelf),
        authentication=authentication,
        compression_registry=make_compression(),
    )
    add_pages(app, shelf)
    return Guard(app, key=None if public else key)


def app_from_config(path: PathLike | None = None) -> App:
    """Return the application that a configuration file of Tiled describes, guarded.

    ::

        export TILED_CONFIG=config.yml
        uvicorn --factory bluesky_beamtime.serving.server:app_from_config

    Parameters
    ----------
    path
        The file; by default what ``TILED_CONFIG`` in the environment says.

    Raises
    ------
    ServingError
        No file was named.

    Notes
    -----
    Who may read is what the file says; the guard refuses paths that climb, and every
    change. Without providers it asks for the file's key on every route.
    """
    from bluesky_beamtime.serving.untyped import build_app_from_config, parse_configs

    path = path or os.environ.get("TILED_CONFIG")
    if not path:
        raise ServingError("name the configuration file of Tiled in TILED_CONFIG")
    config: Any = parse_configs(path)
    authentication = config.authentication
    key = authentication.single_user_api_key
    alone = key and not (
        authentication.providers or authentication.allow_anonymous_access
    )
    return Guard(build_app_from_config(config), key=key if alone else None)


def make_key() -> str:
    """Return a new random key."""
    return secrets.token_hex(16)


class BeamtimeServer:
    """A server in this process; see :func:`serve`.

    Parameters
    ----------
    paths
        The ``.db`` files of beamtimes, or of an index over several.
    host, port
        Where to listen; port 0 finds a free one.
    api_key
        What clients must know; by default ``BEAMTIME_API_KEY`` of the environment,
        else a new one.
    public
        Let everybody read who can reach the server.
    readable
        Folders outside of the beamtimes' whose files are served too, when documents
        name them.

    Attributes
    ----------
    api_key : str
        The key.
    url : str
        Address for a browser, with the key unless the server is public.
    api_url : str
        The same for ``tiled.client.from_uri``.

    Raises
    ------
    BeamtimeFileError
        A path is no beamtime's.
    ServingError
        The address cannot be used.
    """

    def __init__(
        self,
        paths: Iterable[PathLike],
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        api_key: str | None = None,
        public: bool = False,
        readable: Iterable[PathLike] = (),
    ) -> None:
        self.api_key = api_key or os.environ.get(KEY_VARIABLE) or make_key()
        self.public = public
        self.host = host
        self._shelf = Shelf(paths, readable=readable)
        try:
            app = make_app(self._shelf, key=self.api_key, public=public)
            self._socket = _listen(host, port)
        except BaseException:
            self._shelf.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._server = self._make_server(app)

    def _make_server(self, app: App) -> uvicorn.Server:
        import uvicorn

        return uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on")
        )

    @property
    def _base(self) -> str:
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}"

    @property
    def url(self) -> str:
        """Address for a browser."""
        return f"{self._base}/beamtime/{self._with_key()}"

    @property
    def api_url(self) -> str:
        """Address for clients."""
        return f"{self._base}/api/v1{self._with_key()}"

    def _with_key(self) -> str:
        return "" if self.public else f"?api_key={self.api_key}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK

    def run(self) -> None:
        """Serve until the process is told to stop."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.close()

    def stop(self) -> None:
        """Let :meth:`run` end; from any thread."""
        self._server.should_exit = True

    @property
    def started(self) -> bool:
        """Whether requests are answered."""
        return self._server.started

    def close(self) -> None:
        """Let go of the files and of the address."""
        self._socket.close()
        self._shelf.close()


def _way_out(error: OSError) -> str:
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        return "choose another --port, or 0 for any that is free"
    return (
        "--host takes an address of this machine: 127.0.0.1 for itself alone, 0.0.0.0 "
        "for all of its networks"
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Now, so that nobody else can have the address.
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ServingError(
            f"cannot listen at {host}:{port}: {error.strerror}; {_way_out(error)}"
        ) from error
    return listener
