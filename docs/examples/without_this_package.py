"""Read a beamtime with nothing but sqlite3 and zarr-python."""

import sys

# [prepare]
from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera

with Beamtime("2026-11-LaB6.db", sample="LaB6") as beamtime:
    RE = RunEngine()
    beamtime.attach(RE, report=False)
    with init_devices():
        cam1 = SimCamera(beamtime.frames)
    RE(bp.count([cam1], 3))

for name in [name for name in sys.modules if name.startswith("bluesky_beamtime")]:
    sys.modules[name] = None
# [runs]
import sqlite3
from contextlib import closing

with closing(sqlite3.connect("2026-11-LaB6.db")) as database:
    query = """
        SELECT runs.scan_id, runs.plan_name, samples.name, runs.exit_status
        FROM runs LEFT JOIN samples ON samples.id = runs.sample_id
    """
    for row in database.execute(query):
        print(*row)

    query = "SELECT data_key, uri FROM stream_resources ORDER BY data_key"
    places = dict(database.execute(query).fetchall())
# [frames]
import zarr

for key, uri in places.items():
    array = zarr.open_array(uri, mode="r")
    print(key, array.shape, array.dtype, array.attrs.get("units"))

print(zarr.open_array(places["cam1"])[0].max(), "photons in the brightest pixel")
