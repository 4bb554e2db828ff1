"""Everything a Bluesky beamline measures, in one file and one Zarr store.

>>> from bluesky_beamtime import Beamtime
>>> beamtime = Beamtime("2026-11-LaB6.db", sample="LaB6")  # doctest: +SKIP
>>> beamtime.attach(RE)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors as errors
from ._version import __version__ as __version__
from .errors import BeamtimeError as BeamtimeError
from .errors import BeamtimeWarning as BeamtimeWarning

if TYPE_CHECKING:
    from .beamtime import Beamtime as Beamtime
    from .database import Index as Index
    from .database import IndexWriter as IndexWriter
    from .database import Person as Person
    from .database import Run as Run
    from .database import RunWriter as RunWriter
    from .database import SampleMetadata as SampleMetadata
    from .database import Stream as Stream

# These need SQLAlchemy, which takes a while to import.
_LAZY = {
    "Beamtime": "beamtime",
    "Index": "database",
    "IndexWriter": "database",
    "Person": "database",
    "Run": "database",
    "RunWriter": "database",
    "SampleMetadata": "database",
    "Stream": "database",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def load_ipython_extension(ipython: Any) -> None:
    """Add the magics of a beamtime to IPython: ``%load_ext bluesky_beamtime``."""
    from .magics import load_ipython_extension

    load_ipython_extension(ipython)
