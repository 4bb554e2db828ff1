"""A simulated beamline, and three scans that show what a beamtime records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .beamline import Beamline as Beamline
from .beamline import epics_beamline as epics_beamline
from .beamline import simulated_beamline as simulated_beamline
from .picture import draw_picture as draw_picture
from .progress import ScanProgress as ScanProgress
from .tour import Tour as Tour
from .tour import take_tour as take_tour

if TYPE_CHECKING:
    from .motor import SimMotor as SimMotor


def __getattr__(name: str) -> Any:
    # It is made of ophyd-async, which takes a while to import.
    if name == "SimMotor":
        from .motor import SimMotor

        return SimMotor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
