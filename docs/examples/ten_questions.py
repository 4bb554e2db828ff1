"""The first ten questions of somebody who comes from SPEC or QCoDeS."""

# [prepare]
from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.demo import SimMotor
from bluesky_beamtime.devices import SimCamera, SimCounter

with Beamtime("2026-11-LaB6.db") as beamtime:
    RE = RunEngine()
    beamtime.attach(RE, report=False)
    with init_devices():
        x = SimMotor()
        diode = SimCounter(x)
        cam1 = SimCamera(beamtime.frames)
    beamtime.sample = {"name": "LaB6", "formula": "LaB6", "temperature": 300}
    RE(bp.count([diode, cam1], 3), purpose="align the beam")
    beamtime.sample = {"name": "LaB6", "extra": {"temperature": 450}}
    RE(bp.scan([diode], x, -2, 2, 5), purpose="find the edge")

# [open]
beamtime = Beamtime("2026-11-LaB6.db")
# [last]
run = beamtime[-1]
print(run.scan_id, run.plan_name, run.exit_status, run.num_events, "events")
# [number]
print(beamtime[1].plan_name, [run.scan_id for run in beamtime])
# [find]
for run in beamtime.search(text="edge", since="2020-01-01"):
    print(run.scan_id, run.start["purpose"])
# [sample]
print(beamtime[1].sample.extra, "and then", beamtime[2].sample.extra)
# [table]
table = beamtime[2].primary.read().to_dataframe()
print(table[["x", "diode"]].to_string(index=False))
# [plot]
axes = beamtime[2].plot("diode")  # against the motor; axes of matplotlib
axes.figure.savefig("scan2.png")
# [csv]
table.to_csv("scan2.csv")
# [command]
start = beamtime[2].start
print(start["plan_name"], start["plan_args"]["num"], start["motors"])
# [frame]
frames = beamtime[1].primary.read().cam1
print(frames.shape, frames.dtype, "brightest pixel:", int(frames[0].max()))
# [note]
run = beamtime[2]
run.note("the edge is where it should be", author="Ada")
run.tag("calibration")
run.star()
print([str(note) for note in run.notes], run.tags, run.starred)
print([run.scan_id for run in beamtime.search(starred=True, tags="calibration")])
# [close]
beamtime.close()
