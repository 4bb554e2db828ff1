"""The plans: Bluesky's, the package's, and those in ``plans/beamline.py``."""

from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky.plan_stubs import mv, mvr, rd
from bluesky.plans import count, list_scan, rel_scan, scan

from bluesky_beamtime.plans import en_scan, fly_frames, grid_frames, snap
from plans.beamline import (
    before_and_after,
    centre_sample,
    exposure_series,
    map_sample,
    watch_sample,
)
