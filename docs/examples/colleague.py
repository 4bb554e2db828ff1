"""From the RunEngine to a colleague's notebook."""

# [acquire]
from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera

RE = RunEngine()
beamtime = Beamtime("2026-11-LaB6.db", sample="LaB6")
beamtime.attach(RE, report=False)
with init_devices():
    camera = SimCamera(beamtime.frames, shape=(64, 48))
    x = SimMotor(instant=True)
RE(bp.scan([camera], x, 0, 2, 5), operator="Ada")

# [serve]
import re
import subprocess
import sys

command = [sys.executable, "-m", "bluesky_beamtime"]  # or "beamtime"
server = subprocess.Popen(
    [*command, "serve", "2026-11-LaB6.db", "--port", "0"],
    stdout=subprocess.PIPE,
    text=True,
)
printed = "".join(iter(server.stdout.readline, "Ctrl-C ends it.\n"))
(url,) = re.findall(r'from_uri\("(.*)"\)', printed)

# [connect]
from tiled.client import from_uri

catalog = from_uri(url)
run = catalog[-1]
print(run.start["scan_id"], run.start["operator"], run.stop["exit_status"])
data = run.primary.read()
print(dict(data.sizes))
one_frame = run.primary["camera"][3]
print(one_frame.shape, one_frame.dtype)

# [plot]
figure = data["camera"].mean(("camera_y", "camera_x")).plot()[0].figure
figure.savefig("mean.png")

# [search]
from tiled.queries import FullText, Key

print(len(catalog.search(Key("operator") == "Ada")))
print(len(catalog.search(FullText("lab6"))))

# [close]
server.stdout.close()
catalog.context.close()
server.terminate()
server.wait(20)
beamtime.close()
