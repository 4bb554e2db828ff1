"""Which kinds of backend there are, by the scheme of their URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from bluesky_beamtime.errors import UnsupportedFormatError

if TYPE_CHECKING:
    from bluesky_beamtime.storage.backends.protocol import StorageBackend

ENTRY_POINT_GROUP = "bluesky_beamtime.backends"
ENVIRONMENT_PREFIX = "BLUESKY_BEAMTIME_BACKEND_"

BackendFactory: TypeAlias = "Callable[..., StorageBackend]"
"""Called with a URL and options; usually the backend's class."""

_Factory = TypeVar("_Factory", bound="Callable[..., StorageBackend]")
_factories: dict[str, BackendFactory] = {}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


def register_backend(*names: str) -> Callable[[_Factory], _Factory]:
    """Make a kind of backend known to :func:`open_backend`; a decorator.

    Parameters
    ----------
    *names
        Schemes of the URLs that it opens, such as ``"s3"``, or names by which it can be
        chosen in their place.

    Notes
    -----
    What is decorated is called with the URL and the options. A package can also name
    its class in the entry-point group ``bluesky_beamtime.backends``, the entry's name
    being the scheme; what is registered by hand wins.
    """

    def register(factory: _Factory) -> _Factory:
        for name in names:
            _factories[name.lower()] = factory
        return factory

    return register


def get_available_backends() -> dict[str, str]:
    """Return the known schemes and names, each with the class that opens it."""
    import_module("bluesky_beamtime.storage.backends")
    found = {
        point.name.lower(): point.value
        for point in entry_points(group=ENTRY_POINT_GROUP)
    }
    for name, factory in _factories.items():
        qualified = getattr(factory, "__qualname__", factory)
        found[name] = f"{factory.__module__}:{qualified}"
    return dict(sorted(found.items()))


def _factory(name: str) -> BackendFactory | None:
    import_module("bluesky_beamtime.storage.backends")
    if name not in _factories:
        for point in entry_points(group=ENTRY_POINT_GROUP):
            if point.name.lower() == name:
                _factories[name] = point.load()
                break
    return _factories.get(name)


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case; ``"file"`` for a path."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else "file"


def open_backend(
    url: str | os.PathLike[str], *, backend: str | None = None, **options: Any
) -> StorageBackend:
    """Open the byte store that a URL names.

    Parameters
    ----------
    url
        ``file:///folder`` or a path, ``memory://name``, ``s3://bucket/prefix``,
        ``gs://bucket/prefix``, ``az://container/prefix``, or what others registered.
    backend
        Name of the registered kind to use in place of the one that the scheme names.
        The environment can choose as well, for one scheme:
        ``BLUESKY_BEAMTIME_BACKEND_S3=mine``. This argument wins over the environment,
        and that over the scheme.
    **options
        For the backend: endpoints, credentials, timeouts. Never in the URL.

    Raises
    ------
    UnsupportedFormatError
        Nobody registered the scheme or name; the message lists those that are.
    PathError
        A URL that is refused.
    MissingExtraError
        It needs a package that is not installed; the message says which.

    Examples
    --------
    >>> from bluesky_beamtime.storage.backends import open_backend
    >>> with open_backend("memory://") as store:
    ...     store.put_bytes("a/b", b"12")
    ...     list(store.list_prefix("", recursive=True))
    ['a/b']
    """
    text = os.fspath(url)
    scheme = scheme_of(text)
    chosen = (
        backend
        or os.environ.get(ENVIRONMENT_PREFIX + re.sub(r"\W", "_", scheme).upper())
        or scheme
    ).lower()
    factory = _factory(chosen)
    if factory is None:
        raise UnsupportedFormatError(
            f"there is no backend {chosen!r} for this URL; known are "
            f"{', '.join(map(repr, get_available_backends()))}"
        )
    return factory(text, **options)
