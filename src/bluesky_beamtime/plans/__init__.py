"""Plans for scans with cameras."""

from .fields import Beam as Beam
from .fields import dark_flat as dark_flat
from .fields import take_darks as take_darks
from .fields import take_flats as take_flats
from .fly import fly_frames as fly_frames
from .live import live_stream as live_stream
from .powder import powder_exposure as powder_exposure
from .preflight import Preflight as Preflight
from .preflight import preflight_decorator as preflight_decorator
from .preflight import preflight_wrapper as preflight_wrapper
from .series import exposure_series as exposure_series
from .series import time_series as time_series
from .step import en_scan as en_scan
from .step import grid_frames as grid_frames
from .step import list_frames as list_frames
from .step import snap as snap
from .tomography import tomo_scan as tomo_scan
from .trajectories import fly_points as fly_points
from .trajectories import fly_scan as fly_scan
from .trajectories import paced_frames as paced_frames
