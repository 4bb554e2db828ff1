"""Take a beamtime home in one folder, and read it there with stock packages."""

# [prepare]
import sys

from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera

with Beamtime("2026-11-LaB6.db", sample="LaB6") as beamtime:
    RE = RunEngine()
    beamtime.attach(RE, report=False)
    with init_devices():
        x = SimMotor(instant=True)
        cam1 = SimCamera(beamtime.frames, motor=x)
    RE(bp.scan([cam1], x, -1, 1, 3))
# [take]
with Beamtime("2026-11-LaB6.db", mode="r") as beamtime:
    lab6 = beamtime.search(sample="LaB6")
    taken = beamtime.take_home("LaB6 to go", runs=lab6, exports=["nexus"])
    print(taken.runs, "run,", len(taken.problems), "problems")
    print(*sorted(path.name for path in taken.path.iterdir()), sep="\n")
# [check]
import subprocess

print(subprocess.run(["sha256sum", "-c", "--quiet", "MANIFEST.sha256"], cwd=taken.path))
# [end]
for name in [name for name in sys.modules if name.startswith("bluesky_beamtime")]:
    sys.modules[name] = None
# [read]
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import zarr

folder = Path("LaB6 to go")
with closing(sqlite3.connect(folder / "2026-11-LaB6.db")) as database:
    query = "SELECT uri FROM stream_resources WHERE data_key = 'cam1'"
    ((place,),) = database.execute(query).fetchall()
print(zarr.open_array(folder / unquote(place), mode="r").shape)
# [close]
