"""Plans for scans with cameras."""

from .fly import fly_frames as fly_frames
from .preflight import Preflight as Preflight
from .preflight import preflight_decorator as preflight_decorator
from .preflight import preflight_wrapper as preflight_wrapper
from .step import en_scan as en_scan
from .step import grid_frames as grid_frames
from .step import snap as snap
from .trajectories import fly_points as fly_points
from .trajectories import fly_scan as fly_scan
from .trajectories import paced_frames as paced_frames
