"""The plans: Bluesky's, the package's, and those in ``plans/beamline.py``."""

from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky.plan_stubs import mv, mvr, rd
from bluesky.plans import count, list_scan, rel_scan, scan

from bluesky_beamtime.plans import (
    dark_flat,
    en_scan,
    exposure_series,
    fly_frames,
    fly_points,
    fly_scan,
    grid_frames,
    list_frames,
    live_stream,
    powder_exposure,
    snap,
    time_series,
    tomo_scan,
)
from plans.beamline import (
    before_and_after,
    centre_sample,
    map_sample,
    watch_sample,
)
