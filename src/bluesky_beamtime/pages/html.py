"""Templates that escape whatever stands in a document."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from bluesky_beamtime.errors import MissingExtraError


def url_part(text: str) -> str:
    """Return text as one part of the path of a URL."""
    return quote(text, safe="")


def environment(package: str, extra: str) -> Any:
    """Return the templates of a package, which may build upon ``base.html`` here.

    Parameters
    ----------
    package
        Has a folder ``templates``.
    extra
        What brings jinja2.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader
    except ImportError as error:
        raise MissingExtraError("making pages", "jinja2", extra) from error
    loaders = [PackageLoader(package), PackageLoader("bluesky_beamtime.pages")]
    made = Environment(loader=ChoiceLoader(loaders), autoescape=True)
    made.filters["part"] = url_part
    return made
