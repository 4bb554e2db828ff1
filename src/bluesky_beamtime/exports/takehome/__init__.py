"""A beamtime to take home: one folder that opens without this package."""

from .taking import TakenHome as TakenHome
from .taking import take_home as take_home
