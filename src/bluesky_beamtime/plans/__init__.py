"""Plans for scans with cameras."""

from .fly import fly_frames as fly_frames
from .step import en_scan as en_scan
from .step import grid_frames as grid_frames
from .step import snap as snap
