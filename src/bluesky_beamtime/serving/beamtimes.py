"""Several beamtimes as one container of catalogues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.serving.catalog import RunCatalog
from bluesky_beamtime.serving.recent_counts import RecentCounts
from bluesky_beamtime.serving.run import Container
from bluesky_beamtime.serving.shelf import Absent, Shelf


class Beamtimes(Container):
    """The catalogues of a shelf, by their names; asked anew at each request.

    Parameters
    ----------
    shelf
        The beamtimes.
    """

    node = SimpleNamespace(parent=None)

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._counts = RecentCounts()

    def metadata(self) -> dict[str, Any]:
        """Return nothing: each beamtime has its own."""
        return {}

    def children(self) -> Mapping[str, Callable[[], Any]]:
        """Return what makes each catalogue, those that are absent last."""
        contents = self._shelf.contents()
        found: dict[str, Callable[[], Any]] = {}
        for name, database in contents.available.items():
            found[name] = _catalog(name, database, self._counts)
        for name, absent in contents.absent.items():
            found[name] = _absent(name, absent)
        return found


class AbsentBeamtime(Container):
    """A beamtime whose disk is not there: only what an index knows of it.

    Parameters
    ----------
    name
        Its name.
    absent
        What is known.
    """

    def __init__(self, name: str, absent: Absent) -> None:
        self._name = name
        self._absent = absent

    def metadata(self) -> dict[str, Any]:
        """Return what the index says, and why there is no more."""
        known = self._absent.known
        about = {
            "name": self._name,
            "available": False,
            "reason": self._absent.reason,
            "researcher": known.researcher,
            "runs": known.runs,
        }
        return {"beamtime": about}

    def children(self) -> Mapping[str, Callable[[], Any]]:
        """Return nothing."""
        return {}


def _catalog(name: str, database: Database, counts: RecentCounts) -> Callable[[], Any]:
    return lambda: RunCatalog(database, name=name, counts=counts)


def _absent(name: str, absent: Absent) -> Callable[[], Any]:
    return lambda: AbsentBeamtime(name, absent)
