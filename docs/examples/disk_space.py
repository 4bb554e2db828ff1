"""A run that does not fit on the disk does not begin."""

from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera

RE = RunEngine()
beamtime = Beamtime("space.db")
with init_devices():
    cam = SimCamera(beamtime.frames, shape=(2048, 2048), exposure=0.001)

# [refused]
from bluesky_beamtime.errors import DiskSpaceError
from bluesky_beamtime.storage import human_size

beamtime.attach(RE, report=False)
try:
    RE(bp.count([cam], 1_000_000_000_000))
except DiskSpaceError as error:
    print("it takes", human_size(error.needed), "and nothing has moved")
print(len(beamtime), "runs")
# [close]
beamtime.close()
