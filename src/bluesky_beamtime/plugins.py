"""Parts that others may bring, found by the names of their entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from bluesky_beamtime.errors import MissingExtraError, UnsupportedFormatError


def plugin_names(group: str) -> list[str]:
    """Return the names that are installed in a group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def load_plugin(group: str, name: str, extra: str) -> Any:
    """Return the object behind a name.

    Parameters
    ----------
    group
        Group of entry points, such as ``bluesky_beamtime.exports``.
    name
        Name within it.
    extra
        What to install when a package is missing that it needs.

    Raises
    ------
    UnsupportedFormatError
        There is nothing of this name.
    MissingExtraError
        It needs a package that is not installed.
    """
    for point in entry_points(group=group, name=name):
        try:
            return point.load()
        except ImportError as error:
            package = error.name or "a package"
            raise MissingExtraError(name, package, extra) from error
    raise UnsupportedFormatError(
        f"nothing called {name!r} is installed in {group!r}; "
        f"there is: {', '.join(plugin_names(group)) or 'nothing'}"
    )
