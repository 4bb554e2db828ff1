"""The one object that users hold."""

from bluesky_beamtime.beamtime.beamtime import Beamtime

__all__ = ["Beamtime"]
